"""How often each rule speaks is counted as it is read: every alert, no policy's decision, and within bounds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.appliance.core import fired, settings
from sekisho.appliance.core.fired import EVERY_S, RULES_CAP, Fired
from sekisho.telemetry.events import Alert, Dns, FileVerdict, encode
from sekisho.telemetry.heard import BEAT_S, Heard
from sekisho.telemetry.intake import Intake
from sekisho.telemetry.spool import Spool
from sekisho.telemetry.spool_view import SpoolView

AT = "2026-01-02T03:04:05.000006Z"


def eve(sid: int, **alert: object) -> bytes:
    line = {"timestamp": "2026-01-02T03:04:05.000006+0000", "event_type": "alert", "src_ip": "10.0.0.9"}
    return json.dumps({**line, "alert": {"signature_id": sid, "signature": "s", **alert}}).encode() + b"\n"


class Box:
    def __init__(self, root: Path) -> None:
        self.config = settings.parse(f'box = "b"\n[paths]\nrun = "{root}/run"\nstate = "{root}/state"\n')
        self.config.eve.parent.mkdir(parents=True)
        self.config.journals.mkdir(parents=True)
        self.spool = Spool.open(self.config.spool, 64 << 20, AT)
        self.intake = Intake(self.config, self.spool)
        self.now = 100.0

    def write(self, *lines: bytes) -> None:
        with self.config.eve.open("ab") as out:
            out.write(b"".join(lines))

    def turn(self, later: float = EVERY_S) -> Fired:
        self.intake.turn(self.now)
        self.now += later
        self.intake.turn(self.now)
        found = fired.try_read(self.config)
        assert found is not None
        return found


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.spool.close()


def test_every_alert_counts_also_those_that_leave_as_one(box: Box) -> None:
    box.write(*[eve(7) for _ in range(40)], *[eve(8) for _ in range(3)])
    assert box.turn().sids == {7: 40, 8: 3}
    box.write(eve(7))
    assert box.turn().sids == {7: 41, 8: 3}


def test_what_a_policy_decided_and_what_only_steers_is_no_rule_of_a_set(box: Box) -> None:
    functions = ("web_guard", "url_category", "keyword", "application", "firewall", "isolation", "known_file")
    box.write(*[eve(9, metadata={"sekisho_function": [name]}) for name in functions], eve(9000001), eve(0), eve(5))
    found = box.turn()
    assert (found.sids, found.rest) == ({5: 1}, 0)


def test_a_files_verdict_counts_for_each_of_its_rules(box: Box) -> None:
    told = [
        FileVerdict(at=AT, outcome="blocked", rules=["A", "B", "A"]),
        FileVerdict(at=AT, outcome="delivered_then_found", rules=["A"]),
        FileVerdict(at=AT, outcome="clean"),
    ]
    (box.config.journals / "inspect.jsonl").write_bytes(b"".join(encode(event) + b"\n" for event in told))
    assert box.turn().yara == {"A": 2, "B": 1}


def test_a_reader_finds_a_beginning_before_anything_speaks(box: Box) -> None:
    first = box.turn()
    assert (first.sids, first.yara) == ({}, {}) and first.since
    box.write(eve(7))
    later = box.turn(0.02)
    assert later.sids == {7: 1} and later.since == first.since and later.at > first.at
    box.write(eve(7))
    assert box.turn(EVERY_S - 1).sids == {7: 1}, "not before its time"
    assert box.turn(EVERY_S).sids == {7: 2}


def test_a_quiet_box_writes_seldom_and_shows_that_somebody_counts(box: Box) -> None:
    first = box.turn()
    box.intake.turn(first.at + BEAT_S - 0.1)
    assert fired.try_read(box.config) == first
    box.intake.turn(first.at + BEAT_S)
    later = fired.try_read(box.config)
    assert later is not None and later.at == first.at + BEAT_S and later.since == first.since


def test_another_run_has_another_name(tmp_path: Path, box: Box) -> None:
    first = box.turn().since
    box.intake = Intake(box.config, box.spool)
    assert box.turn().since != first


def test_what_is_told_apart_is_bounded_and_nothing_is_lost(tmp_path: Path) -> None:
    config = settings.parse(f'box = "b"\n[paths]\nrun = "{tmp_path}/run"\nstate = "{tmp_path}/state"\n')
    heard = Heard(config)
    heard.take(FileVerdict(at=AT, rules=[f"{number:0100}"]) for number in range(RULES_CAP // 2))
    heard.take(Alert(at=AT, sid=number + (1 << 31)) for number in range(RULES_CAP))
    heard.take([FileVerdict(at=AT, rules=["x" * 101])])
    heard.turn(0.0)
    found = fired.try_read(config)
    assert found is not None and len(found.sids) + len(found.yara) == RULES_CAP
    assert sum(found.sids.values()) + sum(found.yara.values()) + found.rest == RULES_CAP // 2 + RULES_CAP + 1
    assert fired.path_of(config).stat().st_size < fired.MAX_BYTES


def test_a_full_run_directory_stops_nothing(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    box.turn()
    directory = fired.path_of(box.config).parent
    fired.path_of(box.config).unlink()
    directory.rmdir()
    directory.write_bytes(b"")
    box.write(eve(7))
    for _ in range(3):
        box.intake.turn(box.now)
        box.now += EVERY_S
    assert SpoolView(box.spool.path).pending(), "the alert itself is stored"
    assert sum("How often" in record.message for record in caplog.records) == 1
    directory.unlink()
    assert box.turn().sids == {7: 1}


def test_counting_costs_next_to_nothing(tmp_path: Path) -> None:
    config = settings.parse(f'box = "b"\n[paths]\nrun = "{tmp_path}/run"\nstate = "{tmp_path}/state"\n')
    heard = Heard(config)
    made = [Alert(at=AT, sid=number % 500) if number % 2 else Dns(at=AT, name="n") for number in range(20_000)]
    took = []
    for _ in range(5):
        began = time.perf_counter()
        heard.take(made)
        took.append(time.perf_counter() - began)
    assert min(took) / len(made) < 3e-6, "seconds per event"
