"""Every text in both languages, none missing, none without a use."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import get_args

import msgspec
import pytest

import sekisho.portal_agent.words as words
from sekisho.portal_agent import record, state, wishes
from sekisho.telemetry import events

FOLDER = Path(words.__file__).parent
TEMPLATES = "".join(path.read_text() for path in sorted((FOLDER / "templates").glob("*.html")))
CODE = "".join(path.read_text() for path in sorted(FOLDER.rglob("*.py")))
PAIRS = [(section, key, text) for section, keys in words.sentences().items() for key, text in keys.items()]


@pytest.mark.parametrize(("section", "key", "text"), PAIRS, ids=lambda value: value if isinstance(value, str) else "")
def test_both_languages_say_something_with_the_same_places(section: str, key: str, text: words.Sentence) -> None:
    places = [{name for _, name, _, _ in string.Formatter().parse(each) if name} for each in (text.ja, text.en)]
    assert places[0] == places[1]
    if (section, key) != ("frame", "language"):  # each names the other
        assert text.en.strip() and text.en.isascii()
        assert re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", text.ja) or text.ja == "SHA-256"


def test_every_sentence_that_a_template_asks_for_exists() -> None:
    asked = set(re.findall(r'\bt\("([a-z_]+)", "([a-z_0-9]+)"', TEMPLATES))
    asked |= {
        (s, k) for s, *both in re.findall(r'\bt\("([a-z_]+)", "(\w+)" if [^,)]* else "(\w+)"', TEMPLATES) for k in both
    }
    assert len(asked) > 90
    assert {pair for pair in asked if pair[1] not in words.sentences().get(pair[0], {})} == set()


def test_every_code_has_its_sentence() -> None:
    has = words.sentences()
    assert set(get_args(state.Word)) == set(has["word"]) == set(has["advice"])
    assert set(get_args(record.Deed)) == set(has["deed"])
    kinds = {each.__struct_config__.tag for each in get_args(events.Event)}
    assert kinds <= set(has["event"])
    said = set(re.findall(r'back\(request, [^,]+, "(\w+)"\)', CODE))
    assert said == set(has["said"])
    tags = {str(each.__struct_config__.tag) for each in get_args(wishes.Wish)}
    wanted = {f"{tag}_{word}" for tag in tags for word in get_args(wishes.Word)}
    assert wanted <= set(has["outcome"])
    troubles = state.Facts(
        "protected", "", True, True, 1, 1, True, 99, state.Updates("stale"), 0.0, 99.0, 1.0, 0.1
    ).troubles
    assert set(troubles) == set(has["trouble"])
    assert set(get_args(state.Grade)) == set(has["updates"])


def test_a_sentence_in_one_language_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"ja": "a"}, words.Sentence)
