"""The power fails between any two file operations, and then somebody offers an older state.

Each attack is tried on the box as every cut may leave it. What a refresh returned as true before the cut must hold
after it; whatever the cut left, the honest repository must be believed again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from crashfs import CrashDisk
from forge import Forge, Memory

from sekisho.signatures.trust import ChannelRefused, Disk, Trust


class Restless(Disk):
    """For what is looked at once and thrown away: it need not be safe."""

    def sync(self, path: Path) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


DAY = dt.timedelta(days=1)


@dataclass
class Case:
    """What the box learns, and what it is offered then."""

    learn: Callable[[Forge], None]
    attack: Callable[[Forge, Forge], Forge]
    """Of the newest state, and of the one before."""
    codes: tuple[str, ...] = ("rolled_back",)
    later: dt.timedelta = dt.timedelta()


def learn_all(forge: Forge) -> None:
    forge.put_set(2)
    forge.release("targets", "sig")


def learn_root(forge: Forge) -> None:
    forge.replace_keys("root")
    forge.release("root")


def replay(_: Forge, before: Forge) -> Forge:
    return before


def older(role: str, hashes: bool = True) -> Callable[[Forge, Forge], Forge]:
    """The thief has the keys of all that tells of `role`, and offers an older one of it under newer ones of them."""

    def attack(newest: Forge, before: Forge) -> Forge:
        newest.hashes = hashes
        newest.signed(role).version = before.signed(role).version
        newest.sign(role)
        newest.release(*(["snapshot"] if role in ("targets", "sig") else []))
        return newest

    return attack


def without_sets(newest: Forge, _: Forge) -> Forge:
    del newest.snapshot.meta["sig.json"]
    newest.release("snapshot")
    return newest


def lower_number(newest: Forge, _: Forge) -> Forge:
    newest.put_set(1)
    newest.release("sig")
    return newest


def held_back(newest: Forge, _: Forge) -> Forge:
    return newest


CASES = {
    "timestamp": Case(lambda forge: forge.release(), replay),
    "snapshot": Case(learn_all, older("snapshot")),
    "snapshot, no hashes": Case(learn_all, older("snapshot", False)),
    "targets": Case(learn_all, older("targets")),
    "targets, no hashes": Case(learn_all, older("targets", False)),
    "sig": Case(learn_all, older("sig")),
    "everything": Case(learn_all, replay),
    "root": Case(learn_root, replay),
    "a role is gone": Case(learn_all, without_sets, ("rolled_back", "forged")),
    "the set's number": Case(learn_all, lower_number),
    "freeze": Case(learn_all, held_back, ("expired",), 2 * DAY),
    "freeze after the roots moved": Case(learn_root, held_back, ("expired",), 2 * DAY),
}


@pytest.mark.parametrize("name", CASES)
def test_a_power_cut_between_any_two_file_operations_opens_no_way_back(tmp_path: Path, name: str) -> None:
    case, forge = CASES[name], Forge()
    (tmp_path / "box").mkdir()
    disk = CrashDisk(tmp_path / "box")
    trust = Trust(tmp_path / "box", forge.trusted, Memory(forge), disk)
    trust.refresh(forge.now.timestamp())
    trust.manifest()
    before, first = forge.copy(), len(disk.ops)
    forge.now += dt.timedelta(hours=1)
    case.learn(forge)
    trust.refresh(forge.now.timestamp())
    number = trust.manifest().number
    learnt = len(disk.ops)
    honest, clock = forge.copy(), (forge.now + case.later).timestamp()
    evil = case.attack(forge, before)
    refused = 0
    for number_of_cut, cut in enumerate(disk.cuts(first)):
        box = Trust(cut.put(tmp_path / "after"), forge.trusted, Memory(evil), Restless())
        try:
            box.refresh(clock, clock)
            box.manifest()
        except ChannelRefused as err:
            assert err.code in case.codes
            refused += 1
        else:
            assert cut.after < learnt, f"taken back after {cut.after} operations of {learnt}"
        if not case.later and number_of_cut % 3 == 0:
            box = Trust(cut.put(tmp_path / "after"), forge.trusted, Memory(honest), Restless())
            box.refresh(clock, clock)
            assert box.manifest().number == number
    assert refused > 0


@pytest.mark.parametrize(
    "damage", ["empty", *(pytest.param(kind, marks=pytest.mark.full) for kind in ("gone", "half"))]
)
@pytest.mark.parametrize("name", CASES)
def test_the_floors_hold_where_a_disk_lost_all_metadata_it_called_safe(tmp_path: Path, name: str, damage: str) -> None:
    case, forge = CASES[name], Forge()
    trust = Trust(tmp_path / "box", forge.trusted, Memory(forge))
    trust.refresh(forge.now.timestamp())
    before = forge.copy()
    forge.now += dt.timedelta(hours=1)
    case.learn(forge)
    trust.refresh(forge.now.timestamp())
    trust.manifest()
    honest, clock = forge.copy(), (forge.now + case.later).timestamp()
    evil = case.attack(forge, before)
    for path in (tmp_path / "box").rglob("*.json"):
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if damage == "half" else 0])
    box = Trust(tmp_path / "box", forge.trusted, Memory(evil))
    with pytest.raises(ChannelRefused) as refused:
        box.refresh(clock, clock)
        box.manifest()
    assert refused.value.code in case.codes
    if not case.later:
        # What the thief signed rightly counts, until its keys are taken away: the honest go on above it.
        for role in ("sig", "snapshot", "timestamp"):
            honest.signed(role).version = max(honest.signed(role).version, evil.signed(role).version)
        honest.release("sig")
        Trust(tmp_path / "box", forge.trusted, Memory(honest)).refresh(clock, clock)


def test_recovery_from_a_fast_forward_ends_well_whenever_the_power_is_cut(tmp_path: Path) -> None:
    forge = Forge()
    evil = forge.copy()
    evil.timestamp.version = evil.snapshot.version = 10**9
    evil.sig.version = evil.targets.version = 10**9
    for role in ("targets", "sig", "snapshot", "timestamp"):
        evil.sign(role)
    (tmp_path / "box").mkdir()
    disk = CrashDisk(tmp_path / "box")
    Trust(tmp_path / "box", forge.trusted, Memory(evil), disk).refresh(forge.now.timestamp())
    poisoned = len(disk.ops)
    forge.replace_keys("timestamp")
    forge.replace_keys("snapshot")
    forge.release("root", "targets", "sig")
    source = Memory(forge)
    Trust(tmp_path / "box", forge.trusted, source, disk).refresh(forge.now.timestamp())
    for cut in disk.cuts(poisoned):
        box = Trust(cut.put(tmp_path / "after"), forge.trusted, Memory(forge), Restless())
        assert box.refresh(forge.now.timestamp()).timestamp == forge.timestamp.version
        assert box.manifest().number == 1
