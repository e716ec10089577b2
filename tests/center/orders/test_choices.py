"""The page of what a UTM does: what was saved is shown, what it does not show stays, what means nothing is named."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.orders import choices, proposal
from sekisho.center.orders.choices import BadField, Choices
from sekisho.center.orders.proposal import Wanted
from sekisho.policy import overlay
from sekisho.policy.overlay import EMPTY

MAC = "02:00:5e:00:53:01"
FORM = {
    "category.gambling": "block", "category.social": "log", "application.tiktok": "block",
    "words": "カジノ\r\ntorrent\r\n\r\ntorrent\r\n", "words_action": "log",
    "sites": "evil.example\r\nhttp://shop.example/login.php\r\n203.0.113.0/24\r\n日本語.example",
    "sites_action": "block",
    "whom": "chosen", "devices": "02-00-5E-00-53-01", "hours": "hours", "day.mon": "yes", "day.sat": "yes",
    "start": "22:00", "end": "06:00", "signatures": "log", "isolated": "02:00:5e:00:53:02",
    "restart.sun": "yes", "restart_start": "03:30", "restart_hours": "4",
}  # fmt: skip


def test_what_is_saved_is_what_is_shown_and_can_be_put_in_force() -> None:
    made = choices.put(EMPTY, choices.read(FORM), "Asia/Tokyo")
    overlay.prove(made)
    assert overlay.parse(overlay.encode(made)) == made
    shown = choices.shown(made)
    assert shown.categories == {"gambling": "block", "social": "log"} and shown.applications == {"tiktok": "block"}
    assert (shown.words, shown.words_action, shown.whom, shown.devices) == ("カジノ\ntorrent", "log", "chosen", MAC)
    assert (shown.hours, shown.days, shown.start, shown.end) == ("hours", ("mon", "sat"), "22:00", "06:00")
    assert (shown.signatures, shown.isolated) == ("log", "02:00:5e:00:53:02")
    assert (shown.restart_days, shown.restart_start, shown.restart_hours) == (("sun",), "03:30", "4")
    assert set(shown.sites.split("\n")) == {line.strip() for line in FORM["sites"].splitlines()}
    assert choices.put(made, shown, "Asia/Tokyo") == made
    assert [one.schedule for one in (*made.url_category, *made.application, *made.keyword)] == ["page-hours"] * 4


def test_devices_are_ticked_or_written() -> None:
    form = {"whom": "chosen", f"devices.{MAC}": "yes", "devices": "02:00:5e:00:53:09\r\n" + MAC, "isolated.x": ""}
    made = choices.put(EMPTY, choices.read(form), "")
    assert made.group[0].devices == (MAC, "02:00:5e:00:53:09") and made.isolation == ()
    with pytest.raises(BadField):
        choices.put(EMPTY, choices.read({"isolated.pc-1": "yes"}), "")


def test_what_the_page_does_not_show_stays() -> None:
    before = proposal.add(
        EMPTY, Wanted("keyword", "", 0, MAC, "a.example"), "r", dt.datetime(2031, 1, 1, tzinfo=dt.UTC)
    )
    made = choices.put(before, choices.read(FORM), "Asia/Tokyo")
    emptied = choices.put(made, Choices(), "")
    assert made.exception == before.exception and emptied == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"category.gambling": "explode"}, "category.gambling"),
        ({"words": "x"}, "words"), ({"words": "y" * 65}, "words"), ({"words": "a\u202eb"}, "words"),
        ({"sites": "not a site"}, "sites"), ({"sites": "a.example b.example"}, "sites"), ({"sites": "<b>"}, "sites"),
        ({"sites": "/etc/passwd"}, "sites"), ({"sites": "z" * 70_000}, "sites"),
        ({"devices": "pc-1"}, "devices"), ({"devices": ""}, "devices"), ({"isolated": "192.168.1.9"}, "isolated"),
        ({"day.mon": "", "day.sat": ""}, "days"), ({"start": "9:00"}, "start"), ({"end": "22:00"}, "end"),
        ({"end": "24:00"}, "end"), ({"restart_start": ""}, "restart_start"), ({"restart_hours": "13"}, "restart_hours"),
        ({"words": "\n".join(f"word{n}" for n in range(501))}, "words"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_named(change: dict[str, str], field: str) -> None:
    with pytest.raises(BadField) as refused:
        choices.put(EMPTY, choices.read(FORM | change), "Asia/Tokyo")
    assert refused.value.field == field


_text = st.text(max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(FORM)), st.one_of(_text, st.sampled_from(sorted(FORM.values())))))
def test_any_form_is_put_in_force_or_refused(form: dict[str, Any]) -> None:
    try:
        made = choices.put(EMPTY, choices.read(FORM | form), "Asia/Tokyo")
        overlay.prove(made)
    except RejectedInput:
        return
    assert overlay.parse(overlay.encode(made)) == made
    assert choices.put(made, choices.shown(made), "Asia/Tokyo") == made
