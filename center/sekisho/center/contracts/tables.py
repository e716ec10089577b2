"""What is kept of contracts: where each stands, exports, deletions under way, the records of those that are done."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from sekisho.center.database import metadata

CONTRACT: Final = sa.Table(
    "contract",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("asked_on", sa.Text, nullable=False),
    sa.Column("asked_by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("ends_on", sa.Text, nullable=False),
    sa.Column("ended_on", sa.Text, nullable=False),
    sa.Column("kept_until", sa.Text, nullable=False),
)
"""Its state is in `customer`."""

EXPORT: Final = sa.Table(
    "export",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, doc="waiting, running, ready, failed, gone"),
    sa.Column("asked_at", sa.Text, nullable=False),
    sa.Column("asked_by", sa.Text, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False, doc="written so far"),
    sa.Column("total", sa.BigInteger, nullable=False, doc="rows there were when it began"),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("done_at", sa.Text, nullable=False),
    sa.Column("until", sa.Text, nullable=False, doc="when the file goes"),
    sa.Index("export_by_tenant", "tenant", "asked_at"),
    sa.Index("export_by_state", "state", "asked_at"),
)

DELETION: Final = sa.Table(
    "deletion",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("began_at", sa.Text, nullable=False),
    sa.Column("ordered_by", sa.Text, nullable=False),
    sa.Column("ended_on", sa.Text, nullable=False),
    sa.Column("kept_until", sa.Text, nullable=False),
    sa.Column("at", sa.Integer, nullable=False, doc="how many parts of the plan are empty"),
    sa.Column("files", sa.Integer, nullable=False),
    sa.Column("removed", sa.LargeBinary, nullable=False, doc="JSON: table -> rows removed"),
    sa.Column(
        "cleared", sa.LargeBinary, nullable=False, doc="JSON: table -> rows kept without what names the customer"
    ),
)
"""Deletions under way."""

RECORD: Final = sa.Table(
    "deletion_record",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False, index=True),
    sa.Column("body", sa.LargeBinary, nullable=False, doc="what was done: `records.Record` as JSON"),
    sa.Column("hash", sa.Text, nullable=False, doc="SHA-256 of the record before's and of this body"),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
)

RECORD_KEY: Final = sa.Table(
    "record_key",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, doc="begins the public key's SHA-256"),
    sa.Column("secret", sa.LargeBinary, nullable=False, doc="Ed25519"),
    sa.Column("made_at", sa.Text, nullable=False),
)

RESELLER: Final = sa.Table(
    "reseller",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
)
"""Chambers at which customers apply."""

APPLICATION: Final = sa.Table(
    "application",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("reseller", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, doc="waiting, approved"),
    sa.Column("tenant", sa.Text, nullable=False, index=True, doc="empty until it is approved"),
    sa.Column("source", sa.Text, nullable=False, doc="the address it came from, for a day's count"),
    sa.Column("asked_at", sa.Text, nullable=False),
    sa.Column("company", sa.Text, nullable=False),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("mail", sa.Text, nullable=False),
    sa.Column("phone", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Index("application_by_reseller", "state", "reseller", "asked_at"),
    sa.Index("application_by_source", "source", "asked_at"),
)

RESEARCH: Final = sa.Table(
    "research_count",
    metadata,
    sa.Column("day", sa.Text, primary_key=True, doc="UTC"),
    sa.Column("function", sa.Text, primary_key=True),
    sa.Column("outcome", sa.Text, primary_key=True),
    sa.Column("customers", sa.BigInteger, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
)
"""Of all customers together, and only where nobody can be told from it (`contracts.research`)."""
