"""Who gets a certificate: the one place that decides, and that signs.

- A **code** is good for one box's name, until it expires, for the first key that comes with it. The same key may
  come again with it (its first answer was lost) and gets the same certificate. Its jobs begin anew (`jobs.book.anew`).
- A **certificate** may be renewed once, by its own key, from a twentieth of its life (before that where operators
  signed a job for it) until `grace_days` after its end, and not when it or its box was revoked. Whoever comes with one
  that was renewed before, for another key, has a copy of the key (or is a box that was restored from a copy): refused,
  and told to the operator.

Every attempt is recorded with its outcome. What the certificate says comes from the code's row, never from the
request. `db` is one transaction: two boxes at once with one code are one after the other.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.jobs import span_s
from sekisho.center import pki
from sekisho.center.ca import csr as requests
from sekisho.center.ca import registry
from sekisho.center.ca.tables import ATTEMPT, ATTEMPTS_KEPT, CERTIFICATE, ENROL_CODE
from sekisho.center.ca.times import text
from sekisho.center.jobs import book
from sekisho.center.jobs.tables import JOB, JOB_BOX
from sekisho.telemetry.enrolment import code
from sekisho.telemetry.enrolment.wire import EnrolAsk, RenewAsk

TOO_SOON: Final = 1 / 20
JOB_LIFE_S: Final = span_s("key.rotate")
"""A job for another key that was begun in time may ask so long."""


class Refused(RejectedInput):
    """No certificate. `outcome` is for the operator, the message for the box."""

    def __init__(self, outcome: str, message: str, box: str = "", status: int = 403) -> None:
        super().__init__(message)
        self.outcome, self.box, self.status = outcome, box, status


class Granting:
    """The CA's key and the rules above."""

    def __init__(self, ca: pki.Authority, life: dt.timedelta, grace: dt.timedelta) -> None:
        self._ca, self._life, self._grace = ca, life, grace

    def grant(self, db: sa.Connection, ask: EnrolAsk | RenewAsk, source: str, now: dt.datetime) -> sa.Row[tuple[str]]:
        """The row of the certificate for what was asked.

        Raises:
            Refused: recorded; the transaction is to be committed all the same.

        """
        how = "code" if isinstance(ask, EnrolAsk) else "renewal"
        try:
            row = self._enrol(db, ask, now) if isinstance(ask, EnrolAsk) else self._renew(db, ask, now)
        except Refused as err:
            _record(db, source, how, err.box, err.outcome, now)
            raise
        _record(db, source, how, row.box, "granted", now)
        return row

    def _enrol(self, db: sa.Connection, ask: EnrolAsk, now: dt.datetime) -> sa.Row[tuple[str]]:
        csr = _read(ask.csr)
        key = requests.fingerprint(requests.key_of(csr))
        which = ENROL_CODE.c.digest == code.digest(bytes.fromhex(ask.secret))
        found = db.execute(sa.select(ENROL_CODE).where(which)).one_or_none()
        if found is None:
            raise Refused("unknown code", "This enrolment code is not known.")
        if found.expires_at <= text(now):
            raise Refused("expired code", "This enrolment code has expired. Ask for a new one.", found.box)
        _check_box(found.box)
        fresh = db.execute(
            ENROL_CODE.update().where(which, ENROL_CODE.c.used_at == "").values(used_at=text(now), used_key=key)
        )
        if fresh.rowcount == 0:
            given = _certificate_of(db, found.box, key)
            if given is None or given.revoked_at or _used_key(db, which) != key:
                raise Refused("used code", "This enrolment code was used before. Ask for a new one.", found.box)
            return given
        registry.activate(db, found.box, text(now))
        book.anew(db, found.box, now.timestamp())
        return self._sign(db, csr, found.box, found.tenant, "code", found.made_by, now)

    def _renew(self, db: sa.Connection, ask: RenewAsk, now: dt.datetime) -> sa.Row[tuple[str]]:
        csr = _read(ask.csr)
        old = db.execute(
            sa.select(CERTIFICATE).where(CERTIFICATE.c.serial == ask.serial).with_for_update()
        ).one_or_none()
        if old is None or not old.pem:  # its customer's data was deleted: what is left is a revoked serial
            raise Refused("unknown certificate", "This certificate is not known.")
        if not requests.proves(old.pem, csr, bytes.fromhex(ask.proof)):
            raise Refused("wrong proof", "The request is not signed by the certificate's key.", old.box)
        owner = registry.identities(db, [old.box]).get(old.box)
        if old.revoked_at or owner is None or owner.state == "revoked":
            raise Refused("revoked", "This box's certificate was revoked. A new enrolment code is needed.", old.box)
        _check_box(old.box)
        begins, ends = (dt.datetime.fromisoformat(at) for at in (old.issued_at, old.not_after))
        if ends + self._grace < now:
            raise Refused("too late", "This certificate ended too long ago. A new enrolment code is needed.", old.box)
        if old.renewed_by:
            given = _certificate_of(db, old.box, requests.fingerprint(requests.key_of(csr)))
            if given is None or given.serial != old.renewed_by or given.revoked_at:
                raise Refused("renewed before", "This certificate was renewed before, for another key.", old.box)
            return given
        if now < begins + (ends - begins) * TOO_SOON and not _wanted(db, old.box, ask.job, now):
            raise Refused("too soon", "This certificate is new; there is no need to renew it.", old.box, 409)
        made = self._sign(db, csr, old.box, owner.tenant, "renewal", old.serial, now)
        db.execute(CERTIFICATE.update().where(CERTIFICATE.c.serial == old.serial).values(renewed_by=made.serial))
        return made

    def _sign(
        self, db: sa.Connection, csr: x509.CertificateSigningRequest, box: str, tenant: str, how: str, by: str,
        now: dt.datetime,
    ) -> sa.Row[tuple[str]]:  # fmt: skip
        public = requests.key_of(csr)
        cert = pki.sign(self._ca, box, public, self._life)
        record(db, cert, tenant, requests.fingerprint(public), how, by, now)
        return db.execute(sa.select(CERTIFICATE).where(CERTIFICATE.c.serial == f"{cert.serial_number:x}")).one()


def record(
    db: sa.Connection, cert: x509.Certificate, tenant: str, key: str, how: str, by: str, now: dt.datetime
) -> None:
    """Put a certificate that was just signed into the history."""
    (cn,) = cert.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    db.execute(
        CERTIFICATE.insert(),
        {
            "serial": f"{cert.serial_number:x}",
            "box": cn.value,
            "tenant": tenant,
            "key": key,
            "not_before": text(cert.not_valid_before_utc),
            "not_after": text(cert.not_valid_after_utc),
            "issued_at": text(now),
            "how": how,
            "by": by,
            "renewed_by": "",
            "revoked_at": "",
            "revoked_by": "",
            "reason": "",
            "cut_at": "",
            "pem": cert.public_bytes(Encoding.PEM).decode(),
        },
    )


def _wanted(db: sa.Connection, box: str, job: str, now: dt.datetime) -> bool:
    """Whether operators signed a job that this box gets another key."""
    mine = sa.and_(JOB_BOX.c.job == JOB.c.id, JOB_BOX.c.box == box, JOB_BOX.c.held == 0)
    kept = (JOB.c.id == job, JOB.c.kind == "key.rotate", JOB.c.exp >= now.timestamp() - JOB_LIFE_S)
    return bool(job) and db.execute(sa.select(JOB.c.id).join(JOB_BOX, mine).where(*kept)).first() is not None


def _read(pem: str) -> x509.CertificateSigningRequest:
    try:
        return requests.read(pem)
    except RejectedInput as err:
        raise Refused("bad request", str(err), status=400) from err


def _check_box(name: str) -> None:
    if registry.is_service(name):
        raise Refused("a service's name", "The centre keeps this name for itself. Ask for another.", name)


def _certificate_of(db: sa.Connection, box: str, key: str) -> sa.Row[tuple[str]] | None:
    which = (CERTIFICATE.c.box == box, CERTIFICATE.c.key == key)
    return db.execute(sa.select(CERTIFICATE).where(*which).order_by(CERTIFICATE.c.issued_at.desc()).limit(1)).first()


def _used_key(db: sa.Connection, which: sa.ColumnElement[bool]) -> str:
    return str(db.scalar(sa.select(ENROL_CODE.c.used_key).where(which)))


def _record(db: sa.Connection, source: str, how: str, box: str, outcome: str, now: dt.datetime) -> None:
    added = db.execute(
        ATTEMPT.insert(), {"at": text(now), "source": source[:64], "how": how, "box": box, "outcome": outcome}
    )
    newest = added.inserted_primary_key
    if newest and newest[0] % 100 == 0:
        db.execute(ATTEMPT.delete().where(ATTEMPT.c.id <= newest[0] - ATTEMPTS_KEPT))
