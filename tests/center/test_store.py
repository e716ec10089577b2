"""Stored once, counted exactly, and nothing missing goes unnoticed."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sekisho.appliance.core.errors import DeviceFault
from sekisho.center.database import Unstorable
from sekisho.center.store import EVENT, BoxState, Missing, NewRow, Store
from sekisho.center.streams import STREAM
from sekisho.lab.postgres import Postgres
from sekisho.telemetry import batches
from sekisho.telemetry.events import Alert, Dns, Event, Gap, decode, encode
from sekisho.telemetry.spool import Spool

NOW = "2026-01-02T03:04:05.000006Z"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    made = Store(store_url)
    yield made
    made.close()


def put(store: Store, *seqs: int, dropped: tuple[tuple[int, int], ...] = (), box: str = "b", epoch: str = "e") -> int:
    rows = [NewRow(seq, 1, "alert", NOW, encode(Alert(at=NOW, sid=seq)), dropped) for seq in seqs]
    with store.transaction():
        store.add("t", box, epoch, rows, NOW)
        return store.upto(box, epoch)


def missing(store: Store) -> list[tuple[int, int]]:
    return [(hole.first, hole.last) for hole in store.missing()]


@pytest.mark.protocol("P19")
def test_a_row_is_stored_once_however_often_it_comes(store: Store) -> None:
    put(store, 1, 2)
    put(store, 2, 1, 1)
    put(store, 1, box="other")
    put(store, 1, epoch="later")
    assert [(row.box, row.epoch, row.seq) for row in store.events()] == [
        ("b", "e", 1),
        ("b", "e", 2),
        ("other", "e", 1),
        ("b", "later", 1),
    ]


@pytest.mark.protocol("P17")
def test_upto_stops_at_a_hole_and_goes_on_when_it_is_filled(store: Store) -> None:
    assert put(store, 1, 2, 5, 6, 9) == 2
    assert missing(store) == [(3, 4), (7, 8)]
    assert put(store, 4) == 2
    assert put(store, 3) == 6
    assert put(store, 8, 7) == 9
    assert missing(store) == []


def test_declared_runs_are_accounted_for_and_nothing_else(store: Store) -> None:
    put(store, 1, 4)
    assert put(store, 10, dropped=((2, 3), (5, 7))) == 7
    assert missing(store) == [(8, 9)]
    assert [(run.first, run.last) for run in store.declared()] == [(2, 3), (5, 7)]
    assert put(store, 8, 9) == 10


def test_a_number_that_was_declared_lost_and_comes_after_all_is_stored_and_no_gap_any_more(store: Store) -> None:
    put(store, 1, 10, dropped=((2, 9),))
    assert put(store, 5, 4) == 10
    assert [(run.first, run.last) for run in store.declared()] == [(2, 3), (6, 9)]
    put(store, 5)
    assert sorted(row.seq for row in store.events()) == [1, 4, 5, 10]


@pytest.mark.protocol("P19")
def test_a_row_that_retention_took_does_not_come_back(store: Store) -> None:
    put(store, 1, 2, 3, 7)
    with store.transaction() as db:
        db.execute(EVENT.delete())
    put(store, 2, 7, 8)
    assert [row.seq for row in store.events()] == [8]
    assert missing(store) == [(4, 6)]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sets(st.integers(1, 30), max_size=8), st.tuples(st.integers(1, 30), st.integers(0, 9)))))
def test_any_order_of_rows_gaps_and_repeats_is_counted_as_sets_would(
    store: Store, batches: list[tuple[set[int], tuple[int, int]]]
) -> None:
    epoch = uuid.uuid4().hex
    stored: set[int] = set()
    lost: set[int] = set()
    for seqs, (first, length) in batches:
        new = seqs - stored
        dropped = ((first, first + length),) if length and new else ()
        put(store, *sorted(seqs), dropped=dropped, epoch=epoch)
        stored |= seqs
        lost = (lost | {n for run in dropped for n in range(run[0], run[1] + 1)}) - stored
    known = stored | lost
    upto = next(number for number in itertools.count() if number + 1 not in known)
    assert store.upto("b", epoch) == upto
    assert {hole.first for hole in store.missing() if hole.epoch == epoch} == {
        number
        for number in range(1, max(known, default=0))
        if number not in known and (number == 1 or number - 1 in known)
    }
    declared = [run for run in store.declared() if run.epoch == epoch]
    assert {number for run in declared for number in range(run.first, run.last + 1)} == lost
    with store.database.reading() as db:
        seqs_now = list(db.scalars(sa.select(EVENT.c.seq).where(EVENT.c.epoch == epoch)))
    assert sorted(seqs_now) == sorted(stored)


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.transaction():
        store.add("t", "b", "e", [NewRow(1, 1, "alert", NOW, b"{}")], NOW)
        raise RuntimeError
    assert store.events() == [] and store.streams() == []


def test_events_can_be_followed_by_id_and_box(store: Store) -> None:
    put(store, 1, 2)
    put(store, 1, box="other")
    ids = [row.id for row in store.events()]
    assert [row.seq for row in store.events(since_id=ids[0])] == [2, 1]
    assert [row.box for row in store.events(box="other")] == ["other"]
    assert len(store.events(limit=2)) == 2


@pytest.mark.protocol("P22")
def test_a_last_will_counts_only_for_the_birth_it_belongs_to(store: Store) -> None:
    def state(text: str, birth: int) -> str:
        with store.transaction():
            store.set_state(BoxState("b", "t", text, birth, "e" if text == "on" else "", 7 if text == "on" else 0, NOW))
        return store.boxes()[0].state

    assert state("on", 10) == "on"
    assert state("lost", 9) == "on"
    assert state("lost", 10) == "lost"
    assert store.boxes()[0].epoch == "e" and store.boxes()[0].next == 7
    assert state("on", 11) == "on"


def test_a_reader_finds_the_store_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(DeviceFault):
        Store(tmp_path / "events.db", read_only=True)
    writer = Store(tmp_path / "events.db")
    reader = Store(tmp_path / "events.db", read_only=True)
    put(writer, 1)
    assert len(reader.events()) == 1
    reader.close()
    writer.close()


def test_a_file_that_is_no_database_is_a_clear_fault(tmp_path: Path) -> None:
    (tmp_path / "events.db").write_bytes(b"hello" * 1000)
    with pytest.raises(DeviceFault, match=r"events\.db"):
        Store(tmp_path / "events.db")


def test_whatever_a_full_spool_dropped_the_centre_ends_complete(tmp_path: Path, store: Store) -> None:
    dice = random.Random(4)
    spool = Spool.open(tmp_path / "spool.db", 250_000, NOW)
    for number in range(400):
        new: list[Event] = [
            Alert(at=NOW, sid=10 * number + one) if dice.random() < 0.4 else Dns(at=NOW, name="n" * 900)
            for one in range(dice.randrange(1, 9))
        ]
        spool.add(new)
        spool.tidy([0, 0, 0], 0.0)
        if dice.random() < 0.1:
            _deliver(spool, store, dice.randrange(3), dice.random() < 0.7)
    for lane in range(3):
        while _deliver(spool, store, lane, True):
            pass
    assert store.missing() == []
    assert [stream.upto for stream in store.streams()] == [spool.next_seq() - 1]
    assert store.declared()
    spool.close()


def _deliver(spool: Spool, store: Store, lane: int, acknowledged: bool) -> bool:
    load = spool.next_load(lane, 0)
    if not load:
        return False
    rows = batches.decode_lines(load.lines)
    new = []
    for row in rows:
        event = decode(row.body)
        new.append(NewRow(row.seq, lane, "x", NOW, row.body, event.dropped() if isinstance(event, Gap) else ()))
    with store.transaction():
        store.add("t", "b", spool.epoch, new, NOW)
        upto = store.upto("b", spool.epoch)
    if acknowledged:
        spool.acknowledge(upto, [(lane, rows[0].seq, rows[-1].seq)])
    return True


def test_a_value_that_cannot_be_held_is_told_from_a_database_that_cannot_hold(store: Store, postgres: Postgres) -> None:
    put(store, 1)
    key = {"box": "b", "epoch": "e", "tenant": "t", "upto": 0, "reach": 0, "last_at": NOW}
    with pytest.raises(Unstorable), store.transaction() as db:
        db.execute(STREAM.insert(), key)
    other = Store(postgres.database())
    with pytest.raises(Unstorable) as told, other.transaction():
        other.add("t", "b", "e", [NewRow(1, 1, "alert", "secret\x00", b"{}")], NOW)
    assert "secret" not in str(told.value)
    with pytest.raises(DeviceFault) as fault, store.transaction() as db:
        db.execute(sa.text("SELECT * FROM no_such_table"))
    assert not isinstance(fault.value, Unstorable)
    put(store, 2)
    assert [row.seq for row in store.events()] == [1, 2]


def test_missing_numbers_are_named_with_box_and_epoch(store: Store) -> None:
    put(store, 3)
    assert store.missing() == [Missing("b", "e", 1, 2)]
