"""What the fleet knows: which files are on the list, since when and by whose word; who stays away; the numbers."""

from __future__ import annotations

import sqlalchemy as sa

from sekisho.center.database import metadata

FLEET_FILE = sa.Table(
    "fleet_file",
    metadata,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False, doc="listed, waiting (for more boxes) or withdrawn"),
    sa.Column("n", sa.BigInteger, nullable=False, doc="the list's number when it last came or went"),
    sa.Column("box", sa.Text, nullable=False, doc="whose verdict it was first; empty: an operator's"),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("rules", sa.Text, nullable=False, doc="JSON list"),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False, doc="why an operator withdrew it"),
    sa.Index("fleet_file_by_state", "state", "n"),
)
SIGHTING = sa.Table(
    "fleet_sighting",
    metadata,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("day", sa.Text, nullable=False, doc="UTC"),
    sa.Index("fleet_sighting_by_box", "box", "day"),
)
FLEET_LIST = sa.Table(
    "fleet_list",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True),
    sa.Column("n", sa.BigInteger, nullable=False, doc="the newest number"),
    sa.Column("base", sa.BigInteger, nullable=False, doc="the number of the last whole list; 0: none yet"),
    sa.Column("based_at", sa.BigInteger, nullable=False, doc="when that was made, unix seconds"),
)
FLEET_AWAY = sa.Table(
    "fleet_away",
    metadata,
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
)
