"""The staff's page of jobs: what was signed is taken, what boxes say is shown, nobody else sees it."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import get_args

import pytest
from office import Office

from sekisho.appliance.core.jobs import Kind, State
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.jobs import book
from sekisho.center.portal import audit
from sekisho.center.portal.words import catalogue
from sekisho.center.scope import EVERYONE
from sekisho.center.views import jobs as view
from sekisho.center.views.model import Row
from sekisho.telemetry.events import Job

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs" / "drive"))


@pytest.fixture
def signed_job(office: Office) -> tuple[str, str]:
    """(name, envelope) of a job for one box of the fleet."""
    from signing import job, signed

    with office.store.transaction() as db:
        db.execute(BOX_IDENTITY.insert().values(box="jobs-box", tenant="t-jobs", state="active", changed_at=""))
    now = int(time.time())
    made = job("sig.update", boxes=["jobs-box"], nbf=now - 1, exp=now + 3600)
    return made.id, signed(made).decode()


def test_what_is_signed_is_taken_and_what_the_box_says_is_shown(office: Office, signed_job: tuple[str, str]) -> None:
    ident, envelope = signed_job
    staff = office.client("operator")
    assert staff.submit("/fleet/jobs", envelope="{}").status_code == 400
    assert staff.submit("/fleet/jobs", envelope=envelope).status_code == 303
    page = staff.get("/fleet/jobs").text
    assert ident in page and "tanaka" in page
    event = Job(at="2026-01-02T03:04:05.000006Z", id=ident, ver=3, state="WAITING", why="customer", signers=["tanaka"])
    with office.store.transaction() as db:
        view.take(db, [Row("t-jobs", "jobs-box", "0" * 16, 1, event.at, event.at, "job", event, False, 1)])
    page = staff.get("/fleet/jobs", params={"job": ident}).text
    assert "jobs-box" in page and "customer" in page and "待機中" in page
    assert staff.submit("/fleet/jobs/stop", job=ident).status_code == 303
    assert staff.get("/fleet/jobs", params={"job": "01JD3Z9V7M2Q4W8X6Y5T3R1P0N"}).status_code == 404
    with office.store.database.reading() as db:
        noted = [(row.action, ident in row.about) for row in audit.of(db, EVERYONE)]
        assert noted[:2] == [("job.stop", True), ("job.submit", True)]
        assert book.states(db, ident)["jobs-box"].state == "WAITING"


def test_the_page_is_the_staffs_alone(office: Office) -> None:
    assert office.client("admin").get("/fleet/jobs").status_code == 403


def test_every_kind_and_state_has_its_words() -> None:
    text = catalogue()
    for kind in get_args(Kind):
        assert text.say("ja", "jobs", f"k_{kind.replace('.', '_')}")
    for state in (*get_args(State), "HELD", "WAITS", "SENT"):
        assert re.search("[a-z]", text.say("en", "jobs", f"s_{state}"))
