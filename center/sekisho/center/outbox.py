"""What follows from an event, written in the transaction that stores it: "stored" and "will be told" are one fact.

`notice`: an event that people may be told of (one star or more); center.notify takes it from there. `bad_file`: a file
judged malicious on one box; center.immunity tells the others. Only rows that are really new come here, so neither
a kill nor a repeated batch tells twice or never.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import sqlalchemy as sa

from sekisho.center import devices
from sekisho.center.database import metadata
from sekisho.telemetry import events
from sekisho.telemetry.events import FileVerdict

if TYPE_CHECKING:
    from sekisho.center.store import NewRow

NEW: Final = "new"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
RESTORED: Final = "restored"
"""A notice that people were told of before the centre was restored from a backup: kept and shown, not mailed again."""
BAD: Final = ("blocked", "delivered_then_found")


def _outbox(name: str, *columns: sa.Column[str] | sa.Column[int] | sa.Column[bytes] | sa.Index) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("box", sa.Text, nullable=False),
        sa.Column("epoch", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Text, nullable=False, doc="when it was seen on the wire"),
        sa.Column("received_at", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        *columns,
        sa.UniqueConstraint("box", "epoch", "seq"),
        sa.Index(f"{name}_by_state", "state", "id"),
        sqlite_autoincrement=True,
    )


NOTICE = _outbox(
    "notice",
    sa.Column("stars", sa.Integer, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False, doc="the event's JSON"),
    sa.Index("notice_by_box", "state", "box", "id"),
)
BAD_FILE = _outbox(
    "bad_file",
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("rules", sa.Text, nullable=False, doc="JSON list of the YARA rules that matched"),
)


def write(db: sa.Connection, tenant: str, box: str, epoch: str, new: Sequence[NewRow], received_at: str) -> None:
    """Note what people and boxes are to be told of these rows; `center.store` calls it while it stores them."""
    common = {"tenant": tenant, "box": box, "epoch": epoch, "received_at": received_at, "state": NEW}
    notices = [
        {**common, "seq": row.seq, "at": row.at, "stars": row.stars, "type": row.type, "body": row.body}
        | ({"state": RESTORED} if row.again else {})
        for row in new
        if row.stars
    ]
    if notices:
        db.execute(NOTICE.insert(), notices)
    devices.note(db, tenant, box, new)
    files = [{**common, "seq": row.seq, "at": row.at, **found} for row in new if (found := _bad_file(row))]
    if files:
        db.execute(BAD_FILE.insert(), files)


def _bad_file(row: NewRow) -> dict[str, str] | None:
    if row.lane != FileVerdict.lane or row.type != FileVerdict.__struct_config__.tag:
        return None
    verdict = events.decode(row.body)
    if not isinstance(verdict, FileVerdict) or verdict.outcome not in BAD or not verdict.rules:
        return None
    if not _SHA256.fullmatch(verdict.sha256):
        return None
    rules = msgspec.json.encode(verdict.rules).decode()
    return {"sha256": verdict.sha256, "outcome": verdict.outcome, "rules": rules}
