"""Times that a box's wrong clock told, put right where they arrive."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.center.clock import OFF_CAP_S, corrected
from sekisho.center.ingest import make_ack, parse_batch, parse_state
from sekisho.center.store import REJECTED
from sekisho.telemetry.events import Alert, Delivery, Device, Retro

EPOCH = "00000000000000aa"
FIFTY_YEARS = 50 * 365.25 * 86400


def batch(off: object, *events: bytes) -> bytes:
    head = json.dumps({"v": 1, "e": EPOCH, "n": len(events), "off": off}).encode()
    return b"\n".join([head, *(b"[%d,1,%s]" % (number, event) for number, event in enumerate(events, 1))]) + b"\n"


def alert(at: str) -> bytes:
    return b'{"type":"alert","at":"%s","sid":1}' % at.encode()


@pytest.mark.protocol("P12")
def test_the_headers_offset_moves_each_rows_time_also_in_what_is_stored() -> None:
    parsed = parse_batch(1, batch(1000.25, alert("1970-01-01T00:00:10.000001Z"), alert("1970-01-01T00:00:11Z")))
    assert [row.at for row in parsed.rows] == ["1970-01-01T00:16:50.250001Z", "1970-01-01T00:16:51.250000Z"]
    assert [json.loads(row.body)["at"] for row in parsed.rows] == [row.at for row in parsed.rows]
    assert parsed.rejected == 0


@pytest.mark.parametrize("off", [OFF_CAP_S * 2, -OFF_CAP_S * 2, "1", None, True])
def test_an_offset_that_no_clock_has_refuses_the_batch(off: object) -> None:
    with pytest.raises(Exception, match="refused"):
        parse_batch(1, batch(off, alert("1970-01-01T00:00:10Z")))


@pytest.mark.parametrize("at", ["", "yesterday", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00"])
def test_a_time_that_cannot_be_moved_costs_its_row_alone(at: str) -> None:
    rows = parse_batch(1, batch(-FIFTY_YEARS, alert(at), alert("2026-01-01T00:00:00Z"))).rows
    assert [row.type for row in rows] == [REJECTED, "alert"]


def test_times_that_another_clock_told_stay() -> None:
    right, wrong = "2026-03-01T10:00:00.000000Z", "1970-01-01T00:00:10.000000Z"
    off = (56 * 365 + 14 + 59) * 86400.0
    seen = corrected(Device(at=wrong, first_seen=right, last_seen="1970-01-01T00:00:09.000000Z"), off)
    assert isinstance(seen, Device)
    assert (seen.at, seen.first_seen, seen.last_seen) == (
        "2026-03-01T00:00:10.000000Z",
        right,
        "2026-03-01T00:00:09.000000Z",
    )
    retro = corrected(Retro(at=wrong, deliveries=[Delivery(at=right), Delivery(at=wrong), Delivery()]), off)
    assert isinstance(retro, Retro)
    assert [delivery.at for delivery in retro.deliveries] == [right, "2026-03-01T00:00:10.000000Z", ""]


@given(st.floats(-OFF_CAP_S, OFF_CAP_S), st.text(max_size=40) | st.datetimes().map(str))
def test_any_time_is_moved_or_a_value_error(off: float, at: str) -> None:
    try:
        moved = corrected(Alert(at=at), off)
    except ValueError:
        return
    assert isinstance(moved.at, str)


def test_only_the_answer_to_a_birth_tells_the_time() -> None:
    assert parse_state(b'{"st":"on","bd":1,"epoch":"00000000000000aa","next":1,"n":"abc"}').n == "abc"
    assert "t" not in json.loads(make_ack(EPOCH, 1, [], "s", "", 1234))
    answer = json.loads(make_ack(EPOCH, 1, [], "s", "abc", 1234))
    assert (answer["t"], answer["n"]) == (1234, "abc")
