"""Several ingest workers on one database: each row once, `upto` exact, and a follower misses nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import sqlalchemy as sa

from sekisho.center.outbox import NOTICE
from sekisho.center.store import EVENT, Arrival, NewRow, Store
from sekisho.lab.postgres import Postgres

NOW = "2026-01-02T03:04:05.000006Z"
ROWS = 400
BOXES = ("a", "b", "c")


def _arrivals(dice: random.Random) -> list[list[Arrival]]:
    """Every row of every box twice, in groups of a few boxes, in any order."""
    groups = []
    for _ in range(2):
        runs = {box: [range(at, min(at + 7, ROWS + 1)) for at in range(1, ROWS + 1, 7)] for box in BOXES}
        for numbers in runs.values():
            dice.shuffle(numbers)
        for parts in zip(*runs.values(), strict=True):
            rows = [[NewRow(seq, 1, "alert", NOW, b"{}", stars=1) for seq in part] for part in parts]
            groups.append([Arrival("t", box, "e", of) for box, of in zip(BOXES, rows, strict=True)])
            dice.shuffle(groups[-1])
    dice.shuffle(groups)
    return groups


def _together(*works: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_whoever_takes_which_batch_each_row_is_stored_once(store_url: str) -> None:
    groups = iter(_arrivals(random.Random(3)))  # a list's iterator is shared safely

    def worker() -> None:
        store = Store(store_url)
        for group in groups:
            with store.transaction():
                store.add_all(group, NOW)
        store.close()

    _together(*[worker] * 4)
    store = Store(store_url)
    with store.database.reading() as db:
        for table in (EVENT, NOTICE):
            stored = sorted(db.execute(sa.select(table.c.box, table.c.seq)))
            assert [tuple(row) for row in stored] == [(box, seq) for box in BOXES for seq in range(1, ROWS + 1)]
    assert [stream.upto for stream in store.streams()] == [ROWS] * 3
    assert store.missing() == []


def test_who_follows_the_events_misses_none_whatever_order_they_are_committed_in(postgres: Postgres) -> None:
    url = postgres.database()
    first, second, reader = Store(url), Store(url), Store(url, read_only=True)
    with first.transaction():
        first.add("t", "0", "e", [NewRow(1, 1, "alert", NOW, b"{}")], NOW)
    seen: list[tuple[int, str]] = []
    started = threading.Event()

    def follow() -> None:
        started.wait()
        seen.extend((row.id, row.box) for row in reader.events())

    follower = threading.Thread(target=follow)
    follower.start()
    with first.transaction():
        first.add("t", "slow", "e", [NewRow(1, 1, "alert", NOW, b"{}")], NOW)
        with second.transaction():
            second.add("t", "fast", "e", [NewRow(1, 1, "alert", NOW, b"{}")], NOW)
        started.set()
        follower.join(0.5)
    follower.join()
    assert [box for _, box in seen] == ["0", "slow", "fast"]
