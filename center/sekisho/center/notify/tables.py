"""The notifier's tables: what gathers, what is mailed and whether it arrived, what people answered, how boxes were.

Everything that decides about a mail is in here and changes in one transaction with it: after a kill the next daemon
goes on where the last one committed.
"""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from sekisho.center.database import metadata

gathering = sa.Table(
    "gathering",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("topic", sa.String(32), nullable=False),
    sa.Column("stars", sa.Integer, nullable=False),
    sa.Column("opened_at", sa.String(32), nullable=False),
    sa.Column("until", sa.String(32), nullable=False, index=True),
    sa.Column("rounds", sa.Integer, nullable=False),
    sa.Column("thread", sa.String(160), nullable=False),
    sa.UniqueConstraint("tenant", "kind", "topic"),
)
"""Open rounds. Of a topic's: `stars`, what its mail had; `thread`, what its first mail was about."""

heap = sa.Table(
    "heap",
    metadata,
    sa.Column("gathering", sa.String(32), primary_key=True),
    sa.Column("topic", sa.String(32), primary_key=True),
    sa.Column("told", sa.LargeBinary, nullable=False),
    sa.Column("stars", sa.Integer, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("first", sa.String(64), nullable=False),
    sa.Column("last", sa.String(64), nullable=False),
)
"""What an open round holds: one row per topic, with its number."""

mail = sa.Table(
    "mail",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("recipient", sa.String(320), nullable=False),
    sa.Column("kind", sa.String(12), nullable=False),
    sa.Column("about", sa.String(160), nullable=False),
    sa.Column("stars", sa.Integer, nullable=False),
    sa.Column("letter", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("due_at", sa.String(32), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("reply", sa.String(200), nullable=False, default=""),
    sa.Column("done_at", sa.String(32), nullable=False, default=""),
    sa.Column("deferred_at", sa.String(32), nullable=False, default=""),
    sa.Index("mail_due", "state", "due_at"),
    sa.Index("mail_tenant", "tenant", "created_at"),
)
"""One mail to one recipient. state: due; sending (claimed until due_at, then due again); sent; failed (for good).
deferred_at: when it was first refused for now, empty before."""

watch = sa.Table(
    "watch",
    metadata,
    sa.Column("box", sa.String(64), primary_key=True),
    sa.Column("watched", sa.LargeBinary, nullable=False),
)
"""What people were last told of each box's reachability (`offline.Watched`)."""

request = sa.Table(
    "request",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("action", sa.String(8), nullable=False),
    sa.Column("mail", sa.String(32), nullable=False),
    sa.Column("recipient", sa.String(320), nullable=False),
    sa.Column("about", sa.String(160), nullable=False),
    sa.Column("asked_at", sa.String(32), nullable=False),
    sa.Column("done_at", sa.String(32), nullable=False, default=""),
    sa.Column("done_by", sa.String(80), nullable=False, default=""),
)
"""What people answered by a link: "fine" or "call"; open until the centre's staff has done it."""

link_key = sa.Table(
    "link_key",
    metadata,
    sa.Column("id", sa.String(8), primary_key=True),
    sa.Column("secret", sa.LargeBinary, nullable=False),
    sa.Column("made_at", sa.String(32), nullable=False),
)


def text(moment: dt.datetime) -> str:
    """A time as it is stored: UTC, RFC 3339, always microseconds, so that texts sort as times do."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(stored: str) -> dt.datetime:
    """A stored time."""
    return dt.datetime.fromisoformat(stored)
