"""Which rules are switched off for all boxes, since when, by whom and why; the number of what was said last."""

from __future__ import annotations

import sqlalchemy as sa

from sekisho.center.database import metadata

RULE_OFF = sa.Table(
    "rule_off",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True, doc="sid, or yara"),
    sa.Column("rule", sa.Text, primary_key=True, doc="the number, or the name"),
    sa.Column("n", sa.BigInteger, nullable=False, doc="the number of the message that said it first"),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False, doc="an account's login; of the command line, the machine's user"),
    sa.Column("why", sa.Text, nullable=False),
)
RULE_WORD = sa.Table(
    "rule_word",
    metadata,
    sa.Column("one", sa.Integer, primary_key=True),
    sa.Column("n", sa.BigInteger, nullable=False, doc="the newest number"),
    sa.Column("newest", sa.BigInteger, nullable=False, doc="number of the newest published set; 0: none was announced"),
    sa.Column("sent_n", sa.BigInteger, nullable=False, doc="the last number that was handed to the broker"),
    sa.Column("sent_at", sa.Text, nullable=False),
)
