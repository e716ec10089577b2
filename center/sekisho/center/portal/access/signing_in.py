"""The steps of signing in, without their pages: password, second step, passkey, and the session at their end."""

from __future__ import annotations

import datetime as dt
import secrets
from typing import Any, Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center import tenants
from sekisho.center.database import Database, metadata
from sekisho.center.portal import accounts, audit, sessions
from sekisho.center.portal.access import factors, known, passwords, throttle
from sekisho.center.portal.access.agents import named
from sekisho.center.portal.sessions import digest

STEP_LIVES: Final = dt.timedelta(minutes=10)
"""How long the second step may take."""
LOGIN_CAP: Final = 254
ENROL: Final = "/account/second"
"""Where a second factor is added."""

STEP: Final = sa.Table(
    "signing_in",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True, doc="of the browser's cookie"),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("next", sa.Text, nullable=False),
    sa.Column("until", sa.Text, nullable=False, index=True),
    info={"goes_with_account": True},
)

How = Literal["password", "code", "recovery", "passkey", "invitation"]


class Browser(msgspec.Struct, frozen=True):
    """Who knocks: address, what the browser says it is, its cookies."""

    source: str
    agent: str
    session: str
    known: str


class Wait(msgspec.Struct, frozen=True):
    """Too many attempts: not looked at."""

    seconds: float


class Opened(msgspec.Struct, frozen=True):
    """Signed in: the secrets of the two cookies, and whether a second factor must be added first."""

    session: str
    known: str
    enrol: bool

    def to(self, target: str) -> str:
        """The page that comes next for who wanted to go to `target`."""
        return ENROL if self.enrol else target


class Second(msgspec.Struct, frozen=True):
    """The password is right; the second step is to come. `secret` is for the browser's cookie."""

    secret: str


class SignIn:
    """One portal's sign-in; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def password(
        self, login: str, password: str, browser: Browser, target: str, now: dt.datetime
    ) -> Wait | Second | Opened | None:
        """Try a password; None when it is wrong, or there is no such account: that is the same to see and to time."""
        login = login.strip().lower()[:LOGIN_CAP]
        source = _source(browser)
        with self._database.transaction() as db:
            row = accounts.by_login(db, login)
            account = row.id if row is not None and row.state == "active" else ""
            limit = known.limit(db, browser.known, account, login, now)
            if wait := throttle.take(db, now, limit, source):
                return Wait(wait)
            kept = passwords.of_account(db, account)
        if not passwords.matches(kept, password):
            return None
        with self._database.transaction() as db:
            throttle.forgive(db, (limit,), (source,))
            row = accounts.by_login(db, login)
            if row is None or row.id != account or passwords.of_account(db, account) != kept:
                return None  # it was changed meanwhile
            if factors.of_account(db, account).any:
                return Second(_step(db, account, target, now))
            return self.open(db, row, browser, "password", now)

    def second(
        self, secret: str, code: str, browser: Browser, now: dt.datetime
    ) -> Wait | tuple[Opened, str, How] | None:
        """Try a code of the app or a recovery code: (what was opened, where to go, which it was)."""
        with self._database.transaction() as db:
            found = step(db, secret, now)
            if found is None:
                return None
            limit = throttle.key("second", found.account, throttle.OF_SECOND)
            if wait := throttle.take(db, now, limit, _source(browser)):
                return Wait(wait)
            how: How = "code" if factors.take_code(db, found.account, code, now) else "recovery"
            if how == "recovery" and not factors.take_recovery(db, found.account, code):
                return None
            row = db.execute(sa.select(accounts.ACCOUNT).where(accounts.ACCOUNT.c.id == found.account)).one()
            throttle.forgive(db, (limit,), (_source(browser),))
            db.execute(STEP.delete().where(STEP.c.digest == found.digest))
            return self.open(db, row, browser, how, now), found.next, how

    def open(self, db: sa.Connection, account: accounts.Row, browser: Browser, how: How, now: dt.datetime) -> Opened:
        """The session at the end of the steps; the one the browser came with is over, whosever it was."""
        sessions.end_secret(db, browser.session)
        if account.tenant and tenants.load(db, account.tenant).one_session:
            sessions.end_all(db, account.id, why=sessions.ELSEWHERE)
        enrol = factors.required(db, account) and not factors.of_account(db, account.id).any
        secret = sessions.begin(
            db,
            account.id,
            now,
            stage="enrol" if enrol else "",
            how=how,
            source=browser.source,
            agent=browser.agent,
        )
        audit.write(db, account, f"session.{how}", _where(browser))
        return Opened(secret, known.remember(db, account.id, now), enrol)


def step(db: sa.Connection, secret: str, now: dt.datetime) -> sa.Row[Any] | None:
    """The second step this browser is at."""
    if not secret or len(secret) > sessions.SECRET_CAP:
        return None
    which = (STEP.c.digest == digest(secret), STEP.c.until > utc.text(now))
    return db.execute(sa.select(STEP).where(*which)).one_or_none()


def _step(db: sa.Connection, account: str, target: str, now: dt.datetime) -> str:
    db.execute(STEP.delete().where(STEP.c.until < utc.text(now)))
    secret = secrets.token_urlsafe(32)
    until = utc.text(now + STEP_LIVES)
    db.execute(STEP.insert().values(digest=digest(secret), account=account, next=target, until=until))
    return secret


def _where(browser: Browser) -> str:
    """From where, and with which browser, as people read it."""
    return f"{browser.source} {named(browser.agent)}".strip()


def _source(browser: Browser) -> throttle.Key:
    return throttle.key("source", browser.source, throttle.OF_SOURCE)
