"""Everything is killed, cut, filled and set wrong at random: no verdict and no alert is lost, each is stored once."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from world import DAEMONS, Office, World

from sekisho.center.store import Store

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

SEED = int(os.environ.get("SEKISHO_SEED", str(time.time_ns() % 1_000_000)))
KILLS = 60


def _started(root: Path, spool_mb: int = 32) -> World:
    print(f"SEKISHO_SEED={SEED}")
    made = World(root, f"ch{os.getpid()}", SEED, spool_mb)
    for name in ("broker", "meddler", "center", "box"):
        made.start(name)
    return made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = _started(tmp_path)
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[World]:
    """A box that may keep very little."""
    made = _started(tmp_path, spool_mb=4)
    try:
        yield made
    finally:
        made.remove()


def test_nothing_is_lost_whatever_happens(world: World) -> None:
    office = Office(world)
    office.start()
    world.wait(lambda: world.store_path.exists() and world.stored(), "the first events arrived", 30)
    while world.kills < KILLS:
        _misfortune(world)
    office.stop()
    _heal(world)
    _everything_is_there(world, office)
    assert world.again() <= 0.05 * len(world.stored()), "the centre is sent again and again what it has"


def test_nothing_is_lost_with_a_broker_that_forgets_repeats_reorders_and_replays(world: World) -> None:
    office = Office(world)
    office.start()
    world.wait(lambda: world.store_path.exists() and world.stored(), "the first events arrived", 30)
    world.mischief(forget=0.05, duplicate=0.05, reorder=0.1, replay=0.05)
    until = time.monotonic() + 25
    while time.monotonic() < until:
        world.kill(world.random.choice(("broker", "box", "center")))
        time.sleep(world.random.uniform(0.5, 4))
    office.stop()
    assert world.repeated("up") > 0.01, "the meddler did nothing"
    _heal(world)
    _everything_is_there(world, office)


@pytest.mark.protocol("P20")
def test_what_is_dropped_at_the_byte_cap_is_declared_and_nothing_else_is_missing(narrow: World) -> None:
    world = narrow
    office = Office(world)
    office.start()
    world.wait(lambda: world.store_path.exists() and world.stored(), "the first events arrived", 30)
    world.end("broker")
    office.flood(80_000)
    for _ in range(5):
        world.kill("box")
        time.sleep(world.random.uniform(0.5, 3))
    office.stop()
    world.wait(lambda: world.unread() == 0, "the box read all of it", 200)
    world.start("broker")
    _heal(world)
    stored = world.stored()
    store = Store(world.store_path, read_only=True)
    dropped = sum(gap.last - gap.first + 1 for gap in store.declared())
    assert dropped > 1000, "there was no need to drop anything"
    assert store.missing() == []
    store.close()
    print(f"{dropped} of {office.names} dropped and declared")
    assert sum(event["type"] == "dns" for event in stored) + dropped == office.names
    assert sum(event.get("sid", 0) > 1_000_000 for event in stored) == office.alerts
    assert sum(event["type"] == "file" for event in stored) == office.verdicts


def _misfortune(world: World) -> None:
    """One or two things at once, and a while for them to bite."""
    dice = world.random
    with ExitStack() as stack:
        match dice.choice(["kill"] * 6 + ["cable", "delay", "half", "disk", "clock"]):
            case "cable":
                world.cable(up=False)
                stack.callback(world.cable, up=True)
            case "delay":
                stack.enter_context(world.slow(0.3))
            case "half":
                stack.enter_context(world.half_open(dice.choice(("box", "center"))))
            case "disk":
                stack.enter_context(world.full_disk(dice.choice(("box", "center"))))
            case "clock":
                world.clock(dice.choice(("box", "center")), dice.choice((-7200, -30, 0, 45, 86_400)))
            case _:
                pass
        for name in dice.sample(DAEMONS, dice.choice((1, 1, 2))):
            time.sleep(dice.uniform(0, 0.8))
            world.kill(name)
        time.sleep(dice.uniform(0.1, 1.2))


def _heal(world: World) -> None:
    world.mischief()
    for place in ("box", "center"):
        world.clock(place, 0)
    world.reconnect()
    world.wait(lambda: world.unread() == 0, "the box read all of it", 60)
    world.wait(lambda: world.waiting() == 0, "the spool was drained", 150)


def _settled(world: World) -> tuple[list[dict[str, Any]], int]:
    """What is stored and how many repeats wait, of one moment: what is told between two looks is in neither."""
    while True:
        folded = world.folded()
        world.wait(lambda: world.waiting() == 0, "the spool was drained", 30)
        stored = world.stored()
        if world.folded() == folded:
            return stored, folded


def _everything_is_there(world: World, office: Office) -> None:
    stored, folded = _settled(world)
    print(
        f"{world.kills} kills, {len(stored)} events; on the wire again: {world.repeated('up'):.1%} to the broker,"
        f" {world.repeated('down'):.1%} to the centre, which had {world.again() / len(stored):.1%} of them stored"
    )
    assert max(Counter(event["_seq"] for event in stored).values()) == 1
    sids = Counter(event["sid"] for event in stored if event["type"] == "alert")
    beacons = sum(event.get("count", 1) for event in stored if event.get("sid") == 7)
    assert beacons + folded == office.beacons
    assert {sid: n for sid, n in sids.items() if sid != 7 and n != 1} == {}
    assert len(sids) - 1 == office.alerts
    files = Counter(event["file_name"] for event in stored if event["type"] == "file")
    assert files == Counter(f"v{n}.exe" for n in range(1, office.verdicts + 1))
    assert sum(event["type"] == "dns" for event in stored) == office.names
    store = Store(world.store_path, read_only=True)
    assert (store.missing(), store.declared()) == ([], [])
    store.close()
