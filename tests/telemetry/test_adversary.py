"""A broker that forgets, reorders, repeats and replays; a centre that is restored: nothing is lost."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from sekisho.center.ingest import make_ack, parse_batch
from sekisho.telemetry import blocks
from sekisho.telemetry.delivery import Delivery, parse_ack
from sekisho.telemetry.events import Alert, Dns, Event, Health
from sekisho.telemetry.spool import Spool
from sekisho.telemetry.spool_view import SpoolView

MB = 1 << 20
NOW = "2026-01-02T03:04:05.000006Z"


class Centre:
    """What a centre promises: a word only about what it stores."""

    def __init__(self) -> None:
        self.stored: set[int] = set()
        self.upto = 0
        self.generation = 0
        self.session = "a"
        self._backup: tuple[set[int], int] = (set(), 0)

    def batch(self, epoch: str, lane: int, payload: bytes) -> bytes:
        batch = parse_batch(lane, payload)
        assert batch.rejected == 0
        for row in batch.rows:
            self.stored.add(row.seq)
            self.stored |= {number for first, last in row.dropped for number in range(first, last + 1)}
        while self.upto + 1 in self.stored:
            self.upto += 1
        return make_ack(epoch, self.upto, [batch.run], self.session, generation=self.generation)

    def birth(self, epoch: str, nonce: str) -> bytes:
        return make_ack(epoch, self.upto, [], self.session, nonce, 1, self.generation)

    def back_up(self) -> None:
        self._backup = set(self.stored), self.upto

    def restore(self, *, by_hand: bool) -> None:
        self.stored, self.upto = set(self._backup[0]), self._backup[1]
        self.session += "r"
        self.generation += 0 if by_hand else 1


class World:
    """One box, one broker that does as it likes, one centre."""

    def __init__(self, path: Path, seed: int, evil: float) -> None:
        self.dice = random.Random(seed)
        self.evil = evil
        self.path = path
        self.spool = Spool.open(path, 64 * MB, NOW)
        self.delivery = Delivery(self.spool.epoch)
        self.centre = Centre()
        self.now = 0.0
        self._mid = 0
        self.up: list[tuple[int, bytes]] = []
        self.down: list[bytes] = []
        self._heard: list[bytes] = []

    def step(self) -> None:
        self.now += self.dice.uniform(0, 2)
        if self.delivery.wants_answer(self.now):
            nonce = f"n{self.dice.getrandbits(60)}"
            self.delivery.asked(nonce, self.now)
            self.up.append((-1, nonce.encode()))
        self.delivery.settle(self.now, self.spool)
        while publish := self.delivery.next(self.now, self.spool):
            self._mid += 1
            self.delivery.sent(publish, self._mid)
            self.delivery.pubacked(self._mid)
            self.up.append((publish.batch.lane, publish.payload))
        self.spool.tidy(self.delivery.reached, self.now)
        for _ in range(self.dice.randrange(4)):
            self._carry_up()
            self._carry_down()

    def _carry_up(self) -> None:
        if not self.up:
            return
        lane, payload = self.up.pop(self._which(len(self.up)))
        for _ in range(self._copies()):
            if lane < 0:
                self.down.append(self.centre.birth(self.spool.epoch, payload.decode()))
            else:
                self.down.append(self.centre.batch(self.spool.epoch, lane, payload))

    def _carry_down(self) -> None:
        if self.down:
            payload = self.down.pop(self._which(len(self.down)))
            self._heard.append(payload)
            for _ in range(self._copies()):
                self.delivery.acknowledged(parse_ack(payload), self.now)
        if self._heard and self.dice.random() < self.evil / 4:
            self.delivery.acknowledged(parse_ack(self.dice.choice(self._heard)), self.now)

    def _which(self, count: int) -> int:
        return self.dice.randrange(count) if self.dice.random() < self.evil else 0

    def _copies(self) -> int:
        return self.dice.choice((0, 0, 1, 2, 3)) if self.dice.random() < self.evil else 1

    def events(self) -> list[Event]:
        kinds: list[Event] = [Alert(at=NOW, sid=1), Dns(at=NOW, name="n"), Dns(at=NOW, name="m"), Health(at=NOW)]
        return self.dice.choices(kinds, k=self.dice.randrange(12))

    def waiting(self) -> set[int]:
        with closing(SpoolView(self.path)) as view:
            return {row.seq for row in view.pending()}

    def calm(self) -> None:
        """The broker behaves; in the end everything must be at the centre and nothing on the box."""
        self.evil = 0.0
        for _ in range(600):
            self.step()
            if not self.up and not self.waiting() and self.centre.upto == self.spool.next_seq() - 1:
                break
            if self.dice.random() < 0.02:
                self.delivery.offline()
                self.delivery.online(self.now)
        assert self.centre.stored >= set(range(1, self.spool.next_seq()))
        assert self.waiting() == set()
        self.spool.close()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "PACK_BEYOND", 20)
    monkeypatch.setattr(blocks, "BATCH_ROWS", 10)


@pytest.mark.parametrize("seed", range(4))
def test_the_box_forgets_no_row_that_the_centre_does_not_have(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path / "spool.db", seed, evil=0.5)
    world.delivery.online(0.0)
    for step in range(120):
        world.spool.add(world.events())
        world.step()
        if world.dice.random() < 0.05:
            world.delivery.offline()
            world.delivery.online(world.now)
        assert set(range(1, world.spool.next_seq())) - world.waiting() <= world.centre.stored, f"step {step}"
    world.calm()


@pytest.mark.parametrize("by_hand", [False, True], ids=["as documented", "by hand"])
@pytest.mark.parametrize("seed", range(3))
def test_a_centre_that_is_restored_again_and_again_ends_whole(tmp_path: Path, seed: int, by_hand: bool) -> None:
    world = World(tmp_path / "spool.db", seed, evil=0.3)
    world.delivery.online(0.0)
    for step in range(1, 120):
        world.spool.add(world.events())
        world.step()
        if step % 20 == 0:
            world.centre.back_up()
        if step % 35 == 0:
            world.centre.restore(by_hand=by_hand)
    world.calm()
