"""A stick is believed by the same chain as the channel; what is out of date only at a person's word."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import pytest
from played_box import settings_of
from repository import Depot

from sekisho.appliance.core.errors import SekishoError
from sekisho.signatures.keeper.effects import Effects


def stick(root: Path, age: dt.timedelta = dt.timedelta(), number: int = 3) -> tuple[Depot, Path]:
    (root / "depot").mkdir()
    depot = Depot(root / "depot", now=dt.datetime.now(dt.UTC) - age)
    depot.publish(number)
    copy = root / "stick"
    shutil.copytree(depot.tree.directory, copy)
    return depot, copy


def box(root: Path, depot: Depot) -> Effects:
    effects = Effects(settings_of(root / "box", depot.trusted), lambda: False)
    effects.stage.archive(1).parent.parent.mkdir(parents=True, exist_ok=True)
    return effects


def test_a_stick_brings_the_archive_and_what_is_newest(tmp_path: Path) -> None:
    depot, copy = stick(tmp_path)
    effects = box(tmp_path, depot)
    found = effects.imported(copy, confirm_old=False)
    assert (found.manifest.number, found.current, found.unfit) == (3, True, "")
    assert effects.stage.archive(3).read_bytes() == depot.sets[3]


def test_a_stick_whose_time_is_over_is_taken_only_when_a_person_vouches(tmp_path: Path) -> None:
    depot, copy = stick(tmp_path, dt.timedelta(days=3))
    effects = box(tmp_path, depot)
    with pytest.raises(SekishoError):
        effects.imported(copy, confirm_old=False)
    assert not effects.stage.archive(3).exists()
    found = effects.imported(copy, confirm_old=True)
    assert (found.manifest.number, found.current) == (3, False), "that nothing newer exists is not known by it"


def test_a_person_s_word_does_not_make_an_older_or_a_foreign_stick_good(tmp_path: Path) -> None:
    depot, copy = stick(tmp_path)
    older = tmp_path / "older"
    shutil.copytree(copy, older)
    depot.publish(4)
    shutil.rmtree(copy)
    shutil.copytree(depot.tree.directory, copy)
    effects = box(tmp_path, depot)
    assert effects.imported(copy, confirm_old=False).manifest.number == 4
    for _ in range(2):
        with pytest.raises(SekishoError):
            effects.imported(older, confirm_old=True)
    (tmp_path / "foreign").mkdir()
    _, foreign = stick(tmp_path / "foreign", number=9)
    with pytest.raises(SekishoError):
        effects.imported(foreign, confirm_old=True)
    assert not effects.stage.archive(9).exists()


def test_a_stick_whose_archive_was_changed_brings_nothing(tmp_path: Path) -> None:
    depot, copy = stick(tmp_path)
    for path in (copy / "targets" / "sig").glob("*.3.tar.zst"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    effects = box(tmp_path, depot)
    with pytest.raises(SekishoError):
        effects.imported(copy, confirm_old=True)
    assert not effects.stage.archive(3).exists()
