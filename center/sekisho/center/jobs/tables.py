"""Jobs as they were signed, and for each box whether it is to go out and when it last did. Times are RFC 3339, UTC."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from sekisho.center.database import metadata

JOB: Final = sa.Table(
    "job",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("envelope", sa.LargeBinary, nullable=False, doc="core.jobs.Envelope as it was signed"),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("nbf", sa.BigInteger, nullable=False, doc="unix seconds"),
    sa.Column("exp", sa.BigInteger, nullable=False, doc="unix seconds: the last at which it may begin"),
    sa.Column("rollout", sa.Text, nullable=False),
    sa.Column("signers", sa.Text, nullable=False, doc="names in the signatures; a box says whether they are true"),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False, doc="who brought it here"),
    sa.Index("job_by_exp", "exp"),
)

JOB_BOX: Final = sa.Table(
    "job_box",
    metadata,
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("held", sa.SmallInteger, nullable=False, doc="1: it does not go out; 2: and never will"),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("sent_at", sa.Text, nullable=False, doc="when the broker last had it; empty: never"),
    sa.Column("birth", sa.BigInteger, nullable=False, doc="of the box's connection at that time"),
    sa.Column("next_at", sa.BigInteger, nullable=False, doc="unix seconds: not sent before; `NEVER_AGAIN`: over"),
    sa.Index("job_box_by_box", "box", "job"),
    sa.Index("job_box_due", "next_at", sqlite_where=sa.text("held = 0"), postgresql_where=sa.text("held = 0")),
)
