"""Accounts and their sessions: who somebody is between two requests.

A session's secret is in the browser's cookie alone; what is stored is its digest.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from typing import Final

import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center import customers, tenants
from sekisho.center.database import metadata
from sekisho.center.portal.rights import OF_STAFF, Role
from sekisho.center.portal.viewer import Viewer
from sekisho.center.scope import EVERYONE, Scope, only
from sekisho.center.tenants import Locale

LIVES: Final = dt.timedelta(hours=12)
SECRET_CAP: Final = 64

ACCOUNT: Final = sa.Table(
    "account",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("login", sa.Text, nullable=False, unique=True, doc="a mail address, lower case"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False, server_default="", doc="of admin and member"),
    sa.Column("reseller", sa.Text, nullable=False, server_default="", doc="of a reseller"),
    sa.Column("locale", sa.Text, nullable=False, server_default="ja"),
    sa.Column("zone", sa.Text, nullable=False, server_default="", doc="empty: the customer's, else Asia/Tokyo"),
    sa.Column("state", sa.Text, nullable=False, server_default="active"),
    sa.Column("made_at", sa.Text, nullable=False),
    sa.Index("account_by_tenant", "tenant", "login"),
)
SESSION: Final = sa.Table(
    "session",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True, doc="SHA-256 of the cookie's secret"),
    sa.Column("account", sa.Text, nullable=False, index=True),
    sa.Column("tenant", sa.Text, nullable=False, doc="the customer whose pages are shown; empty: not chosen"),
    sa.Column("csrf", sa.Text, nullable=False),
    sa.Column("made_at", sa.Text, nullable=False),
    sa.Column("until", sa.Text, nullable=False),
)


def make(
    db: sa.Connection,
    login: str,
    role: Role,
    *,
    tenant: str = "",
    reseller: str = "",
    name: str = "",
    locale: Locale = "ja",
    now: dt.datetime,
) -> str:
    """A new account; returns its id."""
    account = secrets.token_hex(16)
    values = {"role": role, "tenant": tenant, "reseller": reseller, "locale": locale, "made_at": utc.text(now)}
    db.execute(ACCOUNT.insert().values(id=account, login=login.lower(), name=name or login, **values))
    return account


def begin(db: sa.Connection, account: str, now: dt.datetime) -> str:
    """Begin a session; returns the cookie's secret, which is stored nowhere."""
    secret = secrets.token_urlsafe(32)
    tenant = db.execute(sa.select(ACCOUNT.c.tenant).where(ACCOUNT.c.id == account)).scalar_one()
    times = {"made_at": utc.text(now), "until": utc.text(now + LIVES)}
    db.execute(
        SESSION.insert().values(
            digest=_digest(secret), account=account, tenant=tenant, csrf=secrets.token_urlsafe(32), **times
        )
    )
    return secret


def end(db: sa.Connection, viewer: Viewer) -> None:
    db.execute(SESSION.delete().where(SESSION.c.digest == viewer.session))


def find(db: sa.Connection, secret: str, now: dt.datetime) -> Viewer | None:
    """Who holds this secret; None for one that is wrong, over, or of an account that is closed."""
    if not secret or len(secret) > SECRET_CAP:
        return None
    query = (
        sa.select(ACCOUNT, SESSION.c.digest, SESSION.c.tenant.label("here"), SESSION.c.csrf)
        .join(ACCOUNT, ACCOUNT.c.id == SESSION.c.account)
        .where(SESSION.c.digest == _digest(secret), SESSION.c.until > utc.text(now), ACCOUNT.c.state == "active")
    )
    row = db.execute(query).first()
    if row is None:
        return None
    scope = _scope(db, row.role, row.tenant, row.reseller)
    here = row.here if scope.holds(row.here) else ""
    zone = row.zone or (tenants.load(db, here).time_zone if here else "Asia/Tokyo")
    locale: Locale = "en" if row.locale == "en" else "ja"
    return Viewer(row.id, row.login, row.name, row.role, scope, here, locale, zone, row.digest, row.csrf)


def open_customer(db: sa.Connection, viewer: Viewer, tenant: str) -> None:
    """Show this customer's pages from now on; the caller has asked the scope."""
    db.execute(SESSION.update().where(SESSION.c.digest == viewer.session).values(tenant=tenant))


def _scope(db: sa.Connection, role: str, tenant: str, reseller: str) -> Scope:
    if role in OF_STAFF:
        return EVERYONE
    if role == "reseller":
        return Scope(customers.of_reseller(db, reseller))
    return only(tenant)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
