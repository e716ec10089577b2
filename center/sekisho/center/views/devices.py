"""Which devices each box has seen, and what share of each one's bytes was looked at, hour by hour.

Facts come from Device and Coverage events. What a box says of an hour once more, word for word, replaces what was
there; another word of the same hour (the box's clock was set back) is added. Hours are kept for `KEPT_DAYS`.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import sqlalchemy as sa

from sekisho.center.database import metadata
from sekisho.center.settings import Days
from sekisho.center.views.model import Row, Slice
from sekisho.telemetry.events import Coverage, Device

KEPT_DAYS: Final = 40
"""A month's report is exact in every time zone."""
EVERYBODY: Final = "ff:ff:ff:ff:ff:ff"
"""Stands for frames to many devices at once, in what boxes report."""
WORD_CAP: Final = 64
ADDRESSES_CAP: Final = 8
OCTETS_CAP: Final = 1 << 44
"""Of one device in one hour: more than any wire carries; sums of these stay far below what a database can add."""

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}|mac-[a-z0-9]{10}")
"""An address, or the pseudonym a box sends where its owner wants that (telemetry.masking); likewise `_IP`."""
_IP = re.compile(r"ip-[a-z0-9]{10}")
_HOUR = re.compile(r"\d{4}-\d\d-\d\dT\d\d:00:00Z")

SEEN: Final = sa.Table(
    "device_seen",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("mac", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, nullable=False, doc="of the newest Device event; empty: only its traffic was seen"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("vendor", sa.Text, nullable=False),
    sa.Column("addresses", sa.Text, nullable=False, doc="IPv4 then IPv6, with a blank between"),
    sa.Column("random_mac", sa.Boolean, nullable=False),
    sa.Column("first_seen", sa.Text, nullable=False),
    sa.Column("last_seen", sa.Text, nullable=False),
    sa.Index("device_seen_by_tenant", "tenant", "last_seen", "box", "mac"),
)
COVERED: Final = sa.Table(
    "covered",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("mac", sa.Text, primary_key=True, doc="empty: nobody knows whose; EVERYBODY"),
    sa.Column("hour", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("inspected", sa.BigInteger, nullable=False),
    sa.Column("opaque", sa.BigInteger, nullable=False),
    sa.Column("bypassed", sa.BigInteger, nullable=False),
    sa.Column("unseen", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
WHY: Final = sa.Table(
    "covered_why",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("mac", sa.Text, primary_key=True),
    sa.Column("hour", sa.Text, primary_key=True),
    sa.Column("why", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("octets", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)


def take(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Keep what these events say of devices."""
    told = [_told(row, row.event) for row in rows if isinstance(row.event, Device) and _MAC.fullmatch(row.event.mac)]
    hours = [(row, row.event) for row in rows if isinstance(row.event, Coverage) and _is_usable(row, row.event)]
    if told:
        db.execute(_TELL, _sorted(told))
    if not hours:
        return
    seen = [_busy(row, event) for row, event in hours if event.mac not in ("", EVERYBODY)]
    if seen:
        db.execute(_TELL, _sorted(seen))
    db.execute(_COVER, _sorted(_hour(row, event) for row, event in hours))
    if whys := [why for row, event in hours for why in _whys(row, event)]:
        db.execute(_COVER_WHY, _sorted(whys))


def forget(db: sa.Connection, tenant: str, days: Days, today: dt.date, limit: int) -> int:
    """Drop hours that are past their time; the devices themselves once nothing was seen of them for as long."""
    before = str(today - dt.timedelta(days=min(days.metadata, KEPT_DAYS)))
    late = sa.select(SEEN.c.box, SEEN.c.mac).where(SEEN.c.tenant == tenant, SEEN.c.last_seen < _first(days, today))
    names = sa.tuple_(SEEN.c.box, SEEN.c.mac).in_(late.limit(limit))
    gone = db.execute(SEEN.delete().where(SEEN.c.tenant == tenant, names)).rowcount
    for table in (COVERED, WHY):
        keys = list(table.primary_key)
        old = sa.select(*keys).where(table.c.tenant == tenant, table.c.hour < before).limit(limit)
        gone += db.execute(table.delete().where(sa.tuple_(*keys).in_(old))).rowcount
    return gone


def _first(days: Days, today: dt.date) -> str:
    return str(today - dt.timedelta(days=days.metadata))


def _is_usable(row: Row, event: Coverage) -> bool:
    if not (_MAC.fullmatch(event.mac) or not event.mac) or not _HOUR.fullmatch(event.hour):
        return False
    try:
        hour, received = dt.datetime.fromisoformat(event.hour), dt.datetime.fromisoformat(row.received_at)
    except ValueError:
        return False
    return received - dt.timedelta(days=KEPT_DAYS) <= hour <= received + dt.timedelta(days=1)


def _key(row: Row, mac: str) -> dict[str, Any]:
    return {"tenant": row.tenant, "box": row.box, "mac": mac}


def _told(row: Row, event: Device) -> dict[str, Any]:
    words = {key: _word(text) for key, text in (("name", event.name), ("kind", event.kind), ("vendor", event.vendor))}
    addresses = " ".join([*_addresses(event.ipv4), *_addresses(event.ipv6)])
    first, last = _time(event.first_seen) or row.at, _time(event.last_seen) or row.at
    facts = {"at": row.at, "addresses": addresses, "random_mac": event.random_mac}
    seen = {"first_seen": first, "last_seen": min(max(first, last), row.received_at)}  # else it is never forgotten
    return {**_key(row, event.mac), **words, **facts, **seen}


def _busy(row: Row, event: Coverage) -> dict[str, Any]:
    """A device of which only traffic is known; it was seen at some time of the hour."""
    until = (dt.datetime.fromisoformat(event.hour) + dt.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    unknown = {"at": "", "name": "", "kind": "", "vendor": "", "addresses": "", "random_mac": False}
    return {**_key(row, event.mac), **unknown, "first_seen": event.hour, "last_seen": min(until, row.at)}


def _hour(row: Row, event: Coverage) -> dict[str, Any]:
    passed = _octets(sum(share.octets for share in event.bypassed))
    looked = {"inspected": _octets(event.inspected), "opaque": _octets(event.opaque)}
    rest = {"bypassed": passed, "unseen": _octets(event.unseen)}
    return {**_key(row, event.mac), "hour": event.hour, "at": row.at, **looked, **rest}


def _whys(row: Row, event: Coverage) -> Iterable[dict[str, Any]]:
    for share in event.bypassed[:16]:
        if octets := _octets(share.octets):
            why = _word(share.why) or "other"
            yield {**_key(row, event.mac), "hour": event.hour, "at": row.at, "why": why, "octets": octets}


def _octets(number: int) -> int:
    return min(max(number, 0), OCTETS_CAP)


def _word(text: str) -> str:
    return text if len(text) <= WORD_CAP and text.isprintable() else ""


def _time(text: str) -> str:
    try:
        return text if dt.datetime.fromisoformat(text).tzinfo else ""
    except ValueError:
        return ""


def _addresses(texts: Sequence[str]) -> Iterable[str]:
    for text in texts[:ADDRESSES_CAP]:
        if _IP.fullmatch(text):
            yield text
            continue
        try:
            yield str(ipaddress.ip_address(text))
        except ValueError:
            continue


def _sorted(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """In one order, so that several workers cannot block each other."""
    return sorted(rows, key=lambda row: (row["tenant"], row["box"], row["mac"], row["at"]))


def _tell() -> sa.TextClause:
    words = ("name", "kind", "vendor", "addresses", "random_mac", "at")
    newer = "excluded.at <> '' AND excluded.at >= device_seen.at"
    told = ", ".join(f"{w} = CASE WHEN {newer} THEN excluded.{w} ELSE device_seen.{w} END" for w in words)
    first, last = (f"excluded.{c} {sign} device_seen.{c}" for c, sign in (("first_seen", "<"), ("last_seen", ">")))
    return sa.text(
        "INSERT INTO device_seen(tenant, box, mac, at, name, kind, vendor,"  # noqa: S608 - constant text
        " addresses, random_mac, first_seen, last_seen)"
        " VALUES (:tenant, :box, :mac, :at, :name, :kind, :vendor,"
        " :addresses, :random_mac, :first_seen, :last_seen)"
        f" ON CONFLICT(tenant, box, mac) DO UPDATE SET {told},"
        f" first_seen = CASE WHEN {first} THEN excluded.first_seen ELSE device_seen.first_seen END,"
        f" last_seen = CASE WHEN {last} THEN excluded.last_seen ELSE device_seen.last_seen END"
    )


def _added(table: str, columns: Sequence[str]) -> str:
    """Each column's new value: replaced by the same word, added to by another one, and never past the cap."""
    told = f"WHEN {table}.at = excluded.at THEN excluded."
    full = f"> {OCTETS_CAP} THEN {table}."
    sums = (f"{c} = CASE {told}{c} WHEN {table}.{c} {full}{c} ELSE {table}.{c} + excluded.{c} END" for c in columns)
    return ", ".join((*sums, "at = excluded.at"))


_TELL: Final = _tell()
_COVER: Final = sa.text(
    "INSERT INTO covered(tenant, box, mac, hour, at, inspected, opaque, bypassed, unseen)"  # noqa: S608 - constant text
    " VALUES (:tenant, :box, :mac, :hour, :at, :inspected, :opaque, :bypassed, :unseen)"
    f" ON CONFLICT(tenant, box, mac, hour) DO UPDATE SET "
    f"{_added('covered', ('inspected', 'opaque', 'bypassed', 'unseen'))}"
)
_COVER_WHY: Final = sa.text(
    "INSERT INTO covered_why(tenant, box, mac, hour, why, at, octets)"  # noqa: S608 - constant text
    " VALUES (:tenant, :box, :mac, :hour, :why, :at, :octets)"
    f" ON CONFLICT(tenant, box, mac, hour, why) DO UPDATE SET {_added('covered_why', ('octets',))}"
)

SLICE: Final = Slice("devices", (SEEN, COVERED, WHY), take, forget)
