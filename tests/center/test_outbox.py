"""What follows from an event: once for each that is new, in the same transaction, whatever is repeated."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from sekisho.center.outbox import BAD_FILE, NOTICE
from sekisho.center.store import NewRow, Store
from sekisho.telemetry.events import Alert, FileVerdict, encode

NOW = "2026-01-02T03:04:05.000006Z"
SHA = "ab" * 32


def notices(store: Store) -> list[tuple[str, int, int, str]]:
    with store.database.reading() as db:
        columns = (NOTICE.c.tenant, NOTICE.c.seq, NOTICE.c.stars, NOTICE.c.state)
        return [tuple(row) for row in db.execute(sa.select(*columns).order_by(NOTICE.c.id))]


def alert(seq: int, stars: int) -> NewRow:
    return NewRow(seq, 1, "alert", NOW, encode(Alert(at=NOW, sid=seq)), stars=stars)


def verdict(seq: int, **fields: object) -> NewRow:
    event = FileVerdict(at=NOW, **fields)  # type: ignore[arg-type]  # one test's fields
    return NewRow(seq, 0, "file", NOW, encode(event))


def test_people_are_told_of_what_has_stars_and_of_each_once(store_url: str) -> None:
    store = Store(store_url)
    for seqs, fresh in (((1, 2, 3), [1, 2, 3]), ((2, 3, 4), [4]), ((4,), [])):
        with store.transaction():
            new = store.add("t", "b", "e", [alert(seq, seq - 1) for seq in seqs], NOW)
        assert [row.seq for row in new] == fresh
    assert notices(store) == [("t", 2, 1, "new"), ("t", 3, 2, "new"), ("t", 4, 3, "new")]


def test_a_transaction_that_fails_tells_nobody(store_url: str) -> None:
    store = Store(store_url)
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.add("t", "b", "e", [alert(1, 3)], NOW)
        raise ZeroDivisionError
    assert notices(store) == []


def test_a_bad_file_is_one_with_a_hash_and_the_rules_that_say_so(store_url: str) -> None:
    store = Store(store_url)
    bad = {"sha256": SHA, "rules": ["evil"]}
    rows = [
        verdict(1, outcome="blocked", **bad),
        verdict(2, outcome="delivered_then_found", **bad),
        verdict(3, outcome="released_by_policy", **bad),
        verdict(4, outcome="blocked", sha256=SHA),
        verdict(5, outcome="blocked", rules=["evil"]),
        NewRow(6, 2, "file", NOW, encode(FileVerdict(at=NOW, outcome="clean", sha256=SHA))),
    ]
    for _ in range(2):
        with store.transaction():
            store.add("t", "b", "e", rows, NOW)
    with store.database.reading() as db:
        columns = (BAD_FILE.c.seq, BAD_FILE.c.sha256, BAD_FILE.c.rules, BAD_FILE.c.state)
        found = [tuple(row) for row in db.execute(sa.select(*columns).order_by(BAD_FILE.c.seq))]
    assert found == [(seq, SHA, '["evil"]', "new") for seq in (1, 2)]
