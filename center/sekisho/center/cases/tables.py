"""The tables of cases. All but the vendors' belong to a tenant and go with it."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from sekisho.center.database import metadata

CASE: Final = sa.Table(
    "case_file",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("box", sa.Text, nullable=False),
    sa.Column("epoch", sa.Text, nullable=False, doc="with seq: the alert that opened it"),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("device", sa.Text, nullable=False, doc="the LAN device's address; empty: the box itself"),
    sa.Column("mac", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False, doc="the rubric's code (telemetry.reasons)"),
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("detected_at", sa.Text, nullable=False, doc="by the box's clock"),
    sa.Column("opened_at", sa.Text, nullable=False, doc="when the centre was told"),
    sa.Column("last_at", sa.Text, nullable=False),
    sa.Column("last_received", sa.Text, nullable=False, doc="when the centre was told of the newest alert"),
    sa.Column("number", sa.BigInteger, nullable=False, doc="alerts in it"),
    sa.Column("facts", sa.LargeBinary, nullable=False, doc="notify.told.Told of the first alert, JSON"),
    sa.Column("work", sa.LargeBinary, nullable=False, doc="steps.Work, JSON"),
    sa.Column("used_on", sa.String(10), nullable=False, server_default="", doc="day of a visit that counts as a use"),
    sa.Column("open_key", sa.String(64), nullable=True, unique=True, doc="what repeats fold by; closed: none"),
    sa.Index("case_by_tenant", "tenant", "opened_at", "id"),
    sa.Index("case_by_time", "opened_at", "id"),
    sa.Index("case_by_use", "tenant", "used_on"),
)
ALERT: Final = sa.Table(
    "case_alert",
    metadata,
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("case", sa.String(16), nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Index("case_alert_by_case", "case", "at"),
)
LOG: Final = sa.Table(
    "case_log",
    metadata,
    sa.Column("case", sa.String(16), primary_key=True),
    sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("entry", sa.LargeBinary, nullable=False, doc="record.Entry, canonical JSON"),
    sa.Column("digest", sa.String(64), nullable=False, doc="SHA-256 over the digest before it and the entry"),
)
VENDOR: Final = sa.Table(
    "vendor",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("reseller", sa.Text, nullable=False, doc="whose customers see it; empty: everyone's"),
    sa.Column("area", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("phone", sa.Text, nullable=False),
    sa.Column("hours", sa.Text, nullable=False),
    sa.Index("vendor_by_area", "area", "name", "id"),
)
