"""Links by mail that let somebody set a password: an invitation, or a forgotten password. Each works once.

What is stored of a link is its digest. Looking at its page uses nothing up, because mail scanners follow links.
"""

from __future__ import annotations

import datetime as dt
import secrets
from typing import Final, Literal

import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center.database import metadata
from sekisho.center.portal import accounts
from sekisho.center.portal.sessions import SECRET_CAP, digest

Kind = Literal["invite", "password"]
LIVES: Final[dict[Kind, dt.timedelta]] = {"invite": dt.timedelta(days=7), "password": dt.timedelta(hours=1)}

ONETIME: Final = sa.Table(
    "onetime",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("until", sa.Text, nullable=False, index=True),
    info={"goes_with_account": True},
)


def make(db: sa.Connection, account: str, kind: Kind, now: dt.datetime) -> str:
    """The path of a new link; those before it work no more."""
    db.execute(ONETIME.delete().where((ONETIME.c.account == account) | (ONETIME.c.until < utc.text(now))))
    secret = secrets.token_urlsafe(32)
    until = utc.text(now + LIVES[kind])
    db.execute(ONETIME.insert().values(digest=digest(secret), account=account, kind=kind, until=until))
    return f"/welcome/{secret}"


def of(db: sa.Connection, secret: str, now: dt.datetime) -> tuple[Kind, accounts.Row] | None:
    """What a link is for and whose it is; None when it is used, too old or none of ours."""
    if len(secret) > SECRET_CAP:
        return None
    query = (
        sa.select(accounts.ACCOUNT, ONETIME.c.kind)
        .join(accounts.ACCOUNT, accounts.ACCOUNT.c.id == ONETIME.c.account)
        .where(ONETIME.c.digest == digest(secret), ONETIME.c.until > utc.text(now))
    )
    row = db.execute(query).one_or_none()
    return (row.kind, row) if row is not None else None


def use(db: sa.Connection, secret: str, now: dt.datetime) -> bool:
    """Use the link up; False when somebody was faster."""
    which = (ONETIME.c.digest == digest(secret), ONETIME.c.until > utc.text(now))
    return db.execute(ONETIME.delete().where(*which)).rowcount == 1
