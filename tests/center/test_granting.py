"""Who gets a certificate, decided in the database: on both back ends, also when many ask at once."""

from __future__ import annotations

import datetime as dt
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from sekisho.center import pki
from sekisho.center.ca import coding, history, registry, revoking, tables, times
from sekisho.center.ca.granting import Granting, Refused
from sekisho.center.ca.times import text
from sekisho.center.database import Database
from sekisho.center.refused import REFUSED
from sekisho.telemetry.enrolment.wire import RENEWAL_CONTEXT, EnrolAsk, RenewAsk

DAY = dt.timedelta(days=1)
NOW = dt.datetime(2026, 5, 6, 7, 8, 9, tzinfo=dt.UTC)


class Office:
    """A CA over one database, whose clock the test holds."""

    def __init__(self, url: str, root: Path) -> None:
        self.database, self.ca = Database(url), pki.create_ca(root)
        self.granting = Granting(pki.load_ca(root), 90 * DAY, 400 * DAY)

    def code(self, box: str, tenant: str = "t1", now: dt.datetime = NOW) -> bytes:
        with self.database.transaction() as db:
            return coding.make(db, self.ca, box, tenant, "operator", now, 7 * DAY).secret

    def ask(self, ask: EnrolAsk | RenewAsk, now: dt.datetime) -> str:
        """The outcome: a serial, or why not."""
        with self.database.transaction() as db:
            try:
                return str(self.granting.grant(db, ask, "203.0.113.1", now).serial)
            except Refused as err:
                return err.outcome

    def enrol(self, secret: bytes, key: ec.EllipticCurvePrivateKey | None = None, now: dt.datetime = NOW) -> str:
        return self.ask(EnrolAsk(secret.hex(), _csr(key or _key()).public_bytes(Encoding.PEM).decode()), now)

    def renew(self, serial: str, old: ec.EllipticCurvePrivateKey, now: dt.datetime) -> str:
        csr = _csr(_key())
        proof = old.sign(RENEWAL_CONTEXT + csr.public_bytes(Encoding.DER), ec.ECDSA(hashes.SHA256())).hex()
        return self.ask(RenewAsk(serial, csr.public_bytes(Encoding.PEM).decode(), proof), now)


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _csr(key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())


@pytest.fixture
def office(store_url: str, tmp_path: Path) -> Office:
    return Office(store_url, tmp_path / "ca")


def test_a_code_from_before_names_were_reserved_makes_no_service(office: Office) -> None:
    secret = office.code("box-1")
    with office.database.transaction() as db:
        for table in (tables.ENROL_CODE, tables.BOX_IDENTITY):
            db.execute(table.update().values(box="center-2"))
    assert office.enrol(secret) == "a service's name"
    with office.database.reading() as db:
        assert registry.identities(db, ["center-2"])["center-2"].state == "expected"


def test_of_many_at_once_one_gets_it(office: Office) -> None:
    secret, outcomes = office.code("box-1"), list[str]()
    start = threading.Barrier(6)

    def ask() -> None:
        start.wait()
        outcomes.append(office.enrol(secret))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes)[-5:] == ["used code"] * 5
    with office.database.reading() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(tables.CERTIFICATE)) == 1
        assert registry.identities(db, ["box-1"])["box-1"].may_speak_for("t1")


def test_of_two_renewals_at_once_with_copies_of_a_key_one_gets_it(office: Office) -> None:
    key, outcomes = _key(), list[str]()
    serial = office.enrol(office.code("box-1"), key)
    later, start = times.now() + 60 * DAY, threading.Barrier(4)

    def ask() -> None:
        start.wait()
        outcomes.append(office.renew(serial, key, later))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes)[-3:] == ["renewed before"] * 3


@pytest.mark.protocol("P31")
def test_a_code_ends_to_the_second_and_every_attempt_is_kept(office: Office) -> None:
    secret = office.code("box-1")
    assert office.enrol(secret, now=NOW + 7 * DAY) == "expired code"
    assert office.enrol(bytes(10)) == "unknown code"
    assert office.ask(EnrolAsk(secret.hex(), "no request"), NOW) == "bad request"
    serial = office.enrol(secret, now=NOW + 7 * DAY - dt.timedelta(seconds=1))
    with office.database.reading() as db:
        tried = list(history.attempts(db, "", 10))
        (given,) = history.certificates(db, history.Search(serial=f"{serial[:2]}:{serial[2:9]}"), times.now(), 10)
    assert [one.outcome for one in tried] == ["granted", "bad request", "unknown code", "expired code"]
    assert {one.source for one in tried} == {"203.0.113.1"}
    assert (given.box, given.how, given.by) == ("box-1", "code", "operator")


def test_attempts_are_bounded(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sekisho.center.ca.granting.ATTEMPTS_KEPT", 50)
    for _ in range(205):
        office.enrol(bytes(10))
    with office.database.reading() as db:
        assert 50 <= (db.scalar(sa.select(sa.func.count()).select_from(tables.ATTEMPT)) or 0) <= 150


def test_search_by_tenant_box_and_end(office: Office) -> None:
    now = times.now()
    for box, tenant in (("a", "t1"), ("b", "t1"), ("c", "t2")):
        office.enrol(office.code(box, tenant))

    def found(**search: object) -> list[str]:
        with office.database.reading() as db:
            return sorted(one.box for one in history.certificates(db, history.Search(**search), now, 10))  # type: ignore[arg-type]  # fields of the search

    assert found(tenant="t1") == ["a", "b"]
    assert found(box="c") == ["c"]
    assert found(box="c", tenant="t1") == []
    assert found(expiring_by=now + 91 * DAY) == ["a", "b", "c"]
    assert found(expiring_by=now + 89 * DAY) == []
    assert found(serial="%") == []


def test_revoking_takes_everything_and_is_due_until_it_is_carried_out(office: Office) -> None:
    key, now = _key(), times.now()
    serial, spare = office.enrol(office.code("a", now=now), key, now), office.code("a", now=now)
    other = office.enrol(office.code("b", now=now), now=now)
    with office.database.transaction() as db:
        assert revoking.revoke(db, "a", "operator", "stolen", now) == 1
        assert [row.serial for row in revoking.due(db)] == [serial]
        assert [number for number, _ in revoking.revoked(db, now)] == [int(serial, 16)]
        revoking.cut(db, [serial], now)
        assert revoking.due(db) == []
        assert revoking.revoked(db, now + 91 * DAY) == []
        assert revoking.revoke(db, "a", "operator", "again", now) == 0
        shown = {one.serial: one.state for one in history.certificates(db, history.Search(), now, 10)}
    assert shown == {serial: "revoked", other: "valid"}
    assert office.renew(serial, key, now + 60 * DAY) == "revoked"
    assert office.enrol(spare, now=now + dt.timedelta(seconds=1)) == "expired code"
    assert office.enrol(office.code("a", now=now), now=now) not in ("revoked", serial)
    with office.database.transaction() as db:
        count = {"count": 1, "reason": "", "kind": "tenant", "box": "a", "day": text(now)[:10]}
        db.execute(REFUSED.insert(), {**count, "last_at": text(now + DAY)})
        assert revoking.due(db) == []  # what was refused before is not held against the box's new certificate
        registry.revoke(db, "a", text(now))
        assert [row.serial for row in revoking.due(db)] == [serial]
