"""What a rollout is made of, kept: itself, its jobs, its boxes, and what happened. Times are RFC 3339, UTC."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from sekisho.center.database import metadata

ROLLOUT: Final = sa.Table(
    "rollout",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, doc="ULID: the newest is the greatest"),
    sa.Column("state", sa.Text, nullable=False, doc="running, paused, halted, canceled, done"),
    sa.Column("counter", sa.BigInteger, nullable=False),
    sa.Column("about", sa.LargeBinary, nullable=False, doc="rollout.model.About as JSON"),
    sa.Column("rule", sa.LargeBinary, nullable=False, doc="rollout.model.Rule as JSON"),
    sa.Column("sizes", sa.LargeBinary, nullable=False, doc="boxes of each ring, JSON"),
    sa.Column("saved", sa.LargeBinary, nullable=False, doc="rollout.model.Rollout as JSON"),
    sa.Column("counted_at", sa.Float, nullable=False, doc="unix seconds: when `how` of its boxes was looked at last"),
    sa.Column("until", sa.Float, nullable=False, doc="unix seconds: its boxes have nothing more to say of it after"),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Index("rollout_by_counter", "counter", "id"),
)
ROLLOUT_JOB: Final = sa.Table(
    "rollout_job",
    metadata,
    sa.Column("job", sa.Text, primary_key=True, doc="the one that counts"),
    sa.Column("rollout", sa.Text, nullable=False),
    sa.Column("ring", sa.Integer, nullable=False),
    sa.Column("cancel", sa.Text, nullable=False, doc="the job that takes it back"),
    sa.Column("first", sa.Text, nullable=False, doc="what is sent with it and done before; empty: nothing"),
    sa.Column("first_cancel", sa.Text, nullable=False),
    sa.Index("rollout_job_by_rollout", "rollout", "ring"),
)
ROLLOUT_BOX: Final = sa.Table(
    "rollout_box",
    metadata,
    sa.Column("rollout", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("ring", sa.Integer, nullable=False),
    sa.Column("place", sa.Integer, nullable=False, doc="in the order in which boxes are asked"),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("site", sa.Text, nullable=False, doc="boxes of one site share a line"),
    sa.Column("asked_at", sa.Float, nullable=False, doc="unix seconds; 0: its job has not been let go"),
    sa.Column("worse", sa.Text, nullable=False, doc="what got worse with the release; empty: nothing"),
    sa.Column("forgiven", sa.Boolean, nullable=False, doc="it was bad when somebody resumed"),
    sa.Column("how", sa.Text, nullable=False, doc="rollout.machine.Standing at the last look"),
    sa.Index("rollout_box_by_place", "rollout", "place"),
    sa.Index("rollout_box_by_how", "rollout", "how", "place"),
    sa.Index("rollout_box_by_tenant", "tenant", "box"),
    sqlite_with_rowid=False,
)
ROLLOUT_NOTE: Final = sa.Table(
    "rollout_note",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("rollout", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("what", sa.Text, nullable=False, doc="start, ring, soak, halt, pause, resume, cancel, done"),
    sa.Column("by", sa.Text, nullable=False, doc="empty: nobody, it did so by itself"),
    sa.Column("saved", sa.LargeBinary, nullable=False, doc="rollout.model.Rollout as JSON, as it was then"),
    sa.Column("mailed", sa.Boolean, nullable=False, doc="whether the staff need not be told any more"),
    sa.Index("rollout_note_by_rollout", "rollout", "id"),
    sa.Index("rollout_note_unmailed", "id", sqlite_where=sa.text("mailed = 0"), postgresql_where=sa.text("NOT mailed")),
    sqlite_autoincrement=True,
)
