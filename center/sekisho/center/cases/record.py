"""The log of a case: only ever added to, each entry bound to all before it by a digest.

An entry's digest is SHA-256 over the digest before it (64 hex digits, of the first entry 64 zeros), a line feed and the
entry's canonical JSON (UTF-8, keys sorted, no spaces): anybody can check an exported record. A changed, removed or
exchanged entry breaks the chain; that the chain as a whole is the centre's is what the export's signature says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.center.cases.tables import LOG

BEGIN: Final = "0" * 64


class Entry(msgspec.Struct, frozen=True):
    """One thing that happened."""

    case: str
    n: int
    at: str
    who: str
    """Login; empty: the centre by itself."""
    role: str
    kind: str
    """opened, repeated, called, exported, or a move's tag."""
    data: dict[str, Any]


class Kept(msgspec.Struct, frozen=True):
    """An entry as it is stored."""

    entry: Entry
    digest: str


def add(db: sa.Connection, tenant: str, entry: Entry, before: str | None = None) -> str:
    """Add an entry; the caller holds the case's row and counts `n`. Returns its digest."""
    previous = last(db, entry.case)[1] if before is None else before
    body = canonical(entry)
    digest = chained(previous, body)
    db.execute(LOG.insert().values(case=entry.case, n=entry.n, tenant=tenant, entry=body, digest=digest))
    return digest


def last(db: sa.Connection, case: str) -> tuple[int, str]:
    """(number, digest) of the newest entry; (0, zeros) before the first."""
    query = sa.select(LOG.c.n, LOG.c.digest).where(LOG.c.case == case).order_by(LOG.c.n.desc()).limit(1)
    row = db.execute(query).first()
    return (row.n, row.digest) if row else (0, BEGIN)


def read(db: sa.Connection, case: str, limit: int) -> list[Kept]:
    """The entries, the oldest first; the caller has asked the scope."""
    query = sa.select(LOG.c.entry, LOG.c.digest).where(LOG.c.case == case).order_by(LOG.c.n).limit(limit)
    return [Kept(msgspec.json.decode(row.entry, type=Entry), row.digest) for row in db.execute(query)]


def whole(entries: Sequence[Kept]) -> bool:
    """Whether no entry was changed, left out or put in."""
    previous = BEGIN
    for n, kept in enumerate(entries, 1):
        if kept.entry.n != n or chained(previous, canonical(kept.entry)) != kept.digest:
            return False
        previous = kept.digest
    return bool(entries)


def canonical(value: object) -> bytes:
    """The one spelling digests are made of."""
    return msgspec.json.encode(value, order="sorted")


def chained(previous: str, body: bytes) -> str:
    return hashlib.sha256(previous.encode() + b"\n" + body).hexdigest()
