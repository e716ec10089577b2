"""Which rules and functions report most across all boxes, by UTC day of receipt: to tell noise from attacks.

`noise` says which boxes a rule spoke on; `noise_rule` adds up what a page shows, so that it reads a few hundred rows
however many boxes there are. Rules of file verdicts are there as functions: `YARA` and their name. Names are kept of
rules only: what a policy's entry is called is the customer's own.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from sekisho.center.database import insert_new, metadata
from sekisho.center.settings import Days
from sekisho.center.views.model import Row, Slice
from sekisho.telemetry.events import Alert, FileVerdict

KEPT_DAYS: Final = 31
RULES_CAP: Final = 300
"""Rules of one box on one day that are told apart; the rest is counted together."""
COUNT_CAP: Final = 1_000_000
NAME_CAP: Final = 200
SUM_CAP: Final = 1 << 50
SID_CAP: Final = 1 << 62
"""A box may say any number; one beyond this is no rule's, and no database's either."""
REST: Final = "rest"
YARA: Final = "yara:"
"""What a YARA rule's name follows, in the place of a function."""
_YARA_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")

NOISE: Final = sa.Table(
    "noise",
    metadata,
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("function", sa.Text, primary_key=True, doc="signature, a policy function, `YARA` and a name, or `REST`"),
    sa.Column("sid", sa.BigInteger, primary_key=True, autoincrement=False, doc="0: no signature"),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Index("noise_by_tenant", "tenant", "day"),
    sqlite_with_rowid=False,
)
NOISE_RULE: Final = sa.Table(
    "noise_rule",
    metadata,
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("function", sa.Text, primary_key=True),
    sa.Column("sid", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("boxes", sa.BigInteger, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("name", sa.Text, nullable=False, doc="the signature's"),
    sqlite_with_rowid=False,
)
TABLES: Final = (NOISE, NOISE_RULE)
_ADD: Final = sa.text(
    "INSERT INTO noise_rule(day, function, sid, boxes, count, name)"
    " VALUES (:day, :function, :sid, :boxes, :count, :name) ON CONFLICT(day, function, sid) DO UPDATE SET"
    " boxes = noise_rule.boxes + excluded.boxes,"
    " count = CASE WHEN noise_rule.count > :most THEN noise_rule.count ELSE noise_rule.count + excluded.count END,"
    " name = CASE WHEN excluded.name = '' THEN noise_rule.name ELSE excluded.name END"
)


class _Key(NamedTuple):
    day: str
    box: str
    function: str
    sid: int


def take(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Count these events: three statements, however many they are."""
    counts: Counter[_Key] = Counter()
    tenants: dict[str, str] = {}
    names: dict[int, str] = {}
    for row in rows:
        if isinstance(row.event, Alert):
            sid = 0 if row.event.function or not 0 <= row.event.sid < SID_CAP else row.event.sid
            counts[_Key(row.received_at[:10], row.box, row.event.function or "signature", sid)] += min(
                row.event.count, COUNT_CAP
            )
            tenants[row.box] = row.tenant
            if sid:
                names[sid] = row.event.signature[:NAME_CAP]
        elif isinstance(row.event, FileVerdict):
            for name in {name for name in row.event.rules if _YARA_NAME.fullmatch(name)}:
                counts[_Key(row.received_at[:10], row.box, YARA + name, 0)] += 1
                tenants[row.box] = row.tenant
    if counts:
        _count(db, counts, tenants, names)


def forget(db: sa.Connection, tenant: str, _days: Days, today: dt.date, limit: int) -> int:
    """Drop days that are past; what boxes are counted under goes with the day for everybody."""
    before, keys = str(today - dt.timedelta(days=KEPT_DAYS)), list(NOISE.primary_key)
    old = sa.select(*keys).where(NOISE.c.tenant == tenant, NOISE.c.day < before).limit(limit)
    db.execute(NOISE_RULE.delete().where(NOISE_RULE.c.day < before))
    return db.execute(NOISE.delete().where(sa.tuple_(*keys).in_(old))).rowcount


def _count(db: sa.Connection, counts: Counter[_Key], tenants: dict[str, str], names: dict[int, str]) -> None:
    places = sorted({(key.day, key.box) for key in counts})
    which = sa.tuple_(NOISE.c.day, NOISE.c.box).in_(places)
    known = {_Key(*row) for row in db.execute(sa.select(*(NOISE.c[name] for name in _Key._fields)).where(which))}
    full = Counter((key.day, key.box) for key in known)
    new: list[_Key] = []
    rules: dict[tuple[str, str, int], dict[str, Any]] = {}
    for key, number in sorted(counts.items()):
        if key not in known and full[key.day, key.box] >= RULES_CAP:
            key = key._replace(function=REST, sid=0)
        fresh = key not in known
        if fresh:
            known.add(key)
            full[key.day, key.box] += 1
            new.append(key)
        one = rules.setdefault((key.day, key.function, key.sid), {"boxes": 0, "count": 0})
        one["boxes"] += fresh
        one["count"] += number
    if new:
        db.execute(insert_new(db, NOISE), [{**key._asdict(), "tenant": tenants[key.box]} for key in new])
    facts = [
        {
            "day": day,
            "function": function,
            "sid": sid,
            "name": names.get(sid, "") if sid else "",
            "most": SUM_CAP,
            **one,
        }
        for (day, function, sid), one in sorted(rules.items())
    ]
    db.execute(_ADD, facts)


SLICE: Final = Slice("noise", TABLES, take, forget)
