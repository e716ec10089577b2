"""Packed or not, waiting or kept: every row is where the acknowledgements say, and a run means what it says."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sekisho.center.ingest import parse_batch
from sekisho.telemetry import batches, blocks, events
from sekisho.telemetry.events import Alert, Dns, Event, Gap, Health
from sekisho.telemetry.spool import Spool
from sekisho.telemetry.spool_view import SpoolView

MB = 1 << 20
NOW = "2026-01-02T03:04:05.000006Z"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool.open(tmp_path / "spool.db", 64 * MB, NOW)
    yield made
    made.close()


def dns(number: int) -> Event:
    return Dns(at=NOW, name=f"{number}.example")


def waiting(spool: Spool) -> dict[int, int]:
    with closing(SpoolView(spool.path)) as view:
        return {row.seq: row.lane for row in view.pending()}


def kept(spool: Spool) -> dict[int, int]:
    with closing(SpoolView(spool.path)) as view:
        return {row.seq: row.lane for row in view.sent()}


def pack_all(spool: Spool) -> None:
    for _ in range(20):
        spool.tidy([0, 0, 0], 0.0)


@pytest.mark.parametrize("packed", [False, True])
def test_gaps_of_many_runs_go_in_batches_that_the_centre_takes(spool: Spool, packed: bool) -> None:
    runs = [(at, at) for at in range(1, 2 * events.GAP_RUNS, 2)]
    spool.add([dns(number) for number in range(1, runs[-1][1] + 1)])
    spool.add([Gap(at=NOW, first=1, last=runs[-1][1], count=len(runs), runs=runs)] * 30)
    for _ in range(30 if packed else 0):
        spool._pack("event", 0, 0)
    after, taken = 0, 0
    while load := spool.next_load(0, after):
        payload = batches.payload("0" * 16, load.count, load.lines, packed=load.packed)
        batch = parse_batch(0, payload)
        assert load.packed == packed and batch.rejected == 0
        after, taken = load.last, taken + len(batch.rows)
    assert taken == 30


def test_what_waits_long_is_packed_and_goes_out_as_it_lies(spool: Spool) -> None:
    spool.add([dns(number) for number in range(1, 5001)])
    before = spool._file.used()
    pack_all(spool)
    spool.add([dns(5001)])
    loads, after = [], 0
    while load := spool.next_load(2, after):
        loads.append(load)
        after = load.last
    assert [(load.first, load.last, load.packed) for load in loads[:3]] == [
        (start, start + 999, True) for start in (1, 1001, 2001)
    ]
    rows = [row for load in loads for row in _rows(load)]
    assert [row.seq for row in rows] == list(range(1, 5002))
    assert [events.decode(row.body) for row in rows] == [dns(number) for number in range(1, 5002)]
    assert loads[-1].packed is False
    assert spool._file.used() < before * 2 // 3


def _rows(load: blocks.Load) -> list[batches.Row]:
    return batches.decode_lines(batches.expand(load.lines) if load.packed else load.lines)


def test_rows_that_do_not_compress_make_smaller_blocks(spool: Spool) -> None:
    dice = random.Random(1)
    spool.add([Dns(at=NOW, name=dice.randbytes(400).hex()) for _ in range(3000)])
    pack_all(spool)
    load = spool.next_load(2, 0)
    assert load and load.packed and 1 < load.count < 1000 and len(load.lines) <= blocks.BATCH_BYTES


def test_an_acknowledgement_that_ends_inside_a_block_takes_exactly_its_rows(spool: Spool) -> None:
    spool.add([dns(number) for number in range(1, 3001)])
    pack_all(spool)
    assert spool.acknowledge(10, [(2, 500, 600), (1, 1, 900)]) == 111
    assert set(waiting(spool)) == set(range(1, 3001)) - set(range(1, 11)) - set(range(500, 601))
    assert set(kept(spool)) == set(range(1, 11)) | set(range(500, 601))
    assert [load.last for load in [spool.next_load(2, 0)] if load] == [499]


@pytest.mark.protocol("P9")
def test_in_any_order_of_what_can_happen_rows_are_where_a_model_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "PACK_BEYOND", 12)
    monkeypatch.setattr(blocks, "BATCH_ROWS", 8)
    dice = random.Random(12)
    spool = Spool.open(tmp_path / "spool.db", 64 * MB, NOW)
    wait: dict[int, int] = {}
    had: dict[int, int] = {}
    for step in range(1, 300):
        todo = dice.random()
        if todo < 0.45:
            for _ in range(dice.randrange(1, 12)):
                lane = dice.choice((0, 1, 2, 2, 2, 2))
                wait[spool.next_seq()] = lane
                spool.add([(Health(at=NOW), Alert(at=NOW, sid=spool.next_seq()), dns(step))[lane]])
        elif todo < 0.6:
            lanes = [dice.randrange(spool.next_seq()) if dice.random() < 0.5 else 0 for _ in range(3)]
            spool.tidy(lanes, 0.0)
        elif todo < 0.97:
            upto = dice.randrange(max(1, spool.next_seq() // 2)) if dice.random() < 0.2 else 0
            runs = [_run(dice, spool) for _ in range(dice.randrange(3))]
            spool.acknowledge(upto, runs)
            for seq, lane in list(wait.items()):
                if seq <= upto or any(lane == of and first <= seq <= last for of, first, last in runs):
                    had[seq] = wait.pop(seq)
        else:
            upto = dice.randrange(spool.next_seq())
            spool.resend(step, upto)
            back = set(had) - set(kept(spool))
            assert back >= {seq for seq in had if seq > upto}
            wait |= {seq: had.pop(seq) for seq in back}
        assert (waiting(spool), kept(spool)) == (wait, had)
        for lane in range(3 if step % 5 == 0 else 0):
            _runs_hold_what_they_name(spool, lane, {seq for seq, of in (wait | had).items() if of == lane})
        if step % 100 == 0:
            spool.close()
            spool = Spool.open(tmp_path / "spool.db", 64 * MB, NOW)
    with closing(sqlite3.connect(spool.path)) as db:
        assert db.execute("SELECT COUNT(*) > 30 FROM block").fetchone() == (1,)
    spool.close()


def _run(dice: random.Random, spool: Spool) -> tuple[int, int, int]:
    """One that the spool would send, or any."""
    lane, after = dice.randrange(3), dice.randrange(spool.next_seq())
    load = spool.next_load(lane, after)
    return (lane, load.first, load.last) if load and dice.random() < 0.7 else (lane, after, after + dice.randrange(20))


def _runs_hold_what_they_name(spool: Spool, lane: int, there: set[int]) -> None:
    after = 0
    while load := spool.next_load(lane, after):
        held = {row.seq for row in _rows(load)}
        assert held == {seq for seq in there if load.first <= seq <= load.last}
        after = load.last


@pytest.mark.protocol("P25")
def test_what_a_restored_centre_cannot_have_again_is_declared_exactly(spool: Spool) -> None:
    spool.add([(dns(number), Alert(at=NOW, sid=number))[number % 7 == 0] for number in range(1, 8001)])
    pack_all(spool)
    spool.acknowledge(6000, [])
    pack_all(spool)
    with spool._db:
        spool._db.execute("DELETE FROM block WHERE had_at IS NOT NULL AND first < 2000 AND lane = 2")
        spool._db.execute("DELETE FROM kept WHERE seq BETWEEN 3000 AND 3100")
    left = set(waiting(spool)) | {seq for seq in kept(spool) if seq > 700}
    spool.resend(1, 700)
    declared = [event for event in decoded(spool) if isinstance(event, Gap)]
    gone = {n for gap in declared for first, last in gap.dropped() for n in range(first, last + 1)}
    # A block that holds 700 and what follows goes again whole.
    assert {seq for seq in waiting(spool) if 700 < seq <= 8000} == left
    assert gone == set(range(701, 8001)) - left and gone
    assert sum(gap.count for gap in declared) == len(gone)
    assert {gap.why for gap in declared} == {"not_kept"}


def decoded(spool: Spool) -> list[Event]:
    with closing(SpoolView(spool.path)) as view:
        return [events.decode(row.event) for row in view.pending()]


def test_a_block_that_the_disk_has_damaged_is_declared_and_stops_nothing(spool: Spool) -> None:
    spool.add([(dns(number), Alert(at=NOW, sid=number))[number % 5 == 0] for number in range(1, 4001)])
    pack_all(spool)
    first = spool.next_load(2, 0)
    assert first
    block = spool._db.execute("SELECT id FROM block WHERE lane = 2 ORDER BY first").fetchone()
    rotten = bytearray(first.lines)
    rotten[500] ^= 1
    with spool._db:
        spool._db.execute("UPDATE lines SET body = ? WHERE block = ?", (bytes(rotten), *block))
    lost = {row.seq for row in _rows(first)}
    load = spool.next_load(2, 0)
    assert load and load.first == first.last + 1 + (first.last % 5 == 4)
    (gap,) = [event for event in decoded(spool) if isinstance(event, Gap)]
    gone = {number for begin, end in gap.dropped() for number in range(begin, end + 1)}
    assert (gap.why, gap.count) == ("damaged", len(lost))
    assert gone == lost, "numbers of alerts that still wait between them are not declared"


def test_at_the_cap_history_goes_first_and_is_no_gap(tmp_path: Path) -> None:
    dice = random.Random(2)
    spool = Spool.open(tmp_path / "spool.db", MB, NOW)
    held = 0
    while spool._file.used() < spool._file.limit * 0.9:
        spool.add([Dns(at=NOW, name=dice.randbytes(100).hex()) for _ in range(100)])
        pack_all(spool)
        held += 100
    spool.acknowledge(held, [])
    for _ in range(0, held - 500, 100):
        spool.add([Dns(at=NOW, name=dice.randbytes(100).hex()) for _ in range(100)])
        pack_all(spool)
    assert len(waiting(spool)) == held - 500 and len(kept(spool)) < held
    assert not any(isinstance(event, Gap) for event in decoded(spool))
    spool.close()


def test_a_reader_that_pauses_lets_the_log_be_written_back(spool: Spool) -> None:
    spool.add([dns(number) for number in range(3000)])
    spool.acknowledge(3000, [])
    with closing(SpoolView(spool.path)) as view:
        reading = view.sent()
        assert next(reading).seq == 1
        for _ in range(15):
            spool.add([Dns(at=NOW, name="x" * 1000)] * 1000)
        assert spool.path.with_name("spool.db-wal").stat().st_size < 10 * MB
        assert [row.seq for row in reading] == list(range(2, 3001))


def test_a_spool_of_an_older_release_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
            "INSERT INTO meta VALUES ('epoch', '00000000000000aa');"
            "CREATE TABLE event(seq INTEGER PRIMARY KEY AUTOINCREMENT, lane INTEGER NOT NULL, at TEXT NOT NULL,"
            " body BLOB NOT NULL);"
            "CREATE TABLE sent(seq INTEGER PRIMARY KEY, lane INTEGER NOT NULL, body BLOB NOT NULL);"
        )
        db.execute("INSERT INTO event(lane, at, body) VALUES (2, ?, ?)", (NOW, events.encode(dns(1))))
        db.commit()
    spool = Spool.open(path, MB, NOW)
    spool.add([dns(2)])
    assert spool.epoch == "00000000000000aa" and waiting(spool) == {1: 2, 2: 2}
    assert decoded(spool) == [dns(1), dns(2)]
    spool.close()
