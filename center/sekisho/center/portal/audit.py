"""Who changed what and when: written in the transaction of the change, never altered."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center.database import metadata
from sekisho.center.portal.viewer import Viewer

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
    values = {"account": who.account, "login": who.login, "action": action, "about": about[:ABOUT_CAP]}
    where = who.tenant if tenant is None else tenant
    db.execute(AUDIT.insert().values(at=utc.now(), tenant=where, **values))
