"""What a broker sends faster than it is looked at is bounded in memory, and the session's own facts are never lost."""

from __future__ import annotations

from queue import Empty

import pytest

from sekisho.telemetry.connection import WAITING_CAP, AckArrived, BrokerHas, Disconnected, Facts, JobArrived

LARGE = JobArrived("x", bytes(256 << 10))


def test_messages_that_nobody_looks_at_are_lost_beyond_a_cap_and_the_sessions_own_facts_are_not() -> None:
    facts = Facts()
    for _ in range(1000):
        facts.put(LARGE)
    held = facts.qsize()
    assert 10 < held * len(LARGE.payload) <= WAITING_CAP
    for _ in range(100_000):
        facts.put(AckArrived(b""))
    assert facts.qsize() < held + WAITING_CAP / 500, "empty ones take memory, too"
    before = facts.qsize()
    facts.put(BrokerHas(7))
    facts.put(Disconnected(1, "over"))
    assert facts.qsize() == before + 2
    for _ in range(before):
        facts.get(timeout=0)
    assert [facts.get_nowait(), facts.get_nowait()] == [BrokerHas(7), Disconnected(1, "over")]
    with pytest.raises(Empty):
        facts.get_nowait()
    facts.put(LARGE)
    assert facts.get() == LARGE, "what was taken makes room"
