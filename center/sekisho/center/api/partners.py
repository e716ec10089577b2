"""The registry of partners: who may use the API, as what, about whom, and with which certificates.

A certificate is good while its fingerprint is in here, not revoked, and its time is not over. It is looked up for each
request, so what is revoked ends at once, also on a connection that is open.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.names import RULE, is_name
from sekisho.center import customers
from sekisho.center.database import metadata
from sekisho.center.portal.rights import OF_STAFF, Role
from sekisho.center.portal.viewer import Viewer
from sekisho.center.scope import EVERYONE, Scope

TENANTS_CAP: Final = 500
"""Customers that are named one by one; who looks after more is a reseller."""
LIST_CAP: Final = 10_000

PARTNER: Final = sa.Table(
    "partner",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("role", sa.Text, nullable=False, doc="portal.rights.Role"),
    sa.Column("reseller", sa.Text, nullable=False, doc="of the role reseller: the chamber's identifier"),
    sa.Column("made_at", sa.Text, nullable=False),
    sa.Column("revoked_at", sa.Text, nullable=False, server_default=""),
)
PARTNER_TENANT: Final = sa.Table(
    "partner_tenant",
    metadata,
    sa.Column("partner", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(64), primary_key=True),
)
PARTNER_CERTIFICATE: Final = sa.Table(
    "partner_certificate",
    metadata,
    sa.Column("fingerprint", sa.String(64), primary_key=True, doc="SHA-256 of the certificate (DER), hex"),
    sa.Column("partner", sa.String(64), nullable=False, index=True),
    sa.Column("made_at", sa.Text, nullable=False),
    sa.Column("until", sa.Text, nullable=False),
    sa.Column("revoked_at", sa.Text, nullable=False, server_default=""),
)


class Certificate(msgspec.Struct, frozen=True):
    """One certificate of a partner."""

    fingerprint: str
    made_at: str
    until: str
    revoked_at: str


class Partner(msgspec.Struct, frozen=True):
    """One partner as it is listed."""

    name: str
    role: Role
    reseller: str
    tenants: list[str]
    made_at: str
    revoked_at: str
    certificates: list[Certificate]


def add(
    db: sa.Connection, name: str, role: Role, *, reseller: str = "", tenants: Collection[str] = (), now: dt.datetime
) -> None:
    """A new partner; it has no certificate yet.

    Raises:
        RejectedInput: a name that is none or is taken; the role and whose partner it is do not fit together.

    """
    if not is_name(name):
        raise RejectedInput(f"{name[:80]!r} is not {RULE}.")
    if bool(tenants) != (role in ("admin", "member")) or bool(reseller) != (role == "reseller"):
        raise RejectedInput("An admin or member has customers, a reseller has a chamber, others have neither.")
    if len(tenants) > TENANTS_CAP:
        raise RejectedInput(f"At most {TENANTS_CAP} customers are named one by one.")
    if db.execute(sa.select(PARTNER.c.name).where(PARTNER.c.name == name)).first():
        raise RejectedInput(f"There is or was a partner {name}: the name stays its own.")
    for tenant in tenants:
        if not db.execute(sa.select(customers.CUSTOMER.c.tenant).where(customers.CUSTOMER.c.tenant == tenant)).first():
            raise RejectedInput(f"There is no customer {tenant[:80]!r}.")
    db.execute(PARTNER.insert().values(name=name, role=role, reseller=reseller, made_at=utc.text(now)))
    for tenant in sorted(set(tenants)):
        db.execute(PARTNER_TENANT.insert().values(partner=name, tenant=tenant))


def admit(db: sa.Connection, name: str, fingerprint: str, until: dt.datetime, now: dt.datetime) -> None:
    """A certificate is this partner's from now on.

    Raises:
        RejectedInput: there is no such partner, or it was revoked.

    """
    _living(db, name)
    values = {"made_at": utc.text(now), "until": utc.text(until)}
    db.execute(PARTNER_CERTIFICATE.insert().values(fingerprint=fingerprint, partner=name, **values))


def revoke(db: sa.Connection, name: str, now: dt.datetime, fingerprint: str = "") -> int:
    """End a partner for ever, or only one of its certificates; how many certificates ended.

    Raises:
        RejectedInput: there is no such partner or certificate, or it was revoked before.

    """
    _living(db, name)
    mine = [PARTNER_CERTIFICATE.c.partner == name, PARTNER_CERTIFICATE.c.revoked_at == ""]
    if fingerprint:
        mine.append(PARTNER_CERTIFICATE.c.fingerprint == fingerprint.replace(":", "").lower())
    ended = db.execute(PARTNER_CERTIFICATE.update().where(*mine).values(revoked_at=utc.text(now))).rowcount
    if fingerprint and not ended:
        raise RejectedInput(f"{name} has no certificate with this fingerprint that is still good.")
    if not fingerprint:
        db.execute(PARTNER.update().where(PARTNER.c.name == name).values(revoked_at=utc.text(now)))
    return ended


def find(db: sa.Connection, fingerprint: str, now: dt.datetime) -> Viewer | None:
    """Who shows this certificate; None when it is not (any more) a partner's."""
    query = (
        sa.select(PARTNER.c.name, PARTNER.c.role, PARTNER.c.reseller)
        .join(PARTNER_CERTIFICATE, PARTNER_CERTIFICATE.c.partner == PARTNER.c.name)
        .where(
            PARTNER_CERTIFICATE.c.fingerprint == fingerprint,
            PARTNER_CERTIFICATE.c.until > utc.text(now),
            PARTNER_CERTIFICATE.c.revoked_at == "",
            PARTNER.c.revoked_at == "",
        )
    )
    row = db.execute(query).first()
    return as_viewer(row.name, row.role, _scope(db, row.name, row.role, row.reseller)) if row else None


def listed(db: sa.Connection) -> list[Partner]:
    """Every partner there is or was."""
    rows = db.execute(sa.select(PARTNER).order_by(PARTNER.c.name).limit(LIST_CAP)).all()
    return [
        Partner(
            row.name,
            row.role,
            row.reseller,
            sorted(_tenants(db, row.name)),
            row.made_at,
            row.revoked_at,
            _certificates(db, row.name),
        )
        for row in rows
    ]


def as_viewer(name: str, role: Role, scope: Scope, login: str = "") -> Viewer:
    """A partner as rights and the audit log know people."""
    return Viewer(f"partner:{name}", login or name, name, role, scope, "", "ja", "UTC", session="", csrf="")


def _living(db: sa.Connection, name: str) -> None:
    row = db.execute(sa.select(PARTNER.c.revoked_at).where(PARTNER.c.name == name)).first()
    if row is None or row.revoked_at:
        raise RejectedInput(f"There is no partner {name[:80]!r}." if row is None else f"{name} was revoked.")


def _scope(db: sa.Connection, name: str, role: str, reseller: str) -> Scope:
    if role in OF_STAFF:
        return EVERYONE
    return Scope(customers.of_reseller(db, reseller) if role == "reseller" else _tenants(db, name))


def _tenants(db: sa.Connection, name: str) -> frozenset[str]:
    query = sa.select(PARTNER_TENANT.c.tenant).where(PARTNER_TENANT.c.partner == name)
    return frozenset(db.execute(query).scalars())


def _certificates(db: sa.Connection, name: str) -> list[Certificate]:
    columns = (PARTNER_CERTIFICATE.c[field] for field in Certificate.__struct_fields__)
    query = sa.select(*columns).where(PARTNER_CERTIFICATE.c.partner == name)
    return [Certificate(*row) for row in db.execute(query.order_by(PARTNER_CERTIFICATE.c.made_at))]
