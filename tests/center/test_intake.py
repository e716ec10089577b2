"""Messages of any kind, on both back ends: what is sound is stored, the rest refused and counted, nothing stops it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sekisho.appliance.core.errors import DeviceFault
from sekisho.center import ingest, intake, refused, streams
from sekisho.center.ca import registry
from sekisho.center.database import Unstorable
from sekisho.center.intake import Answer, Message
from sekisho.center.store import AHEAD, Arrival, NewRow, Store

NOW = "2026-11-21T03:04:05.000006Z"
EPOCH = "00000000000000aa"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    made = Store(store_url)
    yield made
    made.close()


def alert(seq: int, **fields: object) -> bytes:
    return b"[%d,1,%s]" % (seq, json.dumps({"type": "alert", "at": NOW, "sid": seq, **fields}).encode())


def batch(*lines: bytes, box: str = "b", tenant: str = "t", lane: int = 1, **header: object) -> Message:
    head = json.dumps({"v": 1, "e": EPOCH, "n": len(lines), **header}).encode()
    return Message(f"sk/1/{tenant}/{box}/ev/{lane}", b"\n".join([head, *lines]) + b"\n")


def birth(box: str = "b", tenant: str = "t", **fields: object) -> Message:
    state = {"st": "on", "bd": 1, "epoch": EPOCH, "next": 1, "n": "nonce", **fields}
    return Message(f"sk/1/{tenant}/{box}/state", json.dumps(state).encode())


def take(store: Store, *messages: Message) -> list[Answer]:
    return intake.take(store, messages, NOW)


def stored(store: Store) -> list[tuple[str, int]]:
    return [(row.box, row.seq) for row in store.events(limit=10_000)]


def refusals(store: Store) -> dict[tuple[str, str], int]:
    return {(row.box, row.kind): row.count for row in refused.shown(store.database)[0]}


def test_a_group_is_stored_and_each_stream_answered_once(store: Store) -> None:
    answers = take(store, birth(), batch(alert(1), alert(2)), batch(alert(5)), batch(alert(1), box="other"))
    assert stored(store) == [("b", 1), ("b", 2), ("b", 5), ("other", 1)]
    everything_beyond = [(lane, 5, 5) for lane in range(3)]  # what a box that asks is told
    assert answers == [
        Answer(("t", "b", EPOCH), 2, [(1, 1, 2), (1, 5, 5), *everything_beyond], "nonce"),
        Answer(("t", "other", EPOCH), 1, [(1, 1, 1)]),
    ]
    assert refusals(store) == {}


def test_boxes_that_ask_together_are_each_told_their_newest_runs(store: Store) -> None:
    take(
        store,
        batch(*map(alert, range(2, 202, 2))),
        batch(alert(1), alert(3), box="other"),
        batch(alert(1), box="whole"),
    )
    answers = {answer.key[1]: answer for answer in take(store, birth(), birth("other"), birth("whole"))}
    assert (answers["b"].upto, answers["other"].upto, answers["whole"].upto) == (0, 1, 1)
    newest = [(lane, seq, seq) for seq in range(202 - 2 * AHEAD, 202, 2) for lane in range(3)]
    assert sorted(answers["b"].runs) == sorted(newest)
    assert answers["other"].runs == [(lane, 3, 3) for lane in range(3)]
    assert answers["whole"].runs == []


BOMB = zstd.compress(b"[" * (64 << 20))
BAD = {
    "another version": (batch(alert(1), v=2), "batch"),
    "a count that is not so": (batch(alert(1), n=2), "batch"),
    "another epoch's form": (batch(alert(1), e="aa\n"), "batch"),
    "more rows than one may have": (batch(*[alert(1)] * 5001), "batch"),
    "larger than a message may be": (batch(alert(1, url="x" * (256 << 10))), "batch"),
    "a zstd bomb": (Message("sk/1/t/b/ev/1", batch(n=1, z="zstd").payload + BOMB), "batch"),
    "torn zstd": (Message("sk/1/t/b/ev/1", batch(n=1, z="zstd").payload + zstd.compress(alert(1))[:-3]), "batch"),
    "deep JSON": (batch(b"[1,1," + b"[" * 50_000 + b"]" * 50_000 + b"]"), "batch"),
    "rows of another lane": (batch(alert(1), lane=0), "batch"),
    "numbers that no box has": (batch(alert(0)), "batch"),
    "nothing": (Message("sk/1/t/b/ev/1", b""), "batch"),
    "bytes of no kind": (Message("sk/1/t/b/ev/1", b"\x00\xff\xfe"), "batch"),
    "a body that is no event": (batch(b'[1,1,{"type":"alert","at":5}]'), "rows"),
    "a time that is none": (batch(alert(1, at="yesterday\x00")), "rows"),
    "stars beyond three": (batch(alert(1, stars=4)), "rows"),
    "a birth with another epoch's form": (birth(epoch="a\x00"), "state"),
    "a will that is none": (birth(st="off"), "state"),
    "a birth that is too large": (birth(n="x" * 5000), "state"),
}


@pytest.mark.protocol("P6")
def test_whatever_is_wrong_comes_at_once_and_what_is_beside_it_is_stored(store: Store) -> None:
    take(store, *(message for message, _ in BAD.values()), batch(alert(7), box="good"))
    assert stored(store) == [("good", 7)]
    assert refusals(store) == {
        ("b", kind): number for kind, number in Counter(kind for _, kind in BAD.values()).items()
    }


@pytest.mark.parametrize(("message", "kind"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_refused_and_counted_and_what_is_beside_it_stored(
    tmp_path: Path, message: Message, kind: str
) -> None:
    store = Store(tmp_path / "events.db")
    for _ in range(2):
        take(store, message, batch(alert(7), box="good"), message)
    assert stored(store) == [("good", 7)]
    assert refusals(store) == {("b", kind): 4}
    row = refused.shown(store.database)[0][0]
    assert (row.day, row.last_at) == (NOW[:10], NOW) and row.reason.isprintable() and len(row.reason) <= 200


def test_a_flood_of_junk_is_one_line_in_the_log_for_a_group(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path / "events.db")
    take(store, *[Message("sk/1/t/b/ev/1", b"junk")] * 200)
    assert [record.getMessage()[:26] for record in caplog.records] == ["refused 200 of b (batch): "]


def test_a_topic_that_is_none_of_ours_is_counted_without_a_box(store: Store) -> None:
    assert take(store, Message("sk/1/t/b/ev/9", b""), Message("x\x00", b"")) == []
    assert refusals(store) == {("", "topic"): 2}


def test_a_box_speaks_for_the_tenant_it_was_first_heard_for(store: Store) -> None:
    take(store, birth(), batch(alert(1)))
    assert take(store, birth(tenant="evil"), batch(alert(2), tenant="evil"), batch(alert(3))) == [
        Answer(("t", "b", EPOCH), 1, [(1, 3, 3)])
    ]
    assert stored(store) == [("b", 1), ("b", 3)]
    assert refusals(store) == {("b", "tenant"): 1}
    assert [box.tenant for box in store.boxes()] == ["t"]
    assert take(store, batch(alert(1), box="new"), batch(alert(2), box="new", tenant="evil"))[0].key[0] in ("t", "evil")
    assert len({stream.tenant for stream in store.streams() if stream.box == "new"}) == 1


@pytest.mark.protocol("P3")
def test_a_box_that_enrolled_is_believed_for_its_tenant_until_it_is_revoked(store: Store) -> None:
    with store.transaction() as db:
        registry.expect(db, "b", "t", NOW)
    assert take(store, batch(alert(1))) == []
    with store.transaction() as db:
        registry.activate(db, "b", NOW)
    assert len(take(store, batch(alert(1)), batch(alert(2), tenant="other"))) == 1
    with store.transaction() as db:
        registry.revoke(db, "b", NOW)
    assert take(store, batch(alert(3)), birth()) == []
    assert stored(store) == [("b", 1)]


def test_a_message_nobody_foresaw_is_set_aside_and_stops_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    judge, add = ingest.parse_batch, Store.add_all

    def parse(lane: int, payload: bytes) -> Any:
        if b"judge me" in payload:
            raise ZeroDivisionError("secret of the box")
        return judge(lane, payload)

    def add_all(self: Store, arrivals: list[Arrival], now: str) -> list[NewRow]:
        if any(b"store me" in row.body for arrival in arrivals for row in arrival.rows):
            raise Unstorable("no")
        if any(b"crash me" in row.body for arrival in arrivals for row in arrival.rows):
            raise RuntimeError
        return add(self, arrivals, now)

    monkeypatch.setattr(ingest, "parse_batch", parse)
    monkeypatch.setattr(Store, "add_all", add_all)
    answers = take(
        store,
        batch(alert(1)),
        batch(alert(2, url="judge me")),
        batch(alert(3, url="store me")),
        batch(alert(4, url="crash me")),
        batch(alert(5), b"[6,1,7]", box="other"),
    )
    assert stored(store) == [("b", 1), ("other", 5)]
    assert [(answer.key[1], answer.runs) for answer in answers] == [("b", [(1, 1, 1)]), ("other", [(1, 5, 6)])]
    assert refusals(store) == {("b", "aside"): 3, ("other", "rows"): 1}
    aside = refused.shown(store.database)[1]
    assert [row.error for row in aside] == ["ZeroDivisionError", "Unstorable", "RuntimeError"]
    assert all(row.topic == "sk/1/t/b/ev/1" and len(row.sha256) == 64 and row.size > 50 for row in aside)
    assert "secret" not in str(aside) + caplog.text and "ZeroDivisionError in" in caplog.text


def test_a_box_that_begins_epoch_after_epoch_is_refused_at_a_thousand(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "EPOCHS_CAP", 3)
    for number in range(5):
        take(store, batch(alert(1), e=f"{number:016x}"), batch(alert(number + 1), box="honest"))
    assert [stream.box for stream in store.streams()] == ["b", "b", "b", "honest"]
    assert store.upto("honest", EPOCH) == 5
    assert refusals(store) == {("b", "batch"): 2}


def test_what_is_set_aside_stays_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused, "ASIDE_KEPT", 3)
    for number in range(10):
        with store.transaction() as db:
            refused.set_aside(db, f"sk/{number}", b"", ValueError(), NOW)
    assert [row.topic for row in refused.shown(store.database)[1]] == ["sk/7", "sk/8", "sk/9"]


@pytest.mark.protocol("P21")
def test_a_database_that_refuses_is_no_poison(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise DeviceFault("disk full")

    monkeypatch.setattr(Store, "add_all", refuse)
    with pytest.raises(DeviceFault):
        take(store, batch(alert(1)), batch(alert(2)))
    assert stored(store) == [] and refusals(store) == {}


def test_a_group_that_expands_is_stored_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    most: list[int] = []
    add = Store.add_all

    def watch(self: Store, arrivals: list[Arrival], now: str) -> list[NewRow]:
        most.append(sum(len(arrival.rows) for arrival in arrivals))
        return add(self, arrivals, now)

    monkeypatch.setattr(intake, "WORK_SIZE", 10)
    monkeypatch.setattr(Store, "add_all", watch)
    groups = [batch(*(alert(at + step) for step in range(4))) for at in range(1, 81, 4)]
    answers = take(store, *groups)
    assert max(most) <= 13 and sum(most) == 80
    assert answers[-1].upto == 80


def gap(seq: int, runs: list[tuple[int, int]]) -> bytes:
    event = {"type": "gap", "at": NOW, "first": runs[0][0], "last": runs[-1][1], "runs": runs}
    return b"[%d,0,%s]" % (seq, json.dumps(event).encode())


def scattered(start: int, number: int) -> list[tuple[int, int]]:
    """Runs of one number with one left out between them."""
    return [(at, at) for at in range(start, start + 2 * number, 2)]


def test_what_gaps_declare_and_large_rows_weigh_in_a_transaction_and_the_watchdog_hears_of_each(store: Store) -> None:
    commits: list[int] = []
    gaps = [
        batch(*(gap(10**6 + 4 * at + n, scattered(1 + 4096 * at, 256)) for n in range(4)), lane=0) for at in range(40)
    ]
    large = [batch(alert(2 * 10**6 + at, url="x" * (200 << 10))) for at in range(200)]
    for group in (gaps, large):
        answers = intake.take(store, group, NOW, lambda: commits.append(len(stored(store))))
        assert sum(len(answer.runs) for answer in answers) == len(group)
    assert commits == [0, 80, 160, 160, 260, 360] and len(stored(store)) == 360
    assert refusals(store) == {}


def test_a_batch_that_declares_more_runs_than_a_box_ever_puts_into_one_is_refused(store: Store) -> None:
    most = batch(*(gap(9000 + n, scattered(1 + 512 * n, 256)) for n in range(4)), lane=0)
    more = batch(*(gap(9000 + n, scattered(1 + 512 * n, 256)) for n in range(5)), lane=0, box="evil")
    take(store, more, most, batch(alert(1), box="good"))
    assert stored(store) == [("b", seq) for seq in range(9000, 9004)] + [("good", 1)]
    assert refusals(store) == {("evil", "batch"): 1}


def test_a_box_that_scatters_its_numbers_is_refused_at_a_cap_until_it_fills_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "RUNS_CAP", 100)
    monkeypatch.setattr(streams, "_FEW", 0)
    other = "00000000000000bb"
    take(store, batch(*(alert(seq) for seq in range(2, 122, 2))))
    take(store, batch(*(alert(seq) for seq in range(2, 82, 2)), e=other))
    take(store, batch(alert(1000)), batch(alert(1), box="good"))
    take(store, batch(gap(2000, scattered(1001, 5)), lane=0), batch(alert(2), box="good"))
    assert (store.upto("b", EPOCH), store.upto("good", EPOCH)) == (0, 2)
    assert refusals(store) == {("b", "batch"): 2}
    take(store, batch(*(alert(seq) for seq in range(1, 121, 2))))
    take(store, batch(alert(1000)))
    assert store.upto("b", EPOCH) == 120 and ("b", 1000) in stored(store)
    assert refusals(store) == {("b", "batch"): 2}


def test_numbers_that_come_late_are_looked_for_where_they_are(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    touching = streams._touching

    def count(*args: Any) -> list[tuple[int, int]]:
        found = touching(*args)
        read.append(len(found))
        return found

    runs = [(1, 1), *scattered(5000, 250), (20_000, 20_002)]
    take(store, batch(gap(30_000, runs), lane=0))
    assert len(store.declared()) == 252
    monkeypatch.setattr(streams, "_touching", count)
    take(store, batch(alert(1), alert(20_001), alert(29_000)))
    take(store, batch(alert(1)))
    monkeypatch.undo()
    assert [(gap.first, gap.last) for gap in store.declared()] == [*runs[1:-1], (20_000, 20_000), (20_002, 20_002)]
    assert stored(store) == [("b", 30_000), ("b", 1), ("b", 20_001), ("b", 29_000)]
    assert sum(read) < 300  # what lies ahead, and two gaps of 252


def test_what_a_refused_message_says_is_in_no_log_and_no_reason(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    quoted = "x\nERROR sekisho.center: secret"
    take(
        store,
        birth(st=quoted),
        birth(epoch=quoted, box="c"),
        batch(alert(1), z=quoted),
        batch(alert(1), e=quoted, box="c"),
        Message("sk/1/t/d/ev/1", b'{"v":1,"e":secret}'),
        Message("sk/1/t/d/state", b"secret\xff"),
        batch(b"[1,1,secret]", box="e"),
    )
    rows = refused.shown(store.database)[0]
    assert len(rows) == 7 and len(caplog.records) == 7
    assert not any("secret" in text or "ERROR" in text or "\n" in text for text in caplog.messages)
    assert not any("secret" in row.reason for row in rows)


TOPICS = st.one_of(
    st.sampled_from(["sk/1/t/b/ev/1", "sk/1/t/b/state", "sk/1/u/b/ev/0", "sk/1/t/b/ack", "sk/1/t/b/ev/", ""]),
    st.text(max_size=30),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from([NOW, "gap"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["type", "at", "v", "e", "n", "st", "bd", "epoch", "first", "last", "runs", "stars", "z"]),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=8,
)
LINES = st.one_of(VALUES.map(json.dumps).map(str.encode), st.binary(max_size=40))
ROWS = st.tuples(st.integers(0, 20), VALUES).map(lambda row: b"[%d,1,%s]" % (row[0], json.dumps(row[1]).encode()))
PAYLOADS = st.one_of(
    st.binary(max_size=60),
    st.lists(LINES, max_size=4).map(b"\n".join),
    st.lists(ROWS, min_size=1, max_size=4).map(lambda rows: batch(*rows).payload),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TOPICS, PAYLOADS), max_size=5))
def test_anything_may_come_and_a_sound_batch_beside_it_is_stored(
    store: Store, messages: list[tuple[str, bytes]]
) -> None:
    before = store.upto("good", EPOCH)
    sound = batch(alert(before + 1), box="good")
    group = [Message(topic, payload) for topic, payload in messages]
    answers = take(store, *group, sound, *group)
    assert [answer.upto for answer in answers if answer.key[1] == "good"] == [before + 1]
    assert refused.shown(store.database)[1] == []
