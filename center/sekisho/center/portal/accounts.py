"""Accounts: who people are. Their sessions, passwords and second factors are elsewhere and go with them."""

from __future__ import annotations

import datetime as dt
import re
import secrets
from typing import Any, Final

import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.database import metadata
from sekisho.center.portal.rights import Role
from sekisho.center.scope import Scope
from sekisho.center.tenants import ADDRESS_CAP, Locale

NAME_CAP: Final = 80
_LOGIN = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+")

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
    sa.Column("state", sa.Text, nullable=False, server_default="active", doc="invited, active"),
    sa.Column("made_at", sa.Text, nullable=False),
    sa.Index("account_by_tenant", "tenant", "login"),
)

Row = sa.Row[Any]
"""A row of `ACCOUNT`."""


def make(
    db: sa.Connection,
    login: str,
    role: Role,
    *,
    tenant: str = "",
    reseller: str = "",
    name: str = "",
    locale: Locale = "ja",
    state: str = "active",
    now: dt.datetime,
) -> str:
    """A new account; returns its id.

    Raises:
        RejectedInput: the login is no mail address or is taken; the role and whose it is do not fit together.

    """
    login = login.strip().lower()
    if len(login) > ADDRESS_CAP or not _LOGIN.fullmatch(login):
        raise RejectedInput(f"{login[:80]!r} is no mail address that can be used.")
    if bool(tenant) != (role in ("admin", "member")) or bool(reseller) != (role == "reseller"):
        raise RejectedInput("An administrator or member has a customer, a reseller has a chamber, others have neither.")
    if by_login(db, login) is not None:
        raise RejectedInput(f"{login} has an account already.")
    account = secrets.token_hex(16)
    values = {"role": role, "tenant": tenant, "reseller": reseller, "locale": locale, "made_at": utc.text(now)}
    db.execute(ACCOUNT.insert().values(id=account, login=login, name=clean(name) or login, state=state, **values))
    return account


def by_login(db: sa.Connection, login: str) -> Row | None:
    return db.execute(sa.select(ACCOUNT).where(ACCOUNT.c.login == login.strip().lower()[:ADDRESS_CAP])).one_or_none()


def by_id(db: sa.Connection, account: str, scope: Scope) -> Row | None:
    """An account of somebody in the scope; staff and chambers have no customer and are in everyone's alone."""
    which = (ACCOUNT.c.id == account, scope.of(ACCOUNT.c.tenant))
    return db.execute(sa.select(ACCOUNT).where(*which)).one_or_none()


def change(db: sa.Connection, account: str, **values: str) -> None:
    db.execute(ACCOUNT.update().where(ACCOUNT.c.id == account).values(**values))


def remove(db: sa.Connection, account: str) -> None:
    """The account with everything that lets somebody in by it; what it did stays in the audit log."""
    for table in metadata.sorted_tables:
        if table.info.get("goes_with_account"):
            db.execute(table.delete().where(table.c.account == account))
    db.execute(ACCOUNT.delete().where(ACCOUNT.c.id == account))


def clean(name: str) -> str:
    """A person's name on one line, without what cannot be shown."""
    return " ".join("".join(char if char.isprintable() else " " for char in name[: 4 * NAME_CAP]).split())[:NAME_CAP]
