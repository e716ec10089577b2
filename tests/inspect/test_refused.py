"""The list of files that the engine is to refuse: bounded, of one rule set, and never the box's undoing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.appliance.core import known
from sekisho.appliance.core.errors import RejectedInput
from sekisho.inspect.refused import Refused

SHA = "ab" * 32


def test_what_was_found_is_there_for_the_next_life_of_the_same_set(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    refused = Refused(path, "one")
    refused.add(SHA, 1000, ["Bad"])
    refused.flush(now=True)
    assert known.read(path, "one") == [known.KnownFile(SHA, 1000, ["Bad"])]
    assert Refused(path, "one").files() == refused.files()
    assert Refused(path, "two").files() == [] == known.read(path, "two"), "another set has not found it"


def test_another_set_begins_with_nothing(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    refused = Refused(path, "one")
    refused.add(SHA, 1000, ["Bad"])
    refused.begin("two")
    refused.flush(now=True)
    assert known.read(path, "one") == known.read(path, "two") == []


def test_the_newest_are_kept(tmp_path: Path) -> None:
    refused = Refused(tmp_path / "known.json", "one")
    for number in range(known.MAX_FILES + 3):
        refused.add(f"{number:064x}", 1000, ["a" * 64] * 16)
    refused.flush(now=True)
    kept = known.read(tmp_path / "known.json", "one")
    assert [kept[0].sha256, len(kept)] == [f"{3:064x}", known.MAX_FILES], "and the file is within its own cap"


def test_what_is_nothing_is_no_file(tmp_path: Path) -> None:
    refused = Refused(tmp_path / "known.json", "one")
    refused.add(SHA, 0, ["Bad"])
    assert refused.files() == []


@pytest.mark.parametrize("damage", [b"", b"{", b'{"set_id":"one","files":[{"sha256":"x","size":1}]}', b"\xff" * 9])
def test_a_damaged_list_is_begun_anew(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "known.json"
    path.write_bytes(damage)
    with pytest.raises(RejectedInput):
        known.read(path, "one")
    refused = Refused(path, "one")
    refused.add(SHA, 10, [])
    refused.flush(now=True)
    assert known.read(path, "one") == [known.KnownFile(SHA, 10)]


def test_a_disk_that_refuses_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "later" / "known.json"
    refused = Refused(path, "one")
    refused.add(SHA, 10, [])
    refused.flush(now=True)
    path.parent.mkdir()
    refused.flush(now=True)
    assert known.read(path, "one") == refused.files()
