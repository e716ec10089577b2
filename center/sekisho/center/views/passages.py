"""Where in the events the communication log's pages are: by kind in the order of time, and who was active when.

Two small tables, because every event passes here. `passage` has one row for each event of the log; `active` has one for
each device and site on each day, with the hours as bits, and is written when a bit is new. A search for a device or a
site reads the events of its hours only. Devices and sites stand there as hashes: whoever searches compares the events
themselves (`center.traffic`), and nothing readable is kept twice.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from sekisho.center.database import metadata
from sekisho.center.settings import Days
from sekisho.center.views.model import Row, Slice
from sekisho.telemetry.events import Dns, Event, FileVerdict, Mail, Tls, Web

KINDS: Final = ("web", "tls", "dns", "mail", "file")
HOUR_US: Final = 3_600 * 1_000_000
DAY_US: Final = 24 * HOUR_US
WEEK_US: Final = 7 * DAY_US
EARLY: Final = dt.timedelta(days=60)
LATE: Final = dt.timedelta(days=1)
"""How far a time may be from its receipt to be believed; else that of receipt stands for it."""
SITE_CAP: Final = 255

_BEGIN: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_US: Final = dt.timedelta(microseconds=1)
_Passage = Web | Tls | Dns | Mail | FileVerdict

PASSAGE: Final = sa.Table(
    "passage",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("week", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("term", sa.BigInteger, primary_key=True, autoincrement=False, doc="box and kind"),
    sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False, doc="microseconds since 1970, UTC"),
    sa.Column("event", sa.BigInteger, primary_key=True, autoincrement=False, doc="its id"),
    sqlite_with_rowid=False,
)
ACTIVE: Final = sa.Table(
    "active",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False, doc="since 1970, UTC"),
    sa.Column("term", sa.BigInteger, primary_key=True, autoincrement=False, doc="a device or a site"),
    sa.Column("hours", sa.Integer, nullable=False, doc="bit 0: 00:00 to 01:00 UTC"),
    sqlite_with_rowid=False,
)


def take(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Enter these events."""
    entries: list[tuple[str, int, int, int, int]] = []
    hours: dict[tuple[str, int, int], int] = {}
    received = dt.datetime.fromisoformat(rows[-1].received_at)
    for row in rows:
        if isinstance(row.event, _Passage):
            at = _time(row.at, received)
            entries.append((row.tenant, at // WEEK_US, by_kind(row.box, row.type), at, row.id))
            day, bit = at // DAY_US, 1 << at % DAY_US // HOUR_US
            for who in _terms(row.event):
                key = (row.tenant, day, who)
                hours[key] = hours.get(key, 0) | bit
    if entries:
        _insert(db, sorted(entries))
    if hours:
        _mark(db, [(*key, bits) for key, bits in sorted(hours.items())])


def forget(db: sa.Connection, tenant: str, days: Days, today: dt.date, limit: int) -> int:
    """Drop whole weeks and days that are past their time; what of the last week's events is gone is found no more."""
    first = micros(dt.datetime.combine(today - dt.timedelta(days=days.metadata), dt.time(), dt.UTC))
    gone = 0
    for table, late in ((PASSAGE, PASSAGE.c.week < first // WEEK_US), (ACTIVE, ACTIVE.c.day < first // DAY_US)):
        keys = list(table.primary_key)
        old = sa.select(*keys).where(table.c.tenant == tenant, late).limit(limit)
        gone += db.execute(table.delete().where(sa.tuple_(*keys).in_(old))).rowcount
    return gone


def micros(at: dt.datetime) -> int:
    return (at - _BEGIN) // _US


def term(*words: str) -> int:
    """What is looked for, as 64 bits."""
    digest = hashlib.blake2b("\0".join(words).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


@lru_cache(1 << 16)
def by_kind(box: str, kind: str) -> int:
    return term("kind", box, kind)


@lru_cache(1 << 14)
def by_device(mac: str) -> int:
    return term("device", mac)


@lru_cache(1 << 16)
def by_site(name: str) -> int:
    """A registered domain, which stands for all names under it, or an address."""
    return term("site", name)


def site_of(event: Event) -> str:
    """Whom was asked: a name in lower case where one is known, else an address; empty for mail."""
    match event:
        case Web() | FileVerdict():
            name = event.host
        case Tls():
            name = event.sni
        case Dns():
            name = event.name
        case _:
            return ""
    name = name or (event.flow.src_ip if isinstance(event, FileVerdict) else event.flow.dst_ip)
    return name[:SITE_CAP].rstrip(".").lower()


@lru_cache(1 << 14)
def domain_of(site: str) -> str:
    """What somebody registered: the last two labels, three under ones like co.jp; an address is its own."""
    labels = site.split(".")
    if labels[-1].isdigit() or ":" in site:
        return site
    short = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3
    return ".".join(labels[-3 if short else -2 :])


def _terms(event: _Passage) -> list[int]:
    found = [by_device(event.flow.mac)] if event.flow.mac else []
    if site := site_of(event):
        found.append(by_site(domain_of(site)))
    return found


def _insert(db: sa.Connection, values: Sequence[tuple[object, ...]]) -> None:
    """The driver's own way, as for the events themselves."""
    if db.dialect.name == "sqlite":
        db.exec_driver_sql("INSERT INTO passage(tenant, week, term, at, event) VALUES (?, ?, ?, ?, ?)", list(values))
        return
    driver: Any = db.connection.cursor()
    with driver as cursor, cursor.copy("COPY passage(tenant, week, term, at, event) FROM STDIN") as copy:
        for value in values:
            copy.write_row(value)


def _mark(db: sa.Connection, values: list[tuple[object, ...]]) -> None:
    """Hours that are known already cost a look and no write."""
    place = ", ".join(["?" if db.dialect.name == "sqlite" else "%s"] * 4)
    db.exec_driver_sql(
        f"INSERT INTO active(tenant, day, term, hours) VALUES ({place})"  # noqa: S608 - constant text
        " ON CONFLICT(tenant, day, term) DO UPDATE SET hours = active.hours | excluded.hours"
        " WHERE active.hours <> (active.hours | excluded.hours)",
        values,
    )


def _time(at: str, received: dt.datetime) -> int:
    try:
        seen = dt.datetime.fromisoformat(at)
    except ValueError:
        return micros(received)
    return micros(seen if received - EARLY <= seen <= received + LATE else received)


SLICE: Final = Slice("passages", (PASSAGE, ACTIVE), take, forget)
