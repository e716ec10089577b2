"""A group of messages, judged and gathered per stream, then stored in one transaction. No broker in here.

Whatever brings the messages (MQTT, JetStream) gives them here and confirms them to its broker when `take` has
returned: what is on disk by then, or refused for good, need not come again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import ingest
from sekisho.center.store import Arrival, BoxState, NewRow, Store

log = logging.getLogger(__name__)

Key = tuple[str, str, str]
"""Tenant, box, epoch."""


@dataclass(frozen=True)
class Message:
    """One message as the broker gave it."""

    topic: str
    payload: bytes
    retained: bool = False
    """Kept by the broker from before we subscribed."""


@dataclass(frozen=True)
class Answer:
    """What a box is to be told: its acknowledgement without the session."""

    key: Key
    upto: int
    runs: list[tuple[int, int, int]]
    nonce: str


@dataclass
class _Work:
    """What a group asks for."""

    rows: dict[Key, list[NewRow]] = field(default_factory=dict)
    runs: dict[Key, list[tuple[int, int, int]]] = field(default_factory=dict)
    nonces: dict[Key, str] = field(default_factory=dict)
    states: list[BoxState] = field(default_factory=list)


def take(store: Store, group: Sequence[Message], now: str) -> list[Answer]:
    """Store a group in one transaction; returns what to answer, now that it is durable.

    Raises:
        DeviceFault: the database refused; nothing was stored, the same group is to be taken again.

    """
    work = _Work()
    for message in group:
        try:
            _judge(message, work, now)
        except RejectedInput as err:
            log.warning("%s: %s", message.topic[:200], err)
    with store.transaction():
        arrivals = [Arrival(*key, rows) for key, rows in work.rows.items()]
        if arrivals:
            store.add_all(arrivals, now)
        for state in work.states:
            store.set_state(state)
        upto = {key: store.upto(key[1], key[2]) for key in work.runs}
    return [Answer(key, upto[key], runs, work.nonces.get(key, "")) for key, runs in work.runs.items()]


def _judge(message: Message, work: _Work, now: str) -> None:
    topic = ingest.parse_topic(message.topic)
    if topic.lane is None:
        state = ingest.parse_state(message.payload)
        work.states.append(BoxState(topic.box, topic.tenant, state.st, state.bd, state.epoch, state.next, now))
        if state.st == "on" and not message.retained:
            # A box that has just connected waits for our word before it repeats anything.
            key = (topic.tenant, topic.box, state.epoch)
            work.runs.setdefault(key, [])
            work.nonces[key] = state.n
        return
    batch = ingest.parse_batch(topic.lane, message.payload)
    if batch.rejected:
        log.warning("%s: %d rows were no events", message.topic, batch.rejected)
    key = (topic.tenant, topic.box, batch.epoch)
    work.rows.setdefault(key, []).extend(batch.rows)
    work.runs.setdefault(key, []).append(batch.run)
