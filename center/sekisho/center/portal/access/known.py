"""Browsers an account has signed in with before: they have their own brake on guessing.

Whoever guesses at somebody's password from elsewhere makes the account wait, and not the person at their own browser
(OWASP's device cookies). The cookie opens nothing by itself.
"""

from __future__ import annotations

import datetime as dt
import secrets
from typing import Final

import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center.database import metadata
from sekisho.center.portal.access import throttle
from sekisho.center.portal.sessions import SECRET_CAP, digest

COOKIE: Final = "__Host-known"
LIVES: Final = dt.timedelta(days=180)
OF_ACCOUNT_CAP: Final = 20

KNOWN: Final = sa.Table(
    "known_browser",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, nullable=False, index=True),
    sa.Column("until", sa.Text, nullable=False),
    info={"goes_with_account": True},
)


def limit(db: sa.Connection, secret: str, account: str, login: str, now: dt.datetime) -> throttle.Key:
    """What attempts to sign in as `login` are counted under from the browser with this cookie."""
    if secret and account and len(secret) <= SECRET_CAP:
        which = (KNOWN.c.digest == digest(secret), KNOWN.c.account == account, KNOWN.c.until > utc.text(now))
        if db.execute(sa.select(KNOWN.c.account).where(*which)).first():
            return throttle.key("known", secret, throttle.OF_ACCOUNT)
    return throttle.key("login", login, throttle.OF_ACCOUNT)


def remember(db: sa.Connection, account: str, now: dt.datetime) -> str:
    """The secret for a browser that has just signed in."""
    db.execute(KNOWN.delete().where(KNOWN.c.until < utc.text(now)))
    newest = sa.select(KNOWN.c.digest).where(KNOWN.c.account == account).order_by(KNOWN.c.until.desc())
    keep = newest.limit(OF_ACCOUNT_CAP - 1).scalar_subquery()
    db.execute(KNOWN.delete().where(KNOWN.c.account == account, KNOWN.c.digest.not_in(keep)))
    secret = secrets.token_urlsafe(32)
    db.execute(KNOWN.insert().values(digest=digest(secret), account=account, until=utc.text(now + LIVES)))
    return secret
