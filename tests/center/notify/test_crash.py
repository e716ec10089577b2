"""Killed between any two steps on the way of a mail: planned, claimed, sent, noted. It arrives, and under one name."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from post_office import MailServer, Office, alert, parse

from sekisho.center.database import Database
from sekisho.center.notify import notices, queue
from sekisho.center.notify.sender import Sender
from sekisho.center.notify.smtp import Relay

STEPS = 8
"""Before and after: the plan's commit, the claim's, the mail server, the note's commit."""


class Killed(BaseException):
    """As kill -9 ends it: nothing catches this."""


class Fate:
    """Lets a process die before step `at`; it counts the steps of all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at, self.steps = -1, 0
        transaction, send = Database.transaction, Relay.send
        fate = self

        @contextmanager
        def dying(database: Database) -> Iterator[sa.Connection]:
            with transaction(database) as db:
                yield db
                fate.step()
            fate.step()

        def sending(relay: Relay, recipient: str, message: bytes) -> str:
            fate.step()
            reply = send(relay, recipient, message)
            fate.step()
            return reply

        monkeypatch.setattr(Database, "transaction", dying)
        monkeypatch.setattr(Relay, "send", sending)

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise Killed


def run(office: Office, now: dt.datetime) -> None:
    """One process: plan what is new, send what is due."""
    sender = Sender(office.config(), office.url, lambda: now)
    try:
        notices.plan(office.database, now)
        while sender.step():
            pass
    finally:
        sender._relay.close()


def test_killed_before_every_step_it_still_arrives_and_at_most_twice(
    office: Office, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.tenant(mails_per_hour=60)
    now = dt.datetime.now(dt.UTC)
    run(office, now)
    twice = 0
    for step in range(1, STEPS + 2):
        office.add(alert(step))
        before = len(server.mails)
        with monkeypatch.context() as patch:
            fate = Fate(patch)
            fate.at = step
            if step <= STEPS:
                with pytest.raises(Killed):
                    run(office, now)
            else:
                run(office, now)
                assert fate.steps == STEPS, "a step was added or is gone"
        now += dt.timedelta(seconds=queue.LEASE_S + 1)
        run(office, now)
        arrived = server.mails[before:]
        assert 1 <= len(arrived) <= 2
        assert len({parse(raw)["Message-ID"] for _, raw in arrived}) == 1
        twice += len(arrived) == 2
    assert {mail.state for mail in office.mails()} == {"sent"}
    assert twice == 2, "only between the server's yes and our note of it"
