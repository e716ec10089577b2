"""A device's very first event carries its MAC too: it waits for the inventory, a little and only once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.appliance.core import settings
from sekisho.telemetry import events
from sekisho.telemetry.intake import GROUP_S, NEWCOMER_S, Intake
from sekisho.telemetry.spool import Spool
from sekisho.telemetry.spool_view import SpoolView

MAC = "02:77:00:00:00:10"
FULL = "fd77:0000:0000:0000:0000:0000:0000:0010"


class Box:
    def __init__(self, root: Path) -> None:
        self.config = settings.parse(f'box = "b"\n[paths]\nrun = "{root}/run"\nstate = "{root}/state"\n')
        self.config.eve.parent.mkdir(parents=True)
        self.config.journals.mkdir(parents=True)
        self.spool = Spool.open(self.config.spool, 64 << 20, "2026-01-02T03:04:05.000006Z")
        self.intake = Intake(self.config, self.spool)

    def alert(self, src: str, sid: int = 1) -> None:
        line: dict[str, object] = {"timestamp": "2026-01-02T03:04:05.000006+0000", "event_type": "alert", "src_ip": src}
        line |= {"dest_ip": "192.0.2.1", "alert": {"signature_id": sid}}
        with self.config.eve.open("a") as out:
            out.write(json.dumps(line) + "\n")

    def macs(self) -> list[str]:
        rows = [events.decode(row.event) for row in SpoolView(self.spool.path).pending()]
        return [row.flow.mac for row in rows if isinstance(row, events.Alert)]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.spool.close()


@pytest.mark.parametrize(("seen", "known"), [("10.0.0.5", "10.0.0.5"), (FULL, "fd77::10")])
def test_the_first_event_waits_until_the_device_is_known(box: Box, seen: str, known: str) -> None:
    box.alert(seen)
    box.intake.turn(0.0)
    assert box.macs() == []
    box.config.inventory.write_text(json.dumps({known: MAC}))
    box.intake.turn(0.1)
    assert box.macs() == [MAC]


def test_a_device_that_stays_unknown_delays_its_first_event_only(box: Box) -> None:
    box.alert("10.0.0.5")
    box.intake.turn(0.0)
    box.intake.turn(NEWCOMER_S - 0.01)
    assert box.macs() == []
    box.intake.turn(NEWCOMER_S)
    assert box.macs() == [""]
    box.alert("10.0.0.5", sid=2)
    box.intake.turn(10.0)
    assert box.macs() == ["", ""]


def test_an_address_outside_the_office_is_not_waited_for(box: Box) -> None:
    box.alert("198.51.100.7")
    box.intake.turn(0.0)
    assert box.macs() == [""]


def test_a_server_in_the_inventorys_shadow_costs_nothing(box: Box) -> None:
    box.config.inventory.write_text(json.dumps({"10.0.0.5": MAC}))
    box.alert("10.0.0.5")
    box.intake.turn(GROUP_S)
    assert box.macs() == [MAC]
