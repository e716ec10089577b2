"""What was decided for each box, and which exceptions are in it. Times are RFC 3339, UTC."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from sekisho.center.database import metadata

ORDERS: Final = sa.Table(
    "orders",
    metadata,
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("n", sa.BigInteger, nullable=False, doc="grows with every change"),
    sa.Column("document", sa.LargeBinary, nullable=False, doc="policy.overlay as JSON"),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False, doc="who decided, as people know them"),
    sa.Column("sent_n", sa.BigInteger, nullable=False, doc="what the broker has confirmed"),
    sa.Column("sent_at", sa.Text, nullable=False),
    sa.Index("orders_by_tenant", "tenant", "box"),
    sa.Index("orders_unsent", "box", sqlite_where=sa.text("n > sent_n"), postgresql_where=sa.text("n > sent_n")),
)
"""One row for each box about which anything was decided."""

EXCEPTION: Final = sa.Table(
    "orders_exception",
    metadata,
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("exemption", sa.LargeBinary, nullable=False, doc="policy.model.Exemption as JSON, for after its removal"),
    sa.Column("n", sa.BigInteger, nullable=False, doc="the document that brought it"),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("gone_n", sa.BigInteger, nullable=False, doc="the document that took it away; 0: it is there"),
    sa.Index("orders_exception_by_tenant", "tenant", "box", "id"),
)
"""Who made which exception, and when it came and went."""
