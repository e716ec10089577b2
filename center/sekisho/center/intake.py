"""A group of messages, judged and gathered per stream, then stored in one transaction. No broker in here.

Whatever brings the messages (MQTT, JetStream) gives them here and confirms them to its broker when `take` has
returned: what is on disk by then, or refused for good, need not come again. A message that fails in a way nobody
foresaw is set aside, alone, and the others are taken; its box is not told that it arrived, so nothing of it is lost.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.center import belonging, ingest, refused
from sekisho.center.database import Unstorable
from sekisho.center.ingest import Topic
from sekisho.center.refused import Kind, Refusal
from sekisho.center.store import Arrival, BoxState, NewRow, Store
from sekisho.telemetry import events

WORK_SIZE = 20_000
"""Rows, runs they declare as dropped, and KiB that are judged before they are stored: a transaction's time and memory
are bounded, whatever a group's messages expand to."""

log = logging.getLogger(__name__)

Key = tuple[str, str, str]
"""Tenant, box, epoch."""


@dataclass(frozen=True)
class Message:
    """One message as the broker gave it."""

    topic: str
    payload: bytes


@dataclass(frozen=True)
class Answer:
    """What a box is to be told: its acknowledgement without the session."""

    key: Key
    upto: int
    runs: list[tuple[int, int, int]]
    nonce: str = ""
    generation: int = 0


@dataclass
class _Work:
    """What some messages ask for."""

    messages: list[Message] = field(default_factory=list)
    rows: dict[Key, list[NewRow]] = field(default_factory=dict)
    runs: dict[Key, list[tuple[int, int, int]]] = field(default_factory=dict)
    nonces: dict[Key, str] = field(default_factory=dict)
    states: list[BoxState] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    aside: list[tuple[Message, Exception]] = field(default_factory=list)
    size: int = 0
    """Against `WORK_SIZE`."""

    def leave_out(self, box: str, tenant: str) -> None:
        """Forget what this box asked for under this tenant."""
        for kept in (self.rows, self.runs, self.nonces):
            for key in [key for key in kept if key[:2] == (tenant, box)]:
                del kept[key]
        self.states = [state for state in self.states if (state.tenant, state.box) != (tenant, box)]


def take(store: Store, group: Sequence[Message], now: str, alive: Callable[[], None] = lambda: None) -> list[Answer]:
    """Store a group; returns what to answer, now that it is durable. Calls `alive` before each of its transactions.

    Raises:
        DeviceFault: the database refused; the same group is to be taken again, repeating what was stored of it.

    """
    answers: list[Answer] = []
    work = _Work()
    for message in group:
        _judge(message, work, now)
        if work.size >= WORK_SIZE:
            answers += _store(store, work, now, alive)
            work = _Work()
    return answers + _store(store, work, now, alive)


def _store(store: Store, work: _Work, now: str, alive: Callable[[], None]) -> list[Answer]:
    alive()
    try:
        return _commit(store, work, now)
    except (RejectedInput, Unstorable) as err:
        return _one_by_one(store, work, now, err, alive)
    except DeviceFault:
        raise
    except Exception as err:  # noqa: BLE001 - one message nobody foresaw must not stop everybody's
        return _one_by_one(store, work, now, err, alive)


def _one_by_one(store: Store, work: _Work, now: str, err: Exception, alive: Callable[[], None]) -> list[Answer]:
    if len(work.messages) == 1:
        (message,) = work.messages
        if isinstance(err, RejectedInput):
            refusal = Refusal("batch", ingest.box_of(message.topic), str(err))
            return _commit(store, _Work(refusals=[refusal]), now)
        return _commit(store, _Work(aside=[(message, err)]), now)
    return [answer for message in work.messages for answer in take(store, [message], now, alive)]


def _commit(store: Store, work: _Work, now: str) -> list[Answer]:
    with store.transaction() as db:
        claims = {(key[1], key[0]) for key in work.runs} | {(state.box, state.tenant) for state in work.states}
        for box, tenant in belonging.strangers(db, claims):
            work.leave_out(box, tenant)
            work.refusals.append(Refusal("tenant", box, f"{box} does not speak for {tenant}."))
        arrivals = [Arrival(*key, rows) for key, rows in work.rows.items()]
        if arrivals:
            store.add_all(arrivals, now)
        store.set_states(sorted(work.states, key=lambda state: state.box))
        for message, error in work.aside:
            refused.set_aside(db, message.topic, message.payload, error, now)
            work.refusals.append(Refusal("aside", ingest.box_of(message.topic), type(error).__name__))
        counted = refused.count(db, work.refusals, now)
        upto = store.uptos({key[1:] for key in work.runs})
        ahead = store.ahead({key[1:] for key in work.nonces})
        for key in work.nonces:
            # A box that asks is told all we have of it, so that it repeats nothing else.
            work.runs[key] += [
                (lane, first, last) for first, last in ahead.get(key[1:], ()) for lane in range(events.LANES)
            ]
    for message, error in work.aside:
        log.error("set aside a message on %r that nobody foresaw: %s", message.topic[:200], _place(error))
    for refusal in counted:
        log.warning("refused %d of %s (%s): %s", refusal.count, refusal.box, refusal.kind, refusal.reason)
    generation = store.generation
    return [Answer(key, upto[key[1:]], runs, work.nonces.get(key, ""), generation) for key, runs in work.runs.items()]


def _judge(message: Message, work: _Work, now: str) -> None:
    work.messages.append(message)
    kind: Kind = "topic"
    box = ""
    try:
        topic = ingest.parse_topic(message.topic)
        box = topic.box
        kind = "state" if topic.lane is None else "batch"
        if topic.lane is None:
            _judge_state(topic, message, work, now)
        else:
            _judge_batch(topic, topic.lane, message, work)
    except RejectedInput as err:
        work.refusals.append(Refusal(kind, box, str(err)))
    except Exception as err:  # noqa: BLE001 - see the module's promise
        work.aside.append((message, err))


def _place(error: Exception) -> str:
    """What and where it was, without its text: that may repeat what the message said."""
    where = traceback.extract_tb(error.__traceback__)[-1:]
    return " ".join([type(error).__name__, *(f"in {frame.filename}:{frame.lineno}" for frame in where)])


def _judge_state(topic: Topic, message: Message, work: _Work, now: str) -> None:
    state = ingest.parse_state(message.payload)
    work.states.append(BoxState(topic.box, topic.tenant, state.st, state.bd, state.epoch, state.next, now))
    if state.st == "on":
        # A box that has just connected waits for our word. A retained birth too: the broker may have kept nothing
        # else for us, and an answer to a question that is long answered does nothing.
        key = (topic.tenant, topic.box, state.epoch)
        work.runs.setdefault(key, [])
        work.nonces[key] = state.n


def _judge_batch(topic: Topic, lane: int, message: Message, work: _Work) -> None:
    batch = ingest.parse_batch(lane, message.payload)
    if batch.rejected:
        work.refusals.append(Refusal("rows", topic.box, "Rows of a batch were no events.", batch.rejected))
    key = (topic.tenant, topic.box, batch.epoch)
    work.rows.setdefault(key, []).extend(batch.rows)
    work.runs.setdefault(key, []).append(batch.run)
    work.size += sum(1 + len(row.dropped) + (len(row.body) >> 10) for row in batch.rows)
