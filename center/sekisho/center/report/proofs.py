"""Reports that were handed out, and what proves them: kept as they were, bound by a signature (Ed25519, RFC 8032).

What is signed is the statement: a few figures, the hash of all of them and of the PDF. Its key is in a file of the
portal's alone; whoever can write the database cannot make a statement that is believed.
"""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import sync_directory
from sekisho.center.database import insert_new, metadata
from sekisho.center.report.figures import Figures
from sekisho.center.scope import Scope

PER_MONTH: Final = 100
"""Reports of one customer's month: each time the figures have changed, one may be issued."""
BEFORE_ITS_END: Final = 40
"""Of these, while the month is not over: there is always room for the whole month's."""
LISTED: Final = 24
REPORT: Final = b"sekisho report 1\0"
CASE: Final = b"sekisho case record 1\0"
"""What stands before the bytes that are signed, so that nothing signed as one thing passes for the other."""

ISSUED: Final = sa.Table(
    "report_issued",
    metadata,
    sa.Column("id", sa.String(12), primary_key=True, doc="printed on it"),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("month", sa.String(7), nullable=False),
    sa.Column("locale", sa.String(2), nullable=False),
    sa.Column("content", sa.String(64), nullable=False, doc="hash of figures and language: the same is issued once"),
    sa.Column("token", sa.String(43), nullable=False, unique=True, doc="where its QR code leads"),
    sa.Column("issued_at", sa.Text, nullable=False),
    sa.Column("statement", sa.LargeBinary, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Column("figures", sa.LargeBinary, nullable=False),
    sa.Column("pdf", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("tenant", "month", "content"),
    sa.Index("report_issued_by_tenant", "tenant", "month", "issued_at"),
)
Word = Annotated[str, msgspec.Meta(max_length=200)]


class Statement(msgspec.Struct, frozen=True):
    """What the centre vouches for."""

    report: Word
    customer: Word
    month: Word
    over: bool
    """Whether the month was over when it was issued."""
    issued_at: Word
    detections: int
    blocked: int
    important: int
    figures_sha256: Word
    pdf_sha256: Word


class Issued(msgspec.Struct, frozen=True):
    """One issued report in a list."""

    id: str
    month: str
    locale: str
    issued_at: str
    token: str


class Proof(msgspec.Struct, frozen=True):
    """What is found behind a token."""

    statement: Statement
    genuine: bool
    """Whether signature, figures and PDF are what was issued."""


class Key:
    """The portal's signing key."""

    def __init__(self, path: Path) -> None:
        """Read the key, or make it: a file of this user's alone.

        Raises:
            DeviceFault: it cannot be read or made, or others can read it.

        """
        try:
            self._key = _read(path) if path.exists() else _make(path)
        except (OSError, ValueError) as err:
            raise DeviceFault(
                f"Cannot use the key of reports in {path}: {err}.", "Look at [portal] proof_key."
            ) from err

    @property
    def public(self) -> Ed25519PublicKey:
        return self._key.public_key()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key, hex; a verifier can note it down once."""
        raw = self.public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return hashlib.sha256(raw).hexdigest()

    @property
    def pem(self) -> bytes:
        return self.public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def sign(self, statement: bytes, purpose: bytes = REPORT) -> bytes:
        return self._key.sign(purpose + statement)

    def signed(self, statement: bytes, signature: bytes, purpose: bytes = REPORT) -> bool:
        try:
            self.public.verify(signature, purpose + statement)
        except InvalidSignature:
            return False
        return True


@functools.cache
def key_at(path: str) -> Key:
    """The key, read or made once; see `Key`."""
    return Key(Path(path))


def content_of(figures: Figures, locale: str) -> str:
    """The same for the same figures in the same language."""
    return hashlib.sha256(locale.encode() + b"\0" + _canonical(figures)).hexdigest()


def new_names() -> tuple[str, str]:
    """(the report's number, its token): both random, the token of 256 bits."""
    alphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
    return "".join(secrets.choice(alphabet) for _ in range(12)), secrets.token_urlsafe(32)


def issue(
    db: sa.Connection,
    key: Key,
    tenant: str,
    figures: Figures,
    locale: str,
    names: tuple[str, str],
    pdf: bytes,
    issued_at: str,
) -> Issued:
    """Keep what is handed out, signed; where the same was issued meanwhile, that one.

    Raises:
        RejectedInput: the month has had too many.

    """
    id_, token = names
    check_room(db, tenant, figures)
    body = _canonical(figures)
    statement = _canonical(
        Statement(
            report=id_,
            customer=figures.customer[:200],
            month=figures.month,
            over=figures.over,
            issued_at=issued_at,
            detections=figures.detections,
            blocked=figures.blocked,
            important=figures.important,
            figures_sha256=hashlib.sha256(body).hexdigest(),
            pdf_sha256=hashlib.sha256(pdf).hexdigest(),
        )
    )
    content = content_of(figures, locale)
    values = {"id": id_, "tenant": tenant, "month": figures.month, "locale": locale, "content": content}
    proof = {"token": token, "statement": statement, "signature": key.sign(statement), "figures": body, "pdf": pdf}
    db.execute(insert_new(db, ISSUED), {**values, **proof, "issued_at": issued_at})
    found = find(db, tenant, figures, locale)
    if found is None:
        raise DeviceFault("The report could not be kept.")
    return found


def check_room(db: sa.Connection, tenant: str, figures: Figures) -> None:
    """Refuse one more report of a month that has had too many.

    Raises:
        RejectedInput: it has.

    """
    which = (ISSUED.c.tenant == tenant, ISSUED.c.month == figures.month)
    number = db.execute(sa.select(sa.func.count()).where(*which)).scalar_one()
    if number >= (PER_MONTH if figures.over else BEFORE_ITS_END):
        raise RejectedInput("This month's report was issued too often.")


def find(db: sa.Connection, tenant: str, figures: Figures, locale: str) -> Issued | None:
    """The report that was issued with these very figures."""
    content = content_of(figures, locale)
    which = (ISSUED.c.tenant == tenant, ISSUED.c.month == figures.month, ISSUED.c.content == content)
    row = db.execute(_select().where(*which)).first()
    return Issued(*row) if row else None


def listed(db: sa.Connection, scope: Scope, month: str) -> list[Issued]:
    """The month's reports, the newest first."""
    query = _select().where(scope.of(ISSUED.c.tenant), ISSUED.c.month == month)
    return [Issued(*row) for row in db.execute(query.order_by(ISSUED.c.issued_at.desc()).limit(LISTED))]


def pdf_of(db: sa.Connection, scope: Scope, id_: str) -> tuple[str, bytes] | None:
    """(month, PDF) of a report; None where there is none in this scope."""
    query = sa.select(ISSUED.c.month, ISSUED.c.pdf).where(ISSUED.c.id == id_, scope.of(ISSUED.c.tenant))
    row = db.execute(query).first()
    return (row.month, row.pdf) if row else None


def prove(db: sa.Connection, key: Key, token: str) -> Proof | None:
    """What is behind the token; None when there is nothing (any more)."""
    columns = (ISSUED.c.statement, ISSUED.c.signature, ISSUED.c.figures, ISSUED.c.pdf)
    row = db.execute(sa.select(*columns).where(ISSUED.c.token == token)).first()
    if row is None:
        return None
    statement = msgspec.json.decode(row.statement, type=Statement)
    genuine = (
        key.signed(row.statement, row.signature)
        and hashlib.sha256(row.figures).hexdigest() == statement.figures_sha256
        and hashlib.sha256(row.pdf).hexdigest() == statement.pdf_sha256
    )
    return Proof(statement, genuine)


def _select() -> sa.Select[Any]:
    return sa.select(ISSUED.c.id, ISSUED.c.month, ISSUED.c.locale, ISSUED.c.issued_at, ISSUED.c.token)


def _canonical(value: object) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _read(path: Path) -> Ed25519PrivateKey:
    if path.stat().st_mode & 0o077:
        raise ValueError("others can read it")
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it is no Ed25519 key")
    return key


def _make(path: Path) -> Ed25519PrivateKey:
    """Made aside and given its name: of two processes that begin together one's key is used by both."""
    key = Ed25519PrivateKey.generate()
    plain = serialization.NoEncryption()
    body = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    made = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(made, path)
        except FileExistsError:
            return _read(path)
    finally:
        made.unlink()
    sync_directory(path.parent)
    return key
