"""What goes to the broker, in which order, and when it goes again."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.appliance.core.errors import RejectedInput
from sekisho.telemetry.delivery import (
    BATCH_BYTES,
    RESEND_S,
    RETAINED_S,
    SETTLE_S,
    WINDOW_BATCHES,
    WINDOW_BYTES,
    Ack,
    Delivery,
    Publish,
    parse_ack,
)
from sekisho.telemetry.events import Alert, Dns, Event, Health
from sekisho.telemetry.spool import Spool

NOW = "2026-01-02T03:04:05.000006Z"
MB = 1 << 20


class Play:
    """A delivery with its spool, a clock in hand, and a client library that counts messages."""

    def __init__(self, path: Path) -> None:
        self.spool = Spool.open(path, 64 * MB, NOW)
        self.delivery = Delivery(self.spool.epoch)
        self.now = 100.0
        self.mid = 0

    def online(self) -> None:
        self.delivery.online(self.now)
        self.ack(0)

    def ack(self, upto: int, *have: tuple[int, int, int], session: str = "s") -> None:
        self.delivery.acknowledged(Ack(self.spool.epoch, upto, list(have), session), self.now)
        self.delivery.settle(self.now + SETTLE_S, self.spool)

    def pump(self, puback: bool = True) -> list[tuple[int, int, int]]:
        """Publish all that may go; returns the runs."""
        out: list[Publish] = []
        while publish := self.delivery.next(self.now, self.spool):
            self.mid += 1
            self.delivery.sent(publish, self.mid)
            if puback:
                self.delivery.pubacked(self.mid)
            out.append(publish)
        return [(p.batch.lane, p.batch.first, p.batch.last) for p in out]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    made = Play(tmp_path / "spool.db")
    yield made
    made.spool.close()


def alert(number: int) -> Event:
    return Alert(at=NOW, sid=number)


def dns(number: int, pad: int = 0) -> Event:
    return Dns(at=NOW, name=f"n{number}" + "x" * pad)


def test_nothing_goes_before_the_connection_and_the_retained_acknowledgement(play: Play) -> None:
    play.spool.add([alert(1)])
    assert play.pump() == []
    play.delivery.online(play.now)
    assert play.pump() == []
    play.now += RETAINED_S
    assert play.pump() == [(1, 1, 1)]


def test_the_retained_acknowledgement_ends_the_wait_and_saves_a_repetition(play: Play) -> None:
    play.spool.add([alert(1), alert(2)])
    play.delivery.online(play.now)
    play.ack(1)
    assert play.pump() == [(1, 2, 2)]


def test_verdicts_go_before_alerts_before_metadata(play: Play) -> None:
    play.spool.add([dns(1), alert(2), Health(at=NOW), dns(4), alert(5)])
    play.online()
    assert play.pump() == [(0, 3, 3), (1, 2, 5), (2, 1, 4)]


def test_a_batch_has_a_header_and_a_line_for_each_row(play: Play) -> None:
    play.spool.add([alert(1), alert(2)])
    play.online()
    publish = play.delivery.next(play.now, play.spool)
    assert publish
    head, *lines = publish.payload.splitlines()
    assert json.loads(head) == {"v": 1, "e": play.spool.epoch, "n": 2}
    assert [json.loads(line)[:2] for line in lines] == [[1, 1], [2, 1]]
    assert json.loads(lines[1])[2]["sid"] == 2


def test_a_puback_frees_nothing_and_the_centre_does(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.pump()
    assert play.spool.holds(1, 1, 1)
    play.ack(0, (1, 1, 1))
    assert not play.spool.holds(1, 1, 1)


def test_what_the_centre_does_not_acknowledge_goes_again_with_growing_patience(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.pump()
    play.now += RESEND_S - 1
    assert play.pump() == []
    play.now += 1
    assert play.pump() == [(1, 1, 1)]
    play.now += RESEND_S
    assert play.pump() == []
    play.now += RESEND_S
    assert play.pump() == [(1, 1, 1)]


def test_what_the_client_library_still_holds_is_not_repeated_by_us(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.pump(puback=False)
    play.now += 2 * RESEND_S
    play.delivery.offline()
    play.online()
    assert play.pump() == []
    play.delivery.pubacked(play.mid)
    assert play.pump() == [(1, 1, 1)]


def test_a_reconnect_repeats_what_only_the_broker_had(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.pump()
    play.delivery.offline()
    play.online()
    assert play.pump() == [(1, 1, 1)]


def test_a_centre_that_connects_anew_gets_what_was_under_way_to_it(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.pump()
    play.ack(0, session="another")
    assert play.pump() == [(1, 1, 1)]


def test_a_repetition_leaves_out_what_has_been_acknowledged_since(play: Play) -> None:
    play.spool.add([alert(number) for number in range(1, 6)])
    play.online()
    assert play.pump() == [(1, 1, 5)]
    play.ack(3)
    play.now += RESEND_S
    publish = play.delivery.next(play.now, play.spool)
    assert publish and [json.loads(line)[0] for line in publish.payload.splitlines()[1:]] == [4, 5]


def test_the_window_is_bounded_and_reopens(play: Play) -> None:
    play.online()
    for number in range(WINDOW_BATCHES + 5):
        play.spool.add([alert(number)])
        play.pump()
    assert play.pump() == []
    play.ack(10)
    assert play.pump() == [(1, WINDOW_BATCHES + 1, WINDOW_BATCHES + 5)]


def test_large_backlogs_are_cut_into_batches_within_the_byte_window(play: Play) -> None:
    play.spool.add([dns(number, 250) for number in range(8000)])
    play.online()
    sizes = []
    while publish := play.delivery.next(play.now, play.spool):
        sizes.append(len(publish.payload))
    assert max(sizes) <= BATCH_BYTES + 100
    assert WINDOW_BYTES <= sum(sizes) <= WINDOW_BYTES + BATCH_BYTES


def test_another_epochs_acknowledgement_deletes_nothing(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.delivery.acknowledged(Ack("ffffffffffffffff", 1), play.now)
    play.delivery.settle(play.now + SETTLE_S, play.spool)
    assert play.spool.holds(1, 1, 1)


def test_in_any_order_of_losses_everything_is_acknowledged_in_the_end(play: Play) -> None:
    dice = random.Random(2)
    number = 0
    centre: set[int] = set()
    play.online()
    for step in range(400):
        play.now += dice.uniform(0, 3)
        if step < 250:
            number += 3
            play.spool.add([alert(number), dns(number), Health(at=NOW)])
        while publish := play.delivery.next(play.now, play.spool):
            play.mid += 1
            play.delivery.sent(publish, play.mid)
            play.delivery.pubacked(play.mid)
            if dice.random() < 0.4:
                continue
            got = [json.loads(line)[0] for line in publish.payload.splitlines()[1:]]
            centre.update(got)
            if dice.random() < 0.6:
                play.ack(0, (publish.batch.lane, min(got), max(got)))
        if dice.random() < 0.05:
            play.delivery.offline()
            play.online()
    assert centre == set(range(1, number + 1))
    assert not any(play.spool.holds(lane, 1, 1 << 40) for lane in range(3))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.from_regex(rb'\{"e":"a","upto":-?[0-9]{1,30},"have":\[(\[[0-9,]*\])*\]\}'))
def test_any_bytes_are_an_acknowledgement_or_refused(payload: bytes) -> None:
    try:
        ack = parse_ack(payload)
    except RejectedInput:
        return
    assert 0 <= ack.upto < 1 << 62


def test_too_many_runs_or_too_large_an_acknowledgement_is_refused() -> None:
    for payload in (b'{"e":"a","have":[' + b",".join([b"[1,1,1]"] * 257) + b"]}", b" " * (1 << 20), b"[" * 30_000):
        with pytest.raises(RejectedInput):
            parse_ack(payload)
