"""Sources to spool: bad lines are passed over, alerts do not wait, a refused commit is tried again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.appliance.core import settings
from sekisho.appliance.core.errors import DeviceFault
from sekisho.telemetry import events
from sekisho.telemetry.events import Alert, Event, Health
from sekisho.telemetry.intake import GROUP_S, Intake
from sekisho.telemetry.spool import Spool
from sekisho.telemetry.spool_view import SpoolView

NOW = "2026-01-02T03:04:05.000006Z"


def eve(event_type: str, **more: object) -> bytes:
    return (
        json.dumps({"timestamp": "2026-01-02T03:04:05.000006+0000", "event_type": event_type, **more}).encode() + b"\n"
    )


def alert(sid: int) -> bytes:
    return eve("alert", alert={"signature_id": sid})


ALERT = alert(1)
DNS = eve("dns", dns={"type": "query", "rrname": "n"})


class Box:
    """Sources on disk, a spool, and an intake with a clock in hand."""

    def __init__(self, root: Path) -> None:
        self.config = settings.parse(f'box = "b"\n[paths]\nrun = "{root}/run"\nstate = "{root}/state"\n')
        self.config.eve.parent.mkdir(parents=True)
        self.config.journals.mkdir(parents=True)
        self.spool = Spool.open(self.config.spool, 64 << 20, NOW)
        self.intake = Intake(self.config, self.spool)

    def write(self, data: bytes) -> None:
        with self.config.eve.open("ab") as out:
            out.write(data)

    def stored(self) -> list[Event]:
        return [events.decode(row.event) for row in SpoolView(self.spool.path).pending()]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.spool.close()


def test_lines_that_are_torn_huge_or_not_utf8_stop_nothing(box: Box) -> None:
    bad = [ALERT[:40] + b"\n", b"x" * (1 << 20) + b"\n", b"\xff\xfe\n", b"{}\n", b"null\n", b"[" * 100_000 + b"\n"]
    box.write(b"".join(line + alert(sid) for sid, line in enumerate(bad)) + ALERT[:20])
    for turn in range(10):
        box.intake.turn(float(turn))
    assert box.stored() == [Alert(at=NOW, sid=sid) for sid in range(len(bad))]


def test_an_alert_is_durable_at_once_and_metadata_waits_for_company(box: Box) -> None:
    box.write(DNS)
    box.intake.turn(0.0)
    assert box.stored() == []
    box.write(ALERT)
    box.intake.turn(0.01)
    assert len(box.stored()) == 2
    box.write(DNS)
    box.intake.turn(0.02)
    box.intake.turn(0.02 + GROUP_S)
    assert len(box.stored()) == 3


def test_a_journal_that_appears_later_is_read(box: Box) -> None:
    box.intake.turn(0.0)
    (box.config.journals / "inspect.jsonl").write_bytes(events.encode(Health(at=NOW, part="inspect")) + b"\n")
    box.intake.turn(1.0)
    assert box.stored() == [Health(at=NOW, part="inspect")]


def test_what_a_failed_commit_held_is_stored_by_the_next(box: Box) -> None:
    box.write(ALERT)
    box.spool.close()
    with pytest.raises(DeviceFault):
        box.intake.turn(0.0)
    box.write(alert(2))
    box.spool = Spool.open(box.config.spool, 64 << 20, NOW)
    box.intake.spool = box.spool
    box.intake.turn(1.0)
    assert box.stored() == [Alert(at=NOW, sid=1), Alert(at=NOW, sid=2)]


def test_a_link_in_the_journal_directory_is_not_followed(box: Box) -> None:
    secret = box.config.eve.with_name("elsewhere")
    secret.write_bytes(ALERT)
    (box.config.journals / "a.jsonl").symlink_to(secret)
    box.write(ALERT)
    box.intake.turn(0.0)
    assert len(box.stored()) == 1
    box.intake.close()


def test_closing_keeps_what_was_waiting(box: Box) -> None:
    box.write(DNS)
    box.intake.turn(0.0)
    box.intake.close()
    assert len(box.stored()) == 1
