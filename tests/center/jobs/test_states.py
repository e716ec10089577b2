"""The table of states is what boxes said: the greatest number, an end for ever, no word about another's message."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import paho.mqtt.client as paho
import pytest
import sqlalchemy as sa
from signing import ident

from sekisho.center import mqtt
from sekisho.center.database import Database
from sekisho.center.views import jobs as view
from sekisho.center.views.jobs import JOB_STATE
from sekisho.center.views.model import Row
from sekisho.telemetry.events import Job

AT = "2026-01-02T03:04:05.000006Z"
JOB = ident(0)


def row(event: Job, number: int = 1, box: str = "box-1") -> Row:
    return Row("t1", box, "0" * 16, number, event.at, AT, "job", event, False, number)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(str(tmp_path / "events.db"))
    yield made
    made.close()


def said(database: Database, words: Sequence[Job]) -> tuple[int, str, str]:
    """What is kept after these words; nothing of it stays."""
    with database.reading() as db:
        for number, word in enumerate(words):
            view.take(db, [row(word, number)])
        found = db.execute(sa.select(JOB_STATE)).first()
        assert found is not None
        return found.ver, found.state, found.refused


@pytest.mark.protocol("P57")
def test_whatever_the_order_the_greatest_number_is_the_truth(database: Database) -> None:
    words = [
        Job(at=AT, id=JOB, ver=1, state="RECEIVED"), Job(at=AT, id=JOB, ver=2, state="RUNNING"),
        Job(at=AT, id=JOB, ver=3, state="FAILED"), Job(at=AT, id=JOB, ver=0, state="REJECTED", why="signature"),
    ]  # fmt: skip
    for some in itertools.permutations(words):
        assert said(database, some) == (3, "FAILED", "signature")


@pytest.mark.protocol("P57")
def test_an_end_is_for_ever(database: Database) -> None:
    words = [Job(at=AT, id=JOB, ver=3, state="SUCCEEDED"), Job(at=AT, id=JOB, ver=9, state="RUNNING")]
    assert said(database, words)[:2] == (3, "SUCCEEDED")


def test_a_box_that_invents_jobs_fills_no_table(database: Database) -> None:
    with database.transaction() as db:
        view.take(db, [row(Job(at=AT, id=ident(), ver=1), n) for n in range(view.NEW_CAP + 50)])
        view.take(db, [row(Job(at=AT, id="../../etc", ver=1)), row(Job(at=AT, id=JOB, ver=1), box="box-2")])
        count = sa.select(JOB_STATE.c.box, sa.func.count()).group_by(JOB_STATE.c.box)
        assert dict(db.execute(count).all()) == {"box-1": view.NEW_CAP, "box-2": 1}


def test_fifty_jobs_a_broker_does_not_confirm_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each on its own they would outlast the watchdog."""
    monkeypatch.setattr(mqtt, "CONFIRM_S", 0.2)
    began = time.monotonic()
    assert mqtt.wait_for([paho.MQTTMessageInfo(number) for number in range(50)]) == [False] * 50
    assert time.monotonic() - began < 5
