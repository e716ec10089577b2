"""The table of states is what boxes said: the greatest number, an end for ever, no word about another's message."""

from __future__ import annotations

import datetime as dt
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
from sekisho.center.jobs import book
from sekisho.center.jobs.tables import JOB as TABLE
from sekisho.center.jobs.tables import JOB_BOX
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


def sent(db: sa.Connection, *names: str) -> None:
    fresh = {"held": 0, "tries": 1, "sent_at": AT, "birth": 0, "next_at": 0}
    db.execute(JOB_BOX.insert(), [{"job": name, "box": "box-1", "tenant": "t1", **fresh} for name in names])


def said(database: Database, words: Sequence[Job]) -> tuple[int, str, str]:
    """What is kept after these words; nothing of it stays."""
    with database.reading() as db:
        sent(db, JOB)
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


def test_words_about_jobs_the_centre_did_not_send_fill_no_table_and_hide_none_that_it_did(database: Database) -> None:
    with database.transaction() as db:
        sent(db, JOB, *(many := [ident() for _ in range(1100)]))
        invented = [Job(at=AT, id=ident(), ver=number % 2, why="signature") for number in range(1100)]
        view.take(db, [row(word, number) for number, word in enumerate(invented)])
        view.take(db, [row(Job(at=AT, id="../../etc", ver=1)), row(Job(at=AT, id=JOB, ver=1), box="box-2")])
        view.take(db, [row(Job(at=AT, id=one, ver=3, state="SUCCEEDED")) for one in many])
        view.take(db, [row(Job(at=AT, id=JOB, ver=3, state="SUCCEEDED"))])
        assert set(db.scalars(sa.select(JOB_STATE.c.job))) == {JOB, *many}


def test_fifty_jobs_a_broker_does_not_confirm_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each on its own they would outlast the watchdog."""
    monkeypatch.setattr(mqtt, "CONFIRM_S", 0.2)
    began = time.monotonic()
    assert mqtt.wait_for([paho.MQTTMessageInfo(number) for number in range(50)]) == [False] * 50
    assert time.monotonic() - began < 5


def test_a_box_that_does_not_come_back_from_its_restart_is_told_long_before_the_job_is_over(database: Database) -> None:
    """While it waits for a person the job's own end counts; once it restarts, an hour."""
    received = dt.datetime.fromisoformat(AT).timestamp()
    exp = int(received) + 30 * 86_400
    values = {"nbf": 0, "exp": exp, "rollout": "", "signers": "", "at": AT, "author": ""}
    with database.transaction() as db:
        db.execute(TABLE.insert().values(id=JOB, envelope=b"", kind="reboot", **values))
        sent(db, JOB)

    def shown(word: Job, after_s: float) -> tuple[str, str]:
        with database.transaction() as db:
            view.take(db, [row(word, word.ver)])
        with database.reading() as db:
            found = book.states(db, JOB, received + after_s)["box-1"]
        return found.state, found.why

    waits = Job(at=AT, id=JOB, ver=3, state="WAITING", kind="reboot", why="customer")
    assert shown(waits, 20 * 86_400) == ("WAITING", "customer")
    goes = Job(at=AT, id=JOB, ver=4, state="RUNNING", kind="reboot", step="restarting")
    assert shown(goes, 3000) == ("RUNNING", "")
    assert shown(goes, 3600 + book.GRACE_S + 1) == ("TIMED_OUT", "silent")
    back = Job(at=AT, id=JOB, ver=5, state="SUCCEEDED", kind="reboot")
    assert shown(back, 20 * 86_400) == ("SUCCEEDED", ""), "its own word takes the place of the centre's"


@pytest.mark.parametrize(
    ("why", "step", "begun"),
    [("memory", "installing", True), ("disk", "downloading", True), ("network", "", True), ("turn", "asked", True),
     ("turn", "", False), ("not_staged", "", False), ("customer", "staged", False)],
)  # fmt: skip
def test_what_has_begun_and_waits_is_not_called_silent_before_its_box_would_end_it(
    database: Database, why: str, step: str, begun: bool
) -> None:
    received = dt.datetime.fromisoformat(AT).timestamp()
    exp = int(received) + 600
    values = {"nbf": 0, "exp": exp, "rollout": "", "signers": "", "at": AT, "author": ""}
    word = Job(at=AT, id=JOB, ver=4, state="WAITING", kind="sig.rollback", why=why, step=step)
    with database.transaction() as db:
        db.execute(TABLE.insert().values(id=JOB, envelope=b"", kind="sig.rollback", **values))
        sent(db, JOB)
        view.take(db, [row(word)])
        shown = [book.states(db, JOB, exp + later)["box-1"].why for later in (0, book.GRACE_S + 1, 3600, 3700)]
    assert shown == [why, *([why, why] if begun else ["silent", "silent"]), "silent"]
