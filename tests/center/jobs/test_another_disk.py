"""A box that was enrolled by a code may have another disk: its jobs begin anew, and what is done stays done."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from signing import job, signed

from sekisho.appliance.core import utc
from sekisho.appliance.core.jobs import State
from sekisho.center import pki
from sekisho.center.ca import coding
from sekisho.center.ca.granting import Granting
from sekisho.center.ca.tables import CERTIFICATE
from sekisho.center.database import Database
from sekisho.center.jobs import book
from sekisho.center.jobs.__main__ import NEVER_AGAIN, due, settle
from sekisho.center.jobs.tables import JOB_BOX
from sekisho.center.store import BOX
from sekisho.center.views import jobs as view
from sekisho.center.views.jobs import JOB_STATE
from sekisho.center.views.model import Row
from sekisho.telemetry import events
from sekisho.telemetry.enrolment.wire import RENEWAL_CONTEXT, EnrolAsk, RenewAsk

HOUR = dt.timedelta(hours=1)


class Centre:
    """A CA and a book of jobs over one database, and what one box has told it."""

    def __init__(self, url: str, root: Path) -> None:
        self.database, self.ca, self.now = Database(url), pki.create_ca(root), dt.datetime.now(dt.UTC)
        self.granting = Granting(pki.load_ca(root), 90 * 24 * HOUR, 90 * 24 * HOUR)
        self.told: list[Row] = []
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.enrol()

    def enrol(self) -> None:
        self.now += HOUR
        self.key = ec.generate_private_key(ec.SECP256R1())
        with self.database.transaction() as db:
            secret = coding.make(db, self.ca, "box-1", "t1", "operator", self.now, HOUR).secret
            self.granting.grant(db, EnrolAsk(secret.hex(), _pem(self._csr(self.key))), "203.0.113.1", self.now)

    def renew(self) -> None:
        self.now += 30 * 24 * HOUR
        csr = self._csr(ec.generate_private_key(ec.SECP256R1()))
        proof = self.key.sign(RENEWAL_CONTEXT + csr.public_bytes(Encoding.DER), ec.ECDSA(hashes.SHA256())).hex()
        with self.database.transaction() as db:
            serial = db.scalars(sa.select(CERTIFICATE.c.serial).order_by(CERTIFICATE.c.issued_at.desc())).first()
            self.granting.grant(db, RenewAsk(str(serial), _pem(csr), proof), "203.0.113.1", self.now)

    def _csr(self, key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
        return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())

    def submit(self, kind: str, **args: str) -> str:
        now = int(time.time())
        with self.database.transaction() as db:
            made = book.submit(db, signed(job(kind, nbf=now - 60, exp=now + 80 * 86_400, args=args)))
            db.execute(JOB_BOX.update().values(birth=7, next_at=now + 10**6, tries=5))
        return made.id

    def say(self, ident: str, ver: int, state: State, kind: str = "fw.activate", why: str = "", step: str = "") -> None:
        self.now += HOUR / 60
        event = events.Job(at=utc.text(self.now), id=ident, ver=ver, state=state, kind=kind, why=why, step=step)
        self.told.append(Row("t1", "box-1", "0" * 16, 1, event.at, event.at, "job", event, False, len(self.told)))
        with self.database.transaction() as db:
            view.take(db, self.told[-1:])

    def state(self, ident: str) -> tuple[str, int]:
        with self.database.reading() as db:
            found = book.states(db, ident, time.time())["box-1"]
        return found.state, found.ver

    def due(self) -> set[str]:
        with self.database.reading() as db:
            return {row.id for row in db.execute(due(int(time.time())))}


def _pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(Encoding.PEM).decode()


@pytest.fixture
def centre(store_url: str, tmp_path: Path) -> Iterator[Centre]:
    made = Centre(store_url, tmp_path / "ca")
    with closing(made.database):
        yield made


@pytest.mark.protocol("P56")
@pytest.mark.protocol("P57")
def test_a_box_on_another_disk_is_believed_from_its_first_word(centre: Centre) -> None:
    stage, activate = centre.submit("fw.stage", counter="7"), centre.submit("fw.activate", counter="7")
    centre.say(stage, 9, "SUCCEEDED", "fw.stage")
    centre.say(activate, 6, "RUNNING", step="trial")
    assert centre.due() == set()
    centre.enrol()
    assert centre.due() == {stage, activate}, "the release was on the disk that is gone"
    centre.say(activate, 3, "WAITING", why="not_staged")
    assert centre.state(activate) == ("WAITING", 3)
    centre.say(stage, 4, "SUCCEEDED", "fw.stage")
    centre.say(activate, 5, "FAILED", why="gate:dns")
    assert (centre.state(stage), centre.state(activate)) == (("SUCCEEDED", 4), ("FAILED", 5))
    centre.say(activate, 9, "RUNNING", step="trial")
    assert centre.state(activate) == ("FAILED", 5), "an end on this disk is for ever"
    with centre.database.transaction() as db:  # as `rebuild` does it
        db.execute(JOB_STATE.delete())
        view.take(db, centre.told)
    assert (centre.state(stage), centre.state(activate)) == (("SUCCEEDED", 4), ("FAILED", 5))


@pytest.mark.parametrize(
    "kind", ["fw.activate", "fw.stage", "reboot", "engine.restart", "sig.update", "support.open", "job.cancel"]
)
def test_what_had_ended_is_not_done_again_on_another_disk(centre: Centre, kind: str) -> None:
    ended = centre.submit(kind, **({"job": "0" * 26} if kind == "job.cancel" else {}))
    centre.say(ended, 4, "SUCCEEDED", kind)
    centre.enrol()
    assert centre.due() == set() and centre.state(ended) == ("SUCCEEDED", 4)
    with centre.database.transaction() as db:
        db.execute(BOX.insert().values(box="box-1", tenant="t1", state="on", birth=9, epoch="", next=1, changed_at=""))
    assert centre.due() == set()


def test_what_was_taken_back_is_taken_back_on_another_disk_too(centre: Centre) -> None:
    """The old one had begun, and did not come back from it; the new one is not to begin."""
    activate = centre.submit("fw.activate", counter="7")
    centre.say(activate, 6, "RUNNING", step="trial")
    cancel = centre.submit("job.cancel", job=activate)
    centre.say(cancel, 3, "FAILED", "job.cancel", why="too_late")
    centre.enrol()
    assert centre.due() == {activate, cancel}
    centre.say(activate, 1, "RECEIVED")
    centre.say(cancel, 2, "SUCCEEDED", "job.cancel")
    centre.say(activate, 2, "CANCELED")
    assert (centre.state(activate), centre.state(cancel)) == (("CANCELED", 2), ("SUCCEEDED", 2))


def test_a_renewal_is_no_other_disk(centre: Centre) -> None:
    activate = centre.submit("fw.activate", counter="7")
    centre.say(activate, 6, "RUNNING", step="trial")
    centre.renew()
    assert centre.due() == set() and centre.state(activate) == ("RUNNING", 6)
    centre.say(activate, 3, "WAITING")
    assert centre.state(activate) == ("RUNNING", 6)


def test_what_ended_is_put_aside_and_is_found_again_for_another_disk(centre: Centre) -> None:
    """Else each look at what is due comes upon every job there ever was."""
    stage, activate = centre.submit("fw.stage", counter="7"), centre.submit("fw.activate", counter="7")
    centre.say(stage, 4, "SUCCEEDED", "fw.stage")
    centre.say(activate, 2, "WAITING", why="customer")

    def aside(after_s: float = 0) -> set[str]:
        with centre.database.transaction() as db:
            settle(db, int(time.time() + after_s))
            return set(db.scalars(sa.select(JOB_BOX.c.job).where(JOB_BOX.c.next_at == NEVER_AGAIN)))

    assert aside() == {stage}
    centre.enrol()
    assert aside() == set() and centre.due() == {stage, activate}
    assert aside(90 * 86_400) == set(), "the clock may be wrong"
    assert aside(180 * 86_400) == {stage, activate}
