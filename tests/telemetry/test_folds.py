"""Repeats leave as one event; whatever happens in between, the counts add up to the alerts."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.appliance.core.errors import DeviceFault
from sekisho.telemetry import events, folds
from sekisho.telemetry.events import Alert, Event, FileVerdict, Flow, Health
from sekisho.telemetry.reader import Chunk, Position, Tail
from sekisho.telemetry.spool import Spool
from sekisho.telemetry.spool_view import SpoolView

NOW = "2026-01-02T03:04:05.000006Z"
MB = 1 << 20
T = 1_800_000_000.0
FLOW = Flow("10.0.0.5", 40000, "198.51.100.9", 443, "TCP", "02:00:00:00:00:05")
CALL = Alert(at=NOW, flow=FLOW, sid=1, signature="ET MALWARE CnC", stars=3, why_stars="calls_out", action="blocked")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool.open(tmp_path / "spool.db", 64 * MB, NOW)
    yield made
    made.close()


def at(second: int) -> str:
    return f"2026-01-02T03:{second // 60:02}:{second % 60:02}.000000Z"


def told(spool: Spool) -> list[Event]:
    with closing(SpoolView(spool.path)) as view:
        return [events.decode(row.event) for row in view.pending()]


def alerts(spool: Spool) -> list[Alert]:
    return [event for event in told(spool) if isinstance(event, Alert)]


def counted(path: Path) -> int:
    """Repeats that have not left yet."""
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT COALESCE(SUM(count), 0) FROM fold").fetchone()[0])


def repeat(second: int, **more: object) -> Alert:
    return msgspec.structs.replace(CALL, at=at(second), **more)


def test_the_first_goes_at_once_and_its_repeats_as_one_when_the_minute_is_over(spool: Spool) -> None:
    for second in (0, 10, 20, 59):
        spool.add([repeat(second)], now=T + second)
    assert alerts(spool) == [repeat(0)]
    spool.close_folds(now=T + 59.9)
    assert len(alerts(spool)) == 1
    spool.close_folds(now=T + 60)
    assert alerts(spool)[1:] == [repeat(10, count=3, until=at(59))]
    assert (alerts(spool)[0].count, alerts(spool)[0].until) == (1, "")


def test_what_goes_on_is_told_ever_more_rarely_and_a_pause_ends_it(spool: Spool) -> None:
    for second in range(0, 3600, 5):
        spool.add([repeat(second)], now=T + second)
        spool.close_folds(now=T + second)
    left = alerts(spool)
    assert len(left) == 1 + 6, "after 1, 2, 4, 8 and twice 15 minutes"
    assert sum(one.count for one in left) + counted(spool.path) == 720
    spool.close_folds(now=T + 5000)
    spool.close_folds(now=T + 6000)
    assert sum(one.count for one in alerts(spool)) == 720
    before = len(alerts(spool))
    spool.add([repeat(3599)], now=T + 7000)
    assert len(alerts(spool)) == before + 1, "new after the pause: at once"


@pytest.mark.parametrize(
    "other",
    [
        {"stars": 2},
        {"action": "allowed"},
        {"sid": 2},
        {"host": "other.example"},
        {"dns_name": "other.example"},
        {"policy": "adult", "function": "url_category"},
        {"flow": msgspec.structs.replace(FLOW, mac="02:00:00:00:00:06")},
        {"flow": msgspec.structs.replace(FLOW, dst_ip="198.51.100.10")},
    ],
)
def test_another_outcome_importance_rule_device_or_peer_is_told_at_once(spool: Spool, other: dict[str, object]) -> None:
    spool.add([repeat(0), repeat(1, **other)], now=T)
    assert len(alerts(spool)) == 2


def test_ports_and_the_direction_of_the_packet_make_no_difference(spool: Spool) -> None:
    answer = Flow(FLOW.dst_ip, 443, FLOW.src_ip, 40001, "TCP", FLOW.mac)
    spool.add([repeat(0), repeat(1, flow=answer)], now=T)
    assert len(alerts(spool)) == 1


def test_what_telemetry_says_itself_has_stars_too(spool: Spool) -> None:
    spool.add([Health(at=NOW, part="telemetry", state="certificate_refused")], now=T)
    assert [getattr(event, "why_stars", "") for event in told(spool)] == ["certificate_refused"]


def test_verdicts_are_never_folded(spool: Spool) -> None:
    verdict = FileVerdict(at=NOW, flow=FLOW, outcome="blocked", rules=["a"], sha256="0" * 64)
    spool.add([verdict] * 5, now=T)
    assert told(spool) == [verdict] * 5


def test_the_policys_hits_count_every_repeat(spool: Spool) -> None:
    spool.add([repeat(0, function="url_category", policy="adult")] * 7, now=T)
    assert len(alerts(spool)) == 1
    with closing(sqlite3.connect(spool.path)) as db:
        assert db.execute("SELECT count FROM hit").fetchall() == [(7,)]


@pytest.mark.parametrize("jump", [-1e9, 3e9])
def test_a_clock_that_is_set_delays_nothing(spool: Spool, jump: float) -> None:
    spool.add([repeat(0), repeat(1)], now=T)
    spool.close_folds(now=T + jump)
    assert [one.count for one in alerts(spool)] == [1, 1]
    spool.add([repeat(2)], now=T + jump + 1)
    assert len(alerts(spool)) == 2, "the fold goes on by the new clock"


def test_beyond_the_cap_the_oldest_leave_early_and_nothing_is_lost(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "MAX_OPEN", 10)
    for number in range(25):
        spool.add([repeat(0, sid=number)] * 2, now=T + number)
    with closing(sqlite3.connect(spool.path)) as db:
        assert db.execute("SELECT COUNT(*) FROM fold").fetchone() == (10,)
    assert sum(one.count for one in alerts(spool)) + counted(spool.path) == 50


def test_a_commit_that_fails_counts_nothing(spool: Spool) -> None:
    spool.add([repeat(0), repeat(1)], now=T)
    spool._db.execute("PRAGMA max_page_count = 1")
    chunk = Chunk("eve.json", Position(1, 2, 10, b"h"))
    many = [msgspec.structs.replace(repeat(2), sid=n, signature="x" * 250) for n in range(5000)]
    with pytest.raises(DeviceFault):
        spool.add([repeat(2), *many], chunk, now=T + 1)
    assert (counted(spool.path), spool.position("eve.json")) == (1, None)


_STEPS = st.lists(
    st.one_of(
        st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=12),
        st.sampled_from([0.5, 30.0, 61.0, 500.0, 1000.0, -3600.0, 1e8]),
        st.just("reopen"),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(_STEPS)
def test_whatever_happens_the_counts_add_up(steps: list[list[tuple[int, bool]] | float | str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "spool.db"
        spool, now, sent = Spool.open(path, 64 * MB, NOW), T, 0
        for step in steps:
            if isinstance(step, list):
                new = [repeat(sent % 3600, sid=sid, action="blocked" if cut else "allowed") for sid, cut in step]
                spool.add(new, now=now)
                sent += len(new)
            elif isinstance(step, float):
                now += step
                spool.close_folds(now=now)
            else:
                spool.close()
                spool = Spool.open(path, 64 * MB, NOW)
        assert sum(one.count for one in alerts(spool)) + counted(path) == sent
        for _ in range(2):
            now += 1000.0
            spool.close_folds(now=now)
        assert sum(one.count for one in alerts(spool)) == sent
        spool.close()


FEEDER = """
import sys, time
from pathlib import Path
from sekisho.telemetry import folds
from sekisho.telemetry.decode import LINE_CAP, decode_journal
from sekisho.telemetry.inventory import Inventory
from sekisho.telemetry.reader import Tail
from sekisho.telemetry.spool import Spool
folds.FIRST_S, folds.LAST_S = 0.01, 0.05
root = Path(sys.argv[1])
spool = Spool.open(root / "spool.db", 64 << 20, "t")
tail = Tail(root / "a.jsonl", spool.position("a.jsonl"), LINE_CAP)
nobody = Inventory(root / "none")
print("ready", flush=True)
while True:
    spool.close_folds()
    if chunk := tail.read():
        spool.add([decode_journal(line, nobody) for line in chunk.lines], chunk)
        tail.step(chunk)
        print("stored", flush=True)
"""


def test_killed_at_any_moment_it_neither_loses_nor_repeats_a_repeat(tmp_path: Path) -> None:
    dice = random.Random(23)
    source, sent = tmp_path / "a.jsonl", 0
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-I", "-c", FEEDER, str(tmp_path)], stdout=subprocess.PIPE)
        assert child.stdout and child.stdout.readline() == b"ready\n"
        for _ in range(dice.randrange(10, 40)):
            lines = [events.encode(repeat(dice.randrange(3600), sid=dice.randrange(4))) for _ in range(30)]
            with source.open("ab") as out:
                out.write(b"".join(line + b"\n" for line in lines))
            sent += len(lines)
            if dice.random() < 0.9:
                child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    spool = Spool.open(tmp_path / "spool.db", 64 * MB, NOW)
    assert any(one.count > 1 for one in alerts(spool)), "some left folded before the last kill"
    tail = Tail(source, spool.position("a.jsonl"), 1 << 18)
    while found := tail.read():
        spool.add([events.decode(line) for line in found.lines], found)
        tail.step(found)
    assert sum(one.count for one in alerts(spool)) + counted(spool.path) == sent
    assert len(alerts(spool)) < sent / 4
    spool.close()


def test_an_old_spool_learns_to_fold(tmp_path: Path) -> None:
    made = Spool.open(tmp_path / "spool.db", 64 * MB, NOW)
    made._db.execute("DROP TABLE fold")
    made.close()
    again = Spool.open(tmp_path / "spool.db", 64 * MB, NOW)
    again.add([CALL, CALL], now=T)
    assert alerts(again) == [CALL]
    assert counted(again.path) == 1
    again.close()
