"""The owner's page of what leaves the box says what the types say, all of it, in both languages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from sekisho.telemetry import events, fields, privacy, privacy_page
from sekisho.telemetry.events import Alert, Event, FileVerdict, Flow, Retro, Share

PAGE = Path(__file__).parents[2] / "docs" / "privacy.md"


def test_the_page_is_what_the_types_say() -> None:
    remedy = "run: sekisho telemetry fields --markdown > docs/privacy.md"
    assert PAGE.read_text(encoding="utf-8") == privacy_page.page(), remedy


@pytest.mark.protocol("P11")
def test_every_event_type_and_every_field_is_on_it() -> None:
    listed = {(field.type, field.name.replace("[]", "")) for field in fields.every()}
    for kind in get_args(Event):
        type_name = str(kind.__struct_config__.tag)
        several: dict[object, dict[str, object]] = {
            Retro: {"deliveries": [events.Delivery()]},
            events.Diagnosis: {"ports": [events.Port()]},
        }
        example = kind(at="x", **several.get(kind, {}))
        for path in _paths(example):
            assert (type_name, path) in listed


def _paths(struct: msgspec.Struct, prefix: str = "") -> list[str]:
    found = []
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        inner = value[0] if isinstance(value, list) and value else Share() if name == "bypassed" else value
        found += _paths(inner, f"{prefix}{name}.") if isinstance(inner, msgspec.Struct) else [f"{prefix}{name}"]
    return found


def test_every_meaning_is_whole_in_both_languages_and_none_is_left_over() -> None:
    for field in fields.every():
        assert re.search(r"[ぁ-んァ-ヶ一-龠]", field.ja) and field.ja.endswith("。"), field
        assert re.fullmatch(r"[ -~]+\.", field.en), field
    for name in fields.TYPES:
        ja, en = fields.of_type(name)
        assert ja.endswith("。") and en.endswith(".")
    assert fields.unused() == set()


def test_a_field_without_a_meaning_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Secret(msgspec.Struct, tag="secret"):
        password: str = ""

    monkeypatch.setitem(fields.TYPES, "secret", Secret)
    with pytest.raises(KeyError, match="password"):
        fields.every()


def test_the_caps_on_the_page_are_those_in_force() -> None:
    long = Alert(
        at="x", url="/" + "a" * 9999, host="h" * 9999, mail_to=["m" * 999] * 99, flow=Flow(src_ip="s" * 999), sid=7
    )
    cut = privacy.tidy(long)
    assert isinstance(cut, Alert)
    caps = {field.name: field.cap for field in fields.every() if field.type == "alert"}
    assert caps["url"] == str(len(cut.url))
    assert caps["host"] == str(len(cut.host))
    assert caps["mail_to[]"] == f"{len(cut.mail_to)} × {len(cut.mail_to[0])}"
    assert caps["flow.src_ip"] == str(len(cut.flow.src_ip))


def test_the_page_says_which_words_a_field_may_hold_and_what_masking_does() -> None:
    by_name = {(field.type, field.name): field for field in fields.every()}
    assert by_name["file", "outcome"].cap == " / ".join(get_args(FileVerdict.__annotations__["outcome"]) or OUTCOMES)
    assert "keyword" in by_name["alert", "function"].cap
    assert by_name["alert", "flow.mac"].masked == by_name["device", "name"].masked == "all"
    assert by_name["alert", "url"].masked == by_name["dns", "name"].masked == "inside"
    assert by_name["alert", "signature"].masked == by_name["state", "epoch"].masked == ""


OUTCOMES = ("clean", "blocked", "released_by_policy", "delivered_then_found")
