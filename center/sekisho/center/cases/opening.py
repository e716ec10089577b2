"""Alerts of three stars become cases, in the transaction that stores them. A view slice that is never made anew.

One case per customer, box, device and reason while it is open: what comes again goes into it. After it was closed
the next one opens another. An event that came again after a restore, or while views are made anew, opens none: people
had it before. Taking the same events twice changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa

from sekisho.center.cases import record
from sekisho.center.cases.record import Entry
from sekisho.center.cases.steps import Work
from sekisho.center.cases.tables import ALERT, CASE
from sekisho.center.database import insert_new
from sekisho.center.notify.told import Told, tell

if TYPE_CHECKING:
    from sekisho.center.views.model import Row

IMPORTANT: Final = 3
OPEN_CAP: Final = 500
"""Open cases of one customer: a box gone mad cannot bury the others' cases under its own."""
_ASKED: Final = 400
"""Keys in one statement, far below SQLite's 32,766 parameters."""

log = logging.getLogger(__name__)

_Part = TypeVar("_Part")


class _Important(NamedTuple):
    row: Row
    told: Told
    key: str


def take(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Open cases for these rows, or put them into those that are open."""
    found = [one for row in rows if not row.again and (one := _important(row)) is not None]
    if not found:
        return
    known = _known(db, found)
    by_key: dict[str, list[_Important]] = {}
    for one in found:
        if (one.row.box, one.row.epoch, one.row.seq) not in known:
            by_key.setdefault(one.key, []).append(one)
    is_open = _open(db, by_key)
    fresh = _with_room(db, {key: group for key, group in by_key.items() if key not in is_open})
    ours: set[str] = set()
    if fresh:
        db.execute(insert_new(db, CASE), [_case(group[0]) for group in fresh.values()])
        made = _open(db, fresh)
        ours = {key for key, case in made.items() if case.id == _id(fresh[key][0].row)}  # another worker may be first
        is_open |= made
    for key, group in sorted(by_key.items()):
        if key in is_open:
            _put(db, is_open[key], group, new=key in ours)


def _id(row: Row) -> str:
    """A case's name, from the alert that opened it: twelve letters and digits that can be read out on the phone."""
    digest = hashlib.sha256("\0".join((row.tenant, row.box, row.epoch, str(row.seq))).encode()).digest()
    return base64.b32encode(digest).decode()[:12]


def _important(row: Row) -> _Important | None:
    if getattr(row.event, "stars", 0) != IMPORTANT:
        return None
    told = tell(row.box, row.event)
    if told is None:
        return None
    parts = (row.tenant, row.box, told.mac or told.device, told.why)
    return _Important(row, told, hashlib.sha256("\0".join(parts).encode()).hexdigest())


def _known(db: sa.Connection, found: Sequence[_Important]) -> set[tuple[str, str, int]]:
    """Those that are in a case."""
    known: set[tuple[str, str, int]] = set()
    for (box, epoch), group in _by_stream(found).items():
        for part in _parts([one.row.seq for one in group]):
            which = (ALERT.c.box == box, ALERT.c.epoch == epoch, ALERT.c.seq.in_(part))
            known |= {(box, epoch, seq) for seq in db.scalars(sa.select(ALERT.c.seq).where(*which))}
    return known


def _by_stream(found: Sequence[_Important]) -> dict[tuple[str, str], list[_Important]]:
    streams: dict[tuple[str, str], list[_Important]] = {}
    for one in found:
        streams.setdefault((one.row.box, one.row.epoch), []).append(one)
    return streams


def _open(db: sa.Connection, keys: Iterable[str]) -> dict[str, Any]:
    """The open cases with these keys, held until the transaction's end."""
    found: dict[str, Any] = {}
    for part in _parts(sorted(keys)):
        query = sa.select(CASE.c.id, CASE.c.open_key, CASE.c.number).where(CASE.c.open_key.in_(part))
        found |= {row.open_key: row for row in db.execute(query.order_by(CASE.c.open_key).with_for_update())}
    return found


def _with_room(db: sa.Connection, fresh: Mapping[str, list[_Important]]) -> dict[str, list[_Important]]:
    """As many as the customer may have open, by key: two workers take them in one order."""
    left: dict[str, int] = {}
    kept: dict[str, list[_Important]] = {}
    for key, group in sorted(fresh.items()):
        tenant = group[0].row.tenant
        if tenant not in left:
            which = (CASE.c.tenant == tenant, CASE.c.open_key.is_not(None))
            left[tenant] = OPEN_CAP - db.execute(sa.select(sa.func.count()).where(*which)).scalar_one()
        left[tenant] -= 1
        if left[tenant] >= 0:
            kept[key] = group
    for tenant, over in left.items():
        if over < 0:
            log.warning("%s has %d open cases: %d more were not opened", tenant, OPEN_CAP, -over)
    return kept


def _case(one: _Important) -> dict[str, object]:
    row, told = one.row, one.told
    return {
        "id": _id(row),
        "tenant": row.tenant,
        "box": row.box,
        "epoch": row.epoch,
        "seq": row.seq,
        "device": told.device,
        "mac": told.mac,
        "why": told.why,
        "state": "open",
        "detected_at": told.at,
        "opened_at": row.received_at,
        "last_at": told.at,
        "last_received": row.received_at,
        "number": 0,
        "facts": msgspec.json.encode(told),
        "work": msgspec.json.encode(Work()),
        "used_on": "",
        "open_key": one.key,
    }


def _put(db: sa.Connection, case: Any, group: Sequence[_Important], *, new: bool) -> None:
    if new:
        _log(db, group[0], case.id, "opened", 1)
    values = [
        {"box": r.box, "epoch": r.epoch, "seq": r.seq, "tenant": r.tenant, "case": case.id, "at": r.at}
        for r, _, _ in group
    ]
    db.execute(insert_new(db, ALERT), values)
    total = case.number + len(group)
    newest = {"last_at": max(one.row.at for one in group), "last_received": max(one.row.received_at for one in group)}
    later = {name: sa.case((CASE.c[name] < at, at), else_=CASE.c[name]) for name, at in newest.items()}
    db.execute(CASE.update().where(CASE.c.id == case.id).values(number=total, **later))
    if total.bit_length() > (1 if new else case.number.bit_length()):
        _log(db, group[-1], case.id, "repeated", total)


def _log(db: sa.Connection, one: _Important, case: str, kind: str, number: int) -> None:
    """What happened by itself; repeats are written down each time their number has doubled."""
    n, before = (0, record.BEGIN) if kind == "opened" else record.last(db, case)
    key = f"{one.row.box}/{one.row.epoch}/{one.row.seq}"
    data = {"alert": key, "at": one.row.at, "why": one.told.why, "number": number}
    record.add(db, one.row.tenant, Entry(case, n + 1, one.row.received_at, "", "", kind, data), before)


def _parts(values: Sequence[_Part]) -> Iterable[Sequence[_Part]]:
    for start in range(0, len(values), _ASKED):
        yield values[start : start + _ASKED]
