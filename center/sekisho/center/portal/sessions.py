"""Sessions: who somebody is between two requests.

A session's secret is in the browser's cookie alone; what is stored is its digest. It ends by itself after half an
hour without a request and after twelve hours at the latest. Its secret is new whenever what it may do grows, so that
a secret somebody planted or saw before is worth nothing after.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from typing import Any, Final

import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center import customers, tenants
from sekisho.center.database import metadata
from sekisho.center.portal.accounts import ACCOUNT
from sekisho.center.portal.rights import OF_STAFF
from sekisho.center.portal.viewer import Stage, Viewer
from sekisho.center.scope import EVERYONE, Scope, only
from sekisho.center.tenants import Locale

LIVES: Final = dt.timedelta(hours=12)
IDLE: Final = dt.timedelta(minutes=30)
SEEN_EVERY: Final = dt.timedelta(minutes=1)
"""How exactly it is known when a session was last used; each time costs a write."""
FRESH: Final = dt.timedelta(minutes=10)
"""How long after proving who they are people may do what is dangerous."""
SECRET_CAP: Final = 64
AGENT_CAP: Final = 200
ELSEWHERE: Final = "elsewhere"
"""Why a session was ended: the account signed in on another browser and may have one session only."""

SESSION: Final = sa.Table(
    "session",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True, doc="SHA-256 of the cookie's secret"),
    sa.Column("account", sa.Text, nullable=False, index=True),
    sa.Column("tenant", sa.Text, nullable=False, doc="the customer whose pages are shown; empty: not chosen"),
    sa.Column("csrf", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False, doc="viewer.Stage"),
    sa.Column("made_at", sa.Text, nullable=False),
    sa.Column("seen_at", sa.Text, nullable=False),
    sa.Column("confirmed_at", sa.Text, nullable=False, doc="when this person last proved who they are"),
    sa.Column("until", sa.Text, nullable=False, index=True),
    sa.Column("ended", sa.Text, nullable=False, doc="why, before its time; empty: it is open"),
    sa.Column("how", sa.Text, nullable=False, doc="password, code, recovery, passkey, invitation"),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("agent", sa.Text, nullable=False, doc="what the browser says it is"),
    info={"goes_with_account": True},
)


def begin(
    db: sa.Connection,
    account: str,
    now: dt.datetime,
    *,
    stage: Stage = "",
    how: str = "password",
    source: str = "",
    agent: str = "",
) -> str:
    """Begin a session; returns the cookie's secret, which is stored nowhere. Sessions that are over go."""
    db.execute(SESSION.delete().where(SESSION.c.until < utc.text(now)))
    secret = new_secret()
    tenant = db.execute(sa.select(ACCOUNT.c.tenant).where(ACCOUNT.c.id == account)).scalar_one()
    at = utc.text(now)
    times = {"made_at": at, "seen_at": at, "confirmed_at": at, "until": utc.text(now + LIVES)}
    values = {"account": account, "tenant": tenant, "csrf": secrets.token_urlsafe(32), "stage": stage, "ended": ""}
    about = {"how": how, "source": source, "agent": agent[:AGENT_CAP]}
    db.execute(SESSION.insert().values(digest=digest(secret), **values, **about, **times))
    return secret


def renew(db: sa.Connection, who: Viewer, now: dt.datetime, *, stage: Stage | None = None) -> str:
    """The same session under a new secret, for somebody who has just proved who they are; returns the secret.

    `stage`: the session's from now on, where that changes.
    """
    secret = new_secret()
    values = {"digest": digest(secret), "csrf": secrets.token_urlsafe(32), "confirmed_at": utc.text(now)}
    values["stage"] = who.stage if stage is None else stage
    db.execute(SESSION.update().where(SESSION.c.digest == who.session).values(**values))
    return secret


def find(db: sa.Connection, secret: str, now: dt.datetime) -> Viewer | None:
    """Who holds this secret; None for one that is wrong, over, or of an account that is closed."""
    if not secret or len(secret) > SECRET_CAP:
        return None
    columns = [SESSION.c[name] for name in ("digest", "csrf", "stage", "seen_at", "confirmed_at")]
    query = (
        sa.select(ACCOUNT, *columns, SESSION.c.tenant.label("here"))
        .join(ACCOUNT, ACCOUNT.c.id == SESSION.c.account)
        .where(
            SESSION.c.digest == digest(secret),
            SESSION.c.until > utc.text(now),
            SESSION.c.seen_at > utc.text(now - IDLE),
            SESSION.c.ended == "",
            ACCOUNT.c.state == "active",
        )
    )
    row = db.execute(query).first()
    if row is None:
        return None
    scope = _scope(db, row.role, row.tenant, row.reseller)
    here = row.here if scope.holds(row.here) else ""
    locale: Locale = "en" if row.locale == "en" else "ja"
    return Viewer(
        account=row.id,
        login=row.login,
        name=row.name,
        role=row.role,
        scope=scope,
        tenant=here,
        locale=locale,
        zone=row.zone or (tenants.load(db, here).time_zone if here else "Asia/Tokyo"),
        session=row.digest,
        csrf=row.csrf,
        stage=row.stage,
        seen_at=row.seen_at,
        confirmed_at=row.confirmed_at,
    )


def stale(who: Viewer, now: dt.datetime) -> bool:
    """Whether it should be written down that the session is in use."""
    return who.seen_at < utc.text(now - SEEN_EVERY)


def touch(db: sa.Connection, who: Viewer, now: dt.datetime) -> None:
    db.execute(SESSION.update().where(SESSION.c.digest == who.session).values(seen_at=utc.text(now)))


def fresh(who: Viewer, now: dt.datetime) -> bool:
    """Whether this person proved a short while ago who they are."""
    return who.confirmed_at > utc.text(now - FRESH)


def why_ended(db: sa.Connection, secret: str) -> str:
    """Why the session of this secret was ended before its time; empty when it was not."""
    if not secret or len(secret) > SECRET_CAP:
        return ""
    return db.execute(sa.select(SESSION.c.ended).where(SESSION.c.digest == digest(secret))).scalar() or ""


def end(db: sa.Connection, who: Viewer) -> None:
    db.execute(SESSION.delete().where(SESSION.c.digest == who.session))


def end_secret(db: sa.Connection, secret: str) -> None:
    """End the session a browser came with, whosever it was."""
    if secret and len(secret) <= SECRET_CAP:
        db.execute(SESSION.delete().where(SESSION.c.digest == digest(secret)))


def end_all(db: sa.Connection, account: str, *, but: str = "", why: str = "") -> int:
    """End an account's sessions but the one with this digest; `why` is told where they were open."""
    which = (SESSION.c.account == account, SESSION.c.digest != but, SESSION.c.ended == "")
    change = SESSION.update().values(ended=why) if why else SESSION.delete()
    return db.execute(change.where(*which)).rowcount


def end_one(db: sa.Connection, who: Viewer, name: str) -> bool:
    """End one of the viewer's own sessions by what it is called on the page (`named`)."""
    which = (SESSION.c.account == who.account, sa.func.substr(SESSION.c.digest, 1, 16) == name)
    return db.execute(SESSION.delete().where(*which)).rowcount == 1


def of_account(db: sa.Connection, account: str, now: dt.datetime) -> list[sa.Row[Any]]:
    """The open sessions, the last used first."""
    live = (SESSION.c.until > utc.text(now), SESSION.c.seen_at > utc.text(now - IDLE), SESSION.c.ended == "")
    query = sa.select(SESSION).where(SESSION.c.account == account, *live).order_by(SESSION.c.seen_at.desc())
    return list(db.execute(query.limit(100)))


def open_customer(db: sa.Connection, who: Viewer, tenant: str) -> None:
    """Show this customer's pages from now on; the caller has asked the scope."""
    db.execute(SESSION.update().where(SESSION.c.digest == who.session).values(tenant=tenant))


def new_secret() -> str:
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is stored of a secret of ours: it has 256 random bits, so a fast digest is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _scope(db: sa.Connection, role: str, tenant: str, reseller: str) -> Scope:
    if role in OF_STAFF:
        return EVERYONE
    if role == "reseller":
        return Scope(customers.of_reseller(db, reseller))
    return only(tenant)
