"""The proof of a deletion: what was removed, when, by whose order; signed, and chained so that none can be left out."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sekisho.appliance.core import utc
from sekisho.center.contracts.tables import RECORD, RECORD_KEY
from sekisho.center.scope import Scope


class Record(msgspec.Struct, frozen=True):
    """What was done. Times are RFC 3339 in UTC, days the customer's own."""

    tenant: str
    ended_on: str
    kept_until: str
    began_at: str
    done_at: str
    ordered_by: str
    removed: dict[str, int]
    """Table -> rows that are gone."""
    cleared: dict[str, int]
    """Table -> rows that stay for everyone's sake, with nothing in them that names the customer."""
    files: int
    """Export files that are gone."""
    backups_until: str
    """The day on which the last backup that may hold any of it has been rotated away."""
    revocations_until: str
    """Until when serials of revoked certificates stay on the list; empty: none does."""


class Kept(msgspec.Struct, frozen=True):
    """A record with what proves it."""

    number: int
    record: Record
    hash: str
    key: str
    public: str
    """The public key, hexadecimal."""
    signature: str
    genuine: bool
    """The signature is right, and it follows the record before it."""


def add(db: sa.Connection, record: Record, now: dt.datetime) -> int:
    """Sign it and put it at the chain's end, inside the caller's transaction; returns its number."""
    key, secret = _key(db, now)
    last = db.execute(sa.select(RECORD.c.number, RECORD.c.hash).order_by(RECORD.c.number.desc()).limit(1)).first()
    number, before = (last.number + 1, last.hash) if last else (1, "")
    body = msgspec.json.encode(record, order="deterministic")
    digest = _hash(before, body)
    values = {"hash": digest, "key": key, "signature": secret.sign(digest.encode())}
    db.execute(RECORD.insert().values(number=number, tenant=record.tenant, body=body, **values))
    return int(number)


def found(db: sa.Connection, scope: Scope, tenant: str = "", limit: int = 100) -> Iterator[Kept]:
    """Records of the scope, newest first."""
    query = sa.select(RECORD).where(scope.of(RECORD.c.tenant))
    if tenant:
        query = query.where(RECORD.c.tenant == tenant)
    for row in db.execute(query.order_by(RECORD.c.number.desc()).limit(limit)).all():
        before = db.scalar(sa.select(RECORD.c.hash).where(RECORD.c.number == row.number - 1)) or ""
        public = _public(db, row.key)
        genuine = public is not None and row.hash == _hash(before, row.body) and _signed(public, row)
        shown = public.public_bytes(Encoding.Raw, PublicFormat.Raw).hex() if public else ""
        record = msgspec.json.decode(row.body, type=Record)
        yield Kept(row.number, record, row.hash, row.key, shown, row.signature.hex(), genuine)


def _hash(before: str, body: bytes) -> str:
    return hashlib.sha256(b"sekisho deletion 1\0" + before.encode() + b"\0" + body).hexdigest()


def _signed(public: Ed25519PublicKey, row: sa.Row[tuple[int]]) -> bool:
    try:
        public.verify(row.signature, row.hash.encode())
    except InvalidSignature:
        return False
    return True


def _key(db: sa.Connection, now: dt.datetime) -> tuple[str, Ed25519PrivateKey]:
    row = db.execute(sa.select(RECORD_KEY).order_by(RECORD_KEY.c.made_at.desc()).limit(1)).first()
    if row is not None:
        return row.id, Ed25519PrivateKey.from_private_bytes(row.secret)
    made = Ed25519PrivateKey.generate()
    name = hashlib.sha256(made.public_key().public_bytes_raw()).hexdigest()[:16]
    db.execute(RECORD_KEY.insert().values(id=name, secret=made.private_bytes_raw(), made_at=utc.text(now)))
    return name, made


def _public(db: sa.Connection, key: str) -> Ed25519PublicKey | None:
    secret = db.scalar(sa.select(RECORD_KEY.c.secret).where(RECORD_KEY.c.id == key))
    return Ed25519PrivateKey.from_private_bytes(secret).public_key() if secret else None
