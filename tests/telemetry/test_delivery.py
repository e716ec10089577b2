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
from sekisho.telemetry import batches
from sekisho.telemetry.blocks import BATCH_BYTES
from sekisho.telemetry.delivery import (
    ANSWER_S,
    ASK_S,
    METADATA_SHARE,
    SETTLE_S,
    UNASKED_S,
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
        self.questions = 0

    def online(self) -> None:
        self.delivery.online(self.now)
        self.answer()

    def ack(self, upto: int, *have: tuple[int, int, int], session: str = "s", nonce: str = "", g: int = 0) -> None:
        self.delivery.acknowledged(Ack(self.spool.epoch, upto, list(have), session, g, n=nonce), self.now)
        self.delivery.settle(self.now + SETTLE_S, self.spool)

    def ask(self) -> str:
        """What the daemon does when `wants_answer`: a birth with a nonce."""
        assert self.delivery.wants_answer(self.now)
        self.questions += 1
        self.delivery.asked(f"q{self.questions}", self.now)
        assert not self.delivery.wants_answer(self.now)
        return f"q{self.questions}"

    def answer(self, upto: int = 0, *have: tuple[int, int, int]) -> None:
        self.ack(upto, *have, nonce=self.ask())

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


def numbers(publish: Publish) -> list[int]:
    head, _, lines = publish.payload.partition(b"\n")
    return batches.numbers(batches.expand(lines) if "z" in json.loads(head) else lines)


def alert(number: int) -> Event:
    return Alert(at=NOW, sid=number)


def dns(number: int, pad: int = 0) -> Event:
    return Dns(at=NOW, name=f"n{number}" + "x" * pad)


def test_nothing_goes_before_the_connection_and_the_centres_answer(play: Play) -> None:
    play.spool.add([alert(1)])
    assert play.pump() == []
    play.delivery.online(play.now)
    assert play.pump() == []
    play.ask()
    play.now += ANSWER_S - 0.1
    assert play.pump() == []
    play.now += 0.1
    assert play.pump() == [(1, 1, 1)], "a centre that is away stops nothing"


def test_the_centres_answer_ends_the_wait_and_saves_a_repetition(play: Play) -> None:
    play.spool.add([alert(1), alert(2)])
    play.delivery.online(play.now)
    play.ack(0)
    assert play.pump() == [], "a retained acknowledgement is older than what is still under way"
    play.answer(1)
    assert play.pump() == [(1, 2, 2)]


def test_what_the_answer_names_does_not_go_again_in_the_turn_that_brought_it(play: Play) -> None:
    play.spool.add([alert(1), alert(2)])
    play.delivery.online(play.now)
    nonce = play.ask()
    play.delivery.acknowledged(Ack(play.spool.epoch, 1, n=nonce), play.now + 0.001)
    play.delivery.settle(play.now, play.spool)
    play.now += 0.002
    assert play.pump() == [(1, 2, 2)]


@pytest.mark.protocol("P14")
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


@pytest.mark.protocol("P16")
def test_a_puback_frees_nothing_and_the_centre_does(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.pump()
    assert play.spool.holds(1, 1, 1)
    play.ack(0, (1, 1, 1))
    assert not play.spool.holds(1, 1, 1)


def test_what_the_centre_does_not_have_goes_again_once_it_has_said_so_with_growing_patience(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.pump()
    play.now += ASK_S - 1
    assert not play.delivery.wants_answer(play.now)
    play.now += 1
    play.answer()
    assert play.pump() == [(1, 1, 1)]
    play.now += 2 * ASK_S - 1
    assert not play.delivery.wants_answer(play.now)
    play.now += 1
    play.answer()
    assert play.pump() == [(1, 1, 1)]


@pytest.mark.protocol("P23")
def test_while_the_centre_is_away_nothing_is_repeated_into_the_brokers_queue(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.pump()
    asked = 0
    for _ in range(int(UNASKED_S) - 1):
        play.now += 1
        if play.delivery.wants_answer(play.now):
            play.ask()
            asked += 1
        assert play.pump() == []
    assert 3 < asked < 10
    play.now += 1
    assert play.pump() == [(1, 1, 1)], "a broker that loses every question does not stop us for ever"


@pytest.mark.protocol("P23")
def test_only_what_the_broker_had_before_the_question_is_lost_when_the_answer_does_not_name_it(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.pump()
    play.now += ASK_S
    nonce = play.ask()
    play.spool.add([alert(2)])
    assert play.pump() == [(1, 2, 2)]
    play.ack(0, nonce=nonce)
    assert play.pump() == [(1, 1, 1)]


def test_an_old_answer_or_one_to_another_question_repeats_nothing(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.pump()
    play.now += ASK_S
    for nonce in ("q1", "other", ""):
        play.ack(0, nonce=nonce)
        assert play.pump() == []


def test_what_the_client_library_still_holds_is_not_repeated_by_us(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.pump(puback=False)
    play.delivery.offline()
    play.online()
    assert play.pump() == []
    play.delivery.pubacked(play.mid)
    play.now += ASK_S
    play.answer()
    assert play.pump() == [(1, 1, 1)]


def test_a_reconnect_repeats_what_the_broker_lost_and_nothing_else(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.pump()
    play.spool.add([alert(2)])
    play.pump()
    play.delivery.offline()
    play.delivery.online(play.now)
    play.ack(0, (1, 2, 2))
    assert play.pump() == []
    play.answer()
    assert play.pump() == [(1, 1, 1)]


def test_a_centre_that_connects_anew_is_asked_at_once(play: Play) -> None:
    play.spool.add([alert(1)])
    play.online()
    play.pump()
    play.ack(0, session="another")
    assert play.pump() == []
    play.answer()
    assert play.pump() == [(1, 1, 1)]


def test_a_repetition_leaves_out_what_has_been_acknowledged_since(play: Play) -> None:
    play.spool.add([alert(number) for number in range(1, 6)])
    play.online()
    assert play.pump() == [(1, 1, 5)]
    play.ack(3)
    play.now += ASK_S
    play.answer(3)
    publish = play.delivery.next(play.now, play.spool)
    assert publish and numbers(publish) == [4, 5]


@pytest.mark.protocol("P25")
def test_a_restored_centre_gets_again_what_is_kept_and_a_replayed_word_does_nothing(play: Play) -> None:
    play.spool.add([alert(number) for number in range(1, 6)])
    play.online()
    play.pump()
    play.ack(5)
    assert not play.spool.holds(1, 1, 5)
    play.ack(2, session="restored", g=7)
    assert play.pump() == [(1, 3, 5)]
    play.ack(5, g=0)
    assert play.spool.holds(1, 3, 5), "what the lost store had is not what the centre has"
    play.ack(0, (1, 3, 5), g=7)
    assert not play.spool.holds(1, 3, 5)
    for old in (7, 6, 0):
        play.ack(2, g=old)
        assert play.pump() == [] and not play.spool.holds(1, 1, 5)


@pytest.mark.parametrize("g", [0, 3], ids=["put back by hand", "a new one"])
def test_a_centre_that_does_not_say_it_lost_rows_is_found_out_by_two_answers(play: Play, g: int) -> None:
    play.spool.add([alert(number) for number in range(1, 6)])
    play.online()
    play.pump()
    play.spool.resend(g + 1 if g else 0, 0)
    play.ack(5, g=play.spool.generation)
    play.delivery.offline()
    play.delivery.online(play.now)
    for _ in range(3):
        play.ack(2, g=g)
        assert not play.spool.holds(1, 1, 5), "an acknowledgement may be old"
    play.ack(2, nonce=play.ask(), g=g)
    assert not play.spool.holds(1, 1, 5), "workers of a centre may overtake each other"
    play.ack(2, nonce=play.ask(), g=g)
    assert play.pump() == [(1, 3, 5)]
    assert not play.delivery.wants_answer(play.now)


def test_an_answer_that_was_overtaken_sends_nothing_again(play: Play) -> None:
    play.spool.add([alert(number) for number in range(1, 6)])
    play.online()
    play.pump()
    play.ack(5)
    play.delivery.offline()
    play.delivery.online(play.now)
    play.answer(4)
    play.answer(5)
    assert play.pump() == [] and not play.delivery.wants_answer(play.now)


def test_the_window_is_bounded_and_reopens(play: Play) -> None:
    play.online()
    for number in range(WINDOW_BATCHES + 5):
        play.spool.add([alert(number)])
        play.pump()
    assert play.pump() == []
    play.ack(10)
    assert play.pump() == [(1, WINDOW_BATCHES + 1, WINDOW_BATCHES + 5)]


def test_a_backlog_goes_as_it_lies_packed_on_the_disk_and_within_the_window(play: Play) -> None:
    dice = random.Random(3)
    for _ in range(60):
        play.spool.add([Dns(at=NOW, name=f"{dice.getrandbits(120):x}.example") for _ in range(1000)])
        play.spool.tidy(play.delivery.reached, play.now)
    play.online()
    sizes, seen = [], []
    while publish := play.delivery.next(play.now, play.spool):
        sizes.append(len(publish.payload))
        seen += numbers(publish)
    assert seen == list(range(1, len(seen) + 1)) and len(seen) < 60_000
    assert max(sizes) <= BATCH_BYTES + 100
    share = WINDOW_BYTES // METADATA_SHARE
    assert share <= sum(sizes) <= share + BATCH_BYTES
    play.spool.add([alert(60_001)])
    assert play.pump() == [(1, 60_001, 60_001)], "an alert overtakes it"


@pytest.mark.protocol("P18")
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
    for step in range(700):
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
            got = numbers(publish)
            centre.update(got)
            if dice.random() < 0.6:
                play.ack(0, (publish.batch.lane, min(got), max(got)))
        play.spool.tidy(play.delivery.reached, play.now)
        if dice.random() < 0.05:
            play.delivery.offline()
            play.online()
        elif play.delivery.wants_answer(play.now):
            play.answer(next(n for n in range(number + 1) if n + 1 not in centre))
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
