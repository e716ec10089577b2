"""Batches and state messages from boxes: judged, never trusted."""

from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.ingest import MESSAGE_CAP, ROWS_CAP, make_ack, parse_batch, parse_state, parse_topic
from sekisho.center.store import REJECTED
from sekisho.telemetry import batches
from sekisho.telemetry.delivery import parse_ack

EPOCH = "00000000000000aa"
ALERT = b'{"type":"alert","at":"2026-01-02T03:04:05Z","sid":1}'


def batch(*lines: bytes, n: int | None = None, e: str = EPOCH, v: int = 1) -> bytes:
    head = json.dumps({"v": v, "e": e, "n": len(lines) if n is None else n}).encode()
    return b"\n".join([head, *lines]) + b"\n"


def test_a_batch_becomes_rows_and_the_run_to_acknowledge() -> None:
    parsed = parse_batch(1, batch(b"[5,1," + ALERT + b"]", b"[9,1," + ALERT + b"]"))
    assert parsed.epoch == EPOCH and parsed.run == (1, 5, 9) and parsed.rejected == 0
    assert [(row.seq, row.type, row.body) for row in parsed.rows] == [(5, "alert", ALERT), (9, "alert", ALERT)]


def packed(lines: bytes, n: int, **more: object) -> bytes:
    return json.dumps({"v": 1, "e": EPOCH, "n": n, "z": "zstd", **more}).encode() + b"\n" + lines


def test_a_compressed_batch_is_the_same_batch() -> None:
    rows = [batches.Row(number, 1, ALERT) for number in range(1, 1001)]
    lines = batches.encode_lines(rows)
    payload = batches.payload(EPOCH, 1000, lines, packed=False)
    assert len(payload) < len(lines) // 10
    assert parse_batch(1, payload) == parse_batch(1, packed(batches.compress(lines), 1000))
    assert [(row.seq, row.body) for row in parse_batch(1, payload).rows] == [(row.seq, row.body) for row in rows]
    assert parse_batch(1, payload) == parse_batch(1, batch(*lines.splitlines()))


def test_what_is_small_goes_as_it_is() -> None:
    lines = batches.encode_lines([batches.Row(1, 1, ALERT)])
    assert batches.payload(EPOCH, 1, lines, packed=False).endswith(lines)


@pytest.mark.parametrize(
    "lines",
    [
        batches.compress(b"[5,1," + b" " * batches.LINES_CAP + ALERT + b"]"),
        batches.compress(b"[5,1," + ALERT + b"]")[:-1],
        batches.compress(b"[5,1," + ALERT + b"]") + b"x",
        batches.compress(b"[5,1," + ALERT + b"]") * 2,
        batches.compress(b""),
        b"[5,1," + ALERT + b"]",
        b"",
    ],
    ids=["bomb", "cut short", "something behind", "two frames", "empty", "not compressed", "nothing"],
)
@pytest.mark.protocol("P8")
def test_a_frame_that_is_not_exactly_one_batch_within_its_cap_is_refused(lines: bytes) -> None:
    with pytest.raises(RejectedInput):
        parse_batch(1, packed(lines, 1))


def test_a_frame_that_asks_for_a_huge_window_is_refused() -> None:
    line = b"[5,1," + ALERT + b"]\n"
    wide = subprocess.run(
        ["zstd", "-q", "-c", "--long=27"], input=line * 1_000_000, capture_output=True, check=True
    ).stdout
    with pytest.raises(RejectedInput, match="memory"):
        parse_batch(1, packed(wide, 1))


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"alert"}',
        b'{"type":"secret","at":"x"}',
        b"7",
        b'{"type":"gap","at":"x","first":1,"last":99}',
    ],
)
@pytest.mark.protocol("P10")
def test_a_row_that_is_no_event_keeps_its_number_and_loses_its_content(body: bytes) -> None:
    parsed = parse_batch(1, batch(b"[5,1," + body + b"]", b"[6,1," + ALERT + b"]"))
    assert [(row.seq, row.type, row.body) for row in parsed.rows] == [(5, REJECTED, b""), (6, "alert", ALERT)]
    assert parsed.rejected == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\n",
        batch(),
        batch(b"[5,1," + ALERT + b"]", n=2),
        batch(b"[5,1," + ALERT + b"]", v=2),
        batch(b"[5,1," + ALERT + b"]", e="../../etc"),
        batch(b"[5,0," + ALERT + b"]"),
        batch(b"[0,1," + ALERT + b"]"),
        batch(b"[5,1," + ALERT),
        batch(b"[99999999999999999999,1," + ALERT + b"]"),
        batch(*[b"[1,1,1]"] * (ROWS_CAP + 1)),
        batch(b"[5,1," + b"[" * 3000 + b"]" * 3000 + b"]"),
        b" " * (MESSAGE_CAP + 1),
    ],
)
@pytest.mark.protocol("P8", "P34")
def test_what_is_no_whole_batch_is_refused(payload: bytes) -> None:
    with pytest.raises(RejectedInput):
        parse_batch(1, payload)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100), st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_are_rows_or_a_refusal(head: bytes, lines: list[bytes]) -> None:
    for payload in (b"\n".join([head, *lines]), batch(*lines), head):
        for parse in (lambda data: parse_batch(1, data), parse_state):
            try:
                parse(payload)
            except RejectedInput:
                continue


@pytest.mark.protocol("P6")
def test_only_a_boxs_own_topics_are_known() -> None:
    topic = parse_topic("sk/1/t/box-1/ev/2")
    assert (topic.tenant, topic.box, topic.lane) == ("t", "box-1", 2)
    assert parse_topic("sk/1/t/box-1/state").lane is None
    for other in ("sk/1/t/box-1/ev/3", "sk/1/t/box-1/ack", "sk/2/t/b/ev/1", "sk/1//b/ev/1", "sk/1/t/b/ev/1\n", "x"):
        with pytest.raises(RejectedInput):
            parse_topic(other)


@pytest.mark.protocol("P17")
def test_an_acknowledgement_names_the_newest_runs_beyond_upto_and_stays_small() -> None:
    runs = [(1, number, number) for number in range(1, 1001)]
    ack = json.loads(make_ack(EPOCH, 900, runs, "s"))
    assert ack["upto"] == 900 and ack["have"] == [[1, number, number] for number in range(901, 1001)]
    assert len(json.loads(make_ack(EPOCH, 0, runs, "s"))["have"]) == 256
    assert json.loads(make_ack(EPOCH, 0, [], "s", generation=7))["g"] == 7


@pytest.mark.protocol("P35")
def test_what_a_later_release_adds_is_passed_over() -> None:
    header = b'{"v":1,"e":"%s","n":1,"later":[1,{"a":2}]}' % (b"0" * 16)
    row = b'[1,2,{"type":"dns","at":"2026-01-02T03:04:05.000006Z","name":"a.example","later":true}]'
    (taken,) = parse_batch(2, header + b"\n" + row + b"\n").rows
    assert taken.type == "dns"
    assert parse_state(b'{"st":"on","bd":1,"epoch":"%s","next":1,"later":0}' % (b"0" * 16)).bd == 1
    assert parse_ack(b'{"e":"%s","upto":7,"s":"x","later":{}}' % (b"0" * 16)).upto == 7
