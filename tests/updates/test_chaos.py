"""Whatever is killed while sets are on their way, the box ends with the newest one, proven, and says so once."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from sekisho.appliance.core.errors import SekishoError
from sekisho.lab import sets, updates
from sekisho.lab.load import Load

if TYPE_CHECKING:
    from tests.updates.conftest import Office

    from sekisho.lab.lab import Lab

pytestmark = [pytest.mark.lab]

SEED = int(os.environ.get("SEKISHO_SEED", str(time.time_ns() % 1_000_000)))
VICTIMS = ("signatures", "appliance", "inspect", "suricata", "everything")
"""Everything at once is what a power cut leaves of the processes."""


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(5, marks=pytest.mark.timeout(170)),
        pytest.param(24, marks=[pytest.mark.full, pytest.mark.timeout(900)]),
    ],
    ids=["sample", "many"],
)
def test_whoever_dies_in_the_middle_the_newest_set_comes_into_force(office: Office, kills: int) -> None:
    print(f"SEKISHO_SEED={SEED}")
    dice, lab = random.Random(SEED), office.lab
    victims = [*VICTIMS * (kills // len(VICTIMS)), *dice.sample(VICTIMS, kills % len(VICTIMS))]
    dice.shuffle(victims)
    with Load(lab, pings=100, datagrams=50) as load:
        for victim in victims:
            office.number += 1
            lab.channel.publish(office.number, sets.of_day(sets.small(), office.number, changed=2, added=3, yara=1))
            with suppress(SekishoError):  # a keeper that was killed just now hears of it by itself
                updates.ask(lab, "update")
            time.sleep(dice.uniform(0, 2.5))
            _kill(lab, victim)
        lab.wait_ready(40)
        with suppress(SekishoError):
            updates.ask(lab, "update")
        updates.wait_for(lab, office.number, 90)
        went = load.end()
    print(f"{victims}: {went.lost} of {went.packets} packets lost, {went.canary.got} canaries, {went.broken} downloads")
    newest = office.number
    lab.wait(lambda: any(event.number == newest for event in updates.told(lab, "active")), "the centre does not know")
    told = Counter(event.number for event in updates.told(lab, "active"))
    assert max(told.values()) == 1, "an end is told once"
    assert not [event for event in updates.told(lab, "refused") if event.refused > newest - kills]
    assert not [event for event in updates.told(lab, "rolled_back") if event.refused > newest - kills]
    with Load(lab) as load:
        time.sleep(2)
        went = load.end()
    assert went.clean(), "and from then on nothing is lost and nothing comes through"


def _kill(lab: Lab, victim: str) -> None:
    names = ("signatures", "appliance", "inspect", "telemetry", "suricata") if victim == "everything" else (victim,)
    for pid in [lab.pid(name) for name in names]:
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
