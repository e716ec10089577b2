"""Whether each device is really protected: what share of its bytes was looked at, told no better than it is known.

Three words: `guarded` when all but a trace of the last day's bytes was looked at, `partly` when not, `unknown` when
nothing is known of that day (it was switched off, or its traffic does not cross the box). Encrypted bytes count as
looked at as far as that goes: whom the device talks to was judged, the content cannot be. They are shown apart.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.center.devices import OWN
from sekisho.center.scope import Scope
from sekisho.center.streams import STREAM
from sekisho.center.views.devices import COVERED, EVERYBODY, SEEN, WHY

TRACE: Final = 0.01
"""Share of unlooked-at bytes up to which a device still counts as guarded."""
CONTRACT_DEVICES: Final = 100
"""Devices behind one box that the terms name as a guide (Article 2, 8)."""
RECENT: Final = dt.timedelta(days=30)
DAY: Final = dt.timedelta(days=1)
WEEK: Final = dt.timedelta(days=7)
PAGE: Final = 200

State = Literal["guarded", "partly", "unknown"]


class Shares(msgspec.Struct, frozen=True):
    """Bytes of some hours, by what became of them."""

    inspected: int = 0
    opaque: int = 0
    bypassed: int = 0
    unseen: int = 0
    until: str = ""
    """The last hour that is known; empty: none."""

    @property
    def total(self) -> int:
        return self.inspected + self.opaque + self.bypassed + self.unseen

    @property
    def passed(self) -> int:
        """Not looked at, for whatever reason."""
        return self.bypassed + self.unseen

    @property
    def state(self) -> State:
        if not self.total:
            return "unknown"
        return "guarded" if self.passed <= self.total * TRACE else "partly"

    def plus(self, other: Shares) -> Shares:
        looked = (self.inspected + other.inspected, self.opaque + other.opaque)
        passed = (self.bypassed + other.bypassed, self.unseen + other.unseen)
        return Shares(*looked, *passed, max(self.until, other.until))


class Watched(msgspec.Struct, frozen=True):
    """One device as the pages show it."""

    box: str
    mac: str
    name: str
    """As the device says of itself."""
    kind: str
    vendor: str
    addresses: str
    random_mac: bool
    first_seen: str
    last_seen: str
    own_name: str
    """As its people call it; `whose` likewise."""
    whose: str
    standing: str
    day: Shares
    week: Shares
    whys: tuple[tuple[str, int], ...]
    """Why bytes of the last day (else of the week) were not looked at, the most first."""

    @property
    def state(self) -> State:
        return self.day.state


def listing(
    db: sa.Connection, scope: Scope, now: dt.datetime, *, before: tuple[str, ...] = (), limit: int = PAGE
) -> list[Watched]:
    """A page of devices, the last seen first; `before` is the (last_seen, box, mac) where the last page ended."""
    query = _query(scope)
    if before:
        query = query.where(sa.tuple_(SEEN.c.last_seen, SEEN.c.box, SEEN.c.mac) < sa.tuple_(*map(sa.literal, before)))
    order = (SEEN.c.last_seen.desc(), SEEN.c.box.desc(), SEEN.c.mac.desc())
    return _with_shares(db, scope, db.execute(query.order_by(*order).limit(limit)).all(), now)


def one(db: sa.Connection, scope: Scope, box: str, mac: str, now: dt.datetime) -> Watched | None:
    """A device; None where the scope has none of that name."""
    rows = db.execute(_query(scope).where(SEEN.c.box == box, SEEN.c.mac == mac)).all()
    return next(iter(_with_shares(db, scope, rows, now)), None)


def count(db: sa.Connection, scope: Scope, now: dt.datetime, *, most: int = 1000) -> dict[str, int]:
    """Box -> devices that were seen in the last 30 days; counted up to `most`."""
    recent = sa.select(SEEN.c.box).where(scope.of(SEEN.c.tenant), SEEN.c.last_seen >= _text(now - RECENT))
    some = recent.limit(most).subquery()
    return {box: number for box, number in db.execute(sa.select(some.c.box, sa.func.count()).group_by(some.c.box))}


def boxes(db: sa.Connection, scope: Scope) -> list[str]:
    """The boxes that have ever been heard for these customers."""
    query = sa.select(STREAM.c.box).where(scope.of(STREAM.c.tenant)).distinct().order_by(STREAM.c.box)
    return list(db.scalars(query))


def names(db: sa.Connection, scope: Scope, which: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """What these devices (box, address) are called: by their people, else by themselves."""
    query = _query(scope).where(sa.tuple_(SEEN.c.box, SEEN.c.mac).in_(sorted(which)))
    rows = db.execute(query) if which else ()
    return {(row.box, row.mac): _name(row) for row in rows}


def named(db: sa.Connection, scope: Scope) -> dict[str, str]:
    """Address -> name of the devices that were seen last, to choose from."""
    rows = db.execute(_query(scope).order_by(SEEN.c.last_seen.desc()).limit(PAGE)).all()
    return {row.mac: _name(row) for row in sorted(rows, key=lambda row: (not _name(row), _name(row).lower()))}


def _name(row: Any) -> str:
    return str(row.own_name or row.name)


def nobodys(db: sa.Connection, scope: Scope, boxes: Iterable[str], now: dt.datetime) -> Shares:
    """Bytes of the last day that belong to no one device, or to all."""
    sums = Shares()
    for box in boxes:
        for (_, recent), shares in _sums(db, scope, box, ("", EVERYBODY), now).items():
            sums = sums.plus(shares) if recent else sums
    return sums


def hours(db: sa.Connection, scope: Scope, box: str, mac: str, now: dt.datetime) -> list[tuple[str, Shares]]:
    """The device's hours of the last week, oldest first."""
    which = (scope.of(COVERED.c.tenant), COVERED.c.box == box, COVERED.c.mac == mac)
    what = (COVERED.c.hour, COVERED.c.inspected, COVERED.c.opaque, COVERED.c.bypassed, COVERED.c.unseen)
    rows = db.execute(sa.select(*what).where(*which, COVERED.c.hour >= _text(now - WEEK)).order_by(COVERED.c.hour))
    return [(row.hour, Shares(row.inspected, row.opaque, row.bypassed, row.unseen, row.hour)) for row in rows]


def _query(scope: Scope) -> sa.Select[Any]:
    own = sa.and_(OWN.c.tenant == SEEN.c.tenant, OWN.c.box == SEEN.c.box, OWN.c.mac == SEEN.c.mac)
    columns = (("own_name", OWN.c.name), ("whose", OWN.c.whose), ("standing", OWN.c.standing))
    said = (sa.func.coalesce(column, "").label(name) for name, column in columns)
    facts = (SEEN.c[name] for name in Watched.__struct_fields__[:9])
    return sa.select(*facts, *said).select_from(SEEN.outerjoin(OWN, own)).where(scope.of(SEEN.c.tenant))


def _with_shares(db: sa.Connection, scope: Scope, rows: Sequence[Any], now: dt.datetime) -> list[Watched]:
    sums: dict[tuple[str, str, int], Shares] = {}
    whys: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for box in sorted({row.box for row in rows}):
        macs = [row.mac for row in rows if row.box == box]
        sums |= {(box, *key): shares for key, shares in _sums(db, scope, box, macs, now).items()}
        whys |= {(box, mac): found for mac, found in _whys(db, scope, box, macs, now).items()}
    made = []
    for row in rows:
        day, older = (sums.get((row.box, row.mac, recent), Shares()) for recent in (1, 0))
        facts = dict(zip(Watched.__struct_fields__, row, strict=False))
        reasons = tuple(whys.get((row.box, row.mac), ()))
        made.append(Watched(**facts, day=day, week=day.plus(older), whys=reasons))
    return made


def _sums(
    db: sa.Connection, scope: Scope, box: str, macs: Sequence[str], now: dt.datetime
) -> dict[tuple[str, int], Shares]:
    """(Device, 1 in the last day and 0 before it) -> its bytes in the last week."""
    recent = sa.case((COVERED.c.hour >= _text(now - DAY), 1), else_=0).label("recent")
    columns = (COVERED.c.inspected, COVERED.c.opaque, COVERED.c.bypassed, COVERED.c.unseen)
    which = (scope.of(COVERED.c.tenant), COVERED.c.box == box, COVERED.c.mac.in_(macs))
    sums = (sa.func.sum(column).label(column.name) for column in columns)
    query = sa.select(COVERED.c.mac, recent, *sums, sa.func.max(COVERED.c.hour).label("until"))
    rows = db.execute(query.where(*which, COVERED.c.hour >= _text(now - WEEK)).group_by(COVERED.c.mac, recent))
    return {
        (r.mac, r.recent): Shares(int(r.inspected), int(r.opaque), int(r.bypassed), int(r.unseen), r.until)
        for r in rows
    }


def _whys(
    db: sa.Connection, scope: Scope, box: str, macs: Sequence[str], now: dt.datetime
) -> dict[str, list[tuple[str, int]]]:
    recent = sa.case((WHY.c.hour >= _text(now - DAY), 1), else_=0).label("recent")
    which = (scope.of(WHY.c.tenant), WHY.c.box == box, WHY.c.mac.in_(macs), WHY.c.hour >= _text(now - WEEK))
    query = sa.select(WHY.c.mac, recent, WHY.c.why, sa.func.sum(WHY.c.octets)).where(*which)
    found: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for mac, is_recent, why, octets in db.execute(query.group_by(WHY.c.mac, recent, WHY.c.why)):
        found.setdefault((mac, is_recent), []).append((why, int(octets)))
    chosen = {mac: found.get((mac, 1)) or found[mac, 0] for mac, _ in found}
    return {mac: sorted(whys, key=lambda pair: -pair[1]) for mac, whys in chosen.items()}


def _text(at: dt.datetime) -> str:
    return at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:00:00Z")
