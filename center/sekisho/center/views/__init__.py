"""What pages show, kept ready: tables written in the transaction that stores the events they come from.

Each slice is a module with its `SLICE` (`views.model`). What is in a view is therefore never behind the events,
and never ahead of them. A fault in a slice is ours alone: it is logged and counted, the events are stored all the
same, and `rebuild` makes the views anew from them. What fails together is tried box by box.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import sqlalchemy as sa

from sekisho.center.cases import opening
from sekisho.center.database import metadata
from sekisho.center.report import tally
from sekisho.center.views import alerts, counts, devices, firmware, health, jobs, noise, orders, passages, rulesets
from sekisho.center.views.model import Row, Slice
from sekisho.telemetry import events

if TYPE_CHECKING:
    from sekisho.center.store import NewRow

log = logging.getLogger(__name__)


SLICES: Final[tuple[Slice, ...]] = (
    Slice("orders", orders.TABLES, orders.take),
    devices.SLICE,
    passages.SLICE,
    counts.SLICE,
    health.SLICE,
    rulesets.SLICE,
    jobs.SLICE,
    firmware.SLICE,
    Slice("cases", (), opening.take),
    alerts.SLICE,
    noise.SLICE,
    Slice("report", tally.TABLES, tally.take, tally.forget),
)

FAULT: Final = sa.Table(
    "view_fault",
    metadata,
    sa.Column("slice", sa.Text, primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False, doc="events it does not show"),
    sa.Column("at", sa.Text, nullable=False),
)


def project(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Have every view take these rows; the store calls it once per transaction."""
    if rows:
        for slice_ in SLICES:
            _take(db, slice_, rows)


def decoded(tenant: str, box: str, epoch: str, new: Iterable[tuple[int, NewRow]], received_at: str) -> Iterable[Row]:
    """Stored rows, each with its id, as views take them; a body that is no event is in no view."""
    for number, row in new:
        try:
            event = events.decode(row.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        yield Row(tenant, box, epoch, row.seq, row.at, received_at, row.type, event, row.again, number)


def _take(db: sa.Connection, slice_: Slice, rows: Sequence[Row]) -> None:
    try:
        with db.begin_nested():
            slice_.take(db, rows)
    except Exception:
        boxes: dict[str, list[Row]] = {}
        for row in rows:
            boxes.setdefault(row.box, []).append(row)
        if len(boxes) > 1:  # what one box says must not cost another customer's its rows
            for _, own in sorted(boxes.items()):
                _take(db, slice_, own)
            return
        log.exception("the view %s did not take %d events: sekisho center rebuild-views", slice_.name, len(rows))
        _count_fault(db, slice_.name, rows)


def _count_fault(db: sa.Connection, name: str, rows: Sequence[Row]) -> None:
    at = rows[-1].received_at
    done = db.execute(FAULT.update().where(FAULT.c.slice == name).values(rows=FAULT.c.rows + len(rows), at=at))
    if not done.rowcount:
        db.execute(FAULT.insert().values(slice=name, rows=len(rows), at=at))
