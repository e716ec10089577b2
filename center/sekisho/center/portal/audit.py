"""Who changed what and when: written in the transaction of the change, never altered."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center.database import metadata
from sekisho.center.portal.viewer import Viewer
from sekisho.center.scope import Scope

ABOUT_CAP: Final = 200

AUDIT: Final = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("tenant", sa.Text, nullable=False, doc="whose data it was about; empty: the centre's own"),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("login", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False, doc="exception.add, member.invite, ..."),
    sa.Column("about", sa.Text, nullable=False),
    sa.Index("audit_by_tenant", "tenant", "id"),
    sqlite_autoincrement=True,
)


def note(db: sa.Connection, who: Viewer, action: str, about: str = "", *, tenant: str | None = None) -> None:
    """Keep what `who` does; `tenant` where it is not the customer whose pages are shown."""
    where = who.tenant if tenant is None else tenant
    _keep(db, who.account, who.login, action, about, where)


def write(db: sa.Connection, account: sa.Row[Any], action: str, about: str = "", *, by: str = "") -> None:
    """Keep what happened to an account that nobody is signed in with (yet): a sign-in, a password set by a link.

    `by`: who did it, where that was not its owner.
    """
    _keep(db, account.id, by or account.login, action, about, account.tenant)


def note_machine(db: sa.Connection, user: str, action: str, about: str = "") -> None:
    """Keep what somebody does on the centre's own machine (`sekisho center ...`), who is no account here."""
    _keep(db, "", f"{user} (command line)", action, about, "")


def of(db: sa.Connection, scope: Scope, *, before: int = 0, limit: int = 100) -> list[sa.Row[Any]]:
    """The newest entries about customers of the scope; `before`: older than the entry of this number."""
    query = sa.select(AUDIT).where(scope.of(AUDIT.c.tenant)).order_by(AUDIT.c.id.desc()).limit(limit)
    return list(db.execute(query.where(AUDIT.c.id < before) if before else query))


def _keep(db: sa.Connection, account: str, login: str, action: str, about: str, tenant: str) -> None:
    values = {"account": account, "login": login, "action": action, "about": about[:ABOUT_CAP], "tenant": tenant}
    db.execute(AUDIT.insert().values(at=utc.now(), **values))
