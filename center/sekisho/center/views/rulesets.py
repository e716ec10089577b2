"""Which rule set each box works with, how fresh it is, what it refused and what it mutes: its newest word on each.

The signatures daemon and the inspectors write independently (`telemetry.events.Signatures`): a word about an inspector
without rules changes nothing that the daemon said of the set, and the other way round only that a set which was just
proven ends the silence before it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from sekisho.center.database import insert_new, metadata
from sekisho.center.views.health import time_of, word
from sekisho.center.views.model import Row, Slice
from sekisho.telemetry.events import MUTED_SIDS, Event, Health, Signatures

DETAIL_CAP: Final = 256
MUTED_CAP: Final = 256
"""Muted rules of one box that are kept."""
_SET: Final = re.compile(r"[0-9a-f]{1,16}")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")
_INSPECTORS: Final = ("silent", "repaired")
_PROVEN: Final = ("active", "soaking")
_ANEW: Final = ("started", "adopted", "renewed")

RULES: Final = sa.Table(
    "box_rules",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, nullable=False, doc="of the daemon's newest word; empty: it has said nothing"),
    sa.Column("number", sa.BigInteger, nullable=False, doc="published number in force; 0: not of the channel"),
    sa.Column("set", sa.Text, nullable=False, doc="first digits of its identifier"),
    sa.Column("since", sa.Text, nullable=False, doc="when the box first spoke of this set as in force"),
    sa.Column("soaking", sa.SmallInteger, nullable=False, doc="1: its new dropping rules only report"),
    sa.Column("rules", sa.BigInteger, nullable=False),
    sa.Column("yara", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("freshness", sa.Text, nullable=False, doc="fresh, aging, stale, unknown: the box's word"),
    sa.Column("built", sa.Text, nullable=False),
    sa.Column("checked", sa.Text, nullable=False),
    sa.Column("refused", sa.BigInteger, nullable=False, doc="number of the newest refused set; 0: none"),
    sa.Column("refused_at", sa.Text, nullable=False),
    sa.Column("refused_how", sa.Text, nullable=False, doc="refused, rolled_back"),
    sa.Column("refused_why", sa.Text, nullable=False),
    sa.Column("silent", sa.Text, nullable=False, doc="since when an inspector has no rules; empty: none is without"),
    sa.Column("silent_at", sa.Text, nullable=False, doc="of the newest word about that"),
    sa.Column("silent_why", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
MUTED: Final = sa.Table(
    "box_muted",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("sid", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Index("box_muted_by_sid", "sid"),
    sqlite_with_rowid=False,
)
_NUMBERS: Final = ("number", "soaking", "rules", "yara", "failed", "refused")
_NEW: Final = {name: 0 if name in _NUMBERS else "" for name in RULES.c.keys() if name not in ("tenant", "box")}


def take(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Keep what these events say; an older word replaces no newer one. As many as a box sends, it is written once."""
    told = [row for row in rows if isinstance(row.event, Signatures) or _begins(row.event)]
    told.sort(key=lambda one: (one.tenant, one.box, time_of(one), one.id))
    for (tenant, box), some in itertools.groupby(told, lambda one: (one.tenant, one.box)):
        _keep(db, {"tenant": tenant, "box": box}, list(some))


def _begins(event: Event) -> bool:
    """Whether the engine is watched anew, with rules: who watched it before says no more of what was then."""
    return isinstance(event, Health) and event.part == "engine" and event.state in _ANEW and event.rules > 0


def _keep(db: sa.Connection, key: dict[str, str], rows: Sequence[Row]) -> None:
    """What one box says, in order."""
    if any(isinstance(row.event, Signatures) for row in rows):
        db.execute(insert_new(db, RULES), {**key, **_NEW})
    mine = (RULES.c.tenant == key["tenant"], RULES.c.box == key["box"])
    before = db.execute(sa.select(RULES).where(*mine).with_for_update()).mappings().first()
    if before is None:
        return
    was, of_the_set = dict(before), []
    for row in rows:
        event, at = row.event, time_of(row)
        if not isinstance(event, Signatures):
            was |= {"silent": "", "silent_why": ""} if was["silent_at"] < at else {}
        elif event.state in _INSPECTORS:
            was |= _of_an_inspector(was, event, at) if at >= was["silent_at"] else {}
        elif at >= was["at"]:
            was |= _of_the_set(was, event, at)
            of_the_set.append(event)
    if was != dict(before):
        db.execute(RULES.update().where(*mine).values(**was))
    if of_the_set:
        _mute(db, key, of_the_set)


def _of_an_inspector(was: dict[str, Any], event: Signatures, at: str) -> dict[str, Any]:
    silent = (was["silent"] or at) if event.state == "silent" else ""
    return {"silent": silent, "silent_at": at, "silent_why": word(event.detail, DETAIL_CAP) if silent else ""}


def _of_the_set(was: dict[str, Any], event: Signatures, at: str) -> dict[str, Any]:
    name = event.set if _SET.fullmatch(event.set) else ""
    same = was["since"] and (was["set"], was["number"]) == (name, event.number)
    said: dict[str, Any] = {
        "at": at,
        "number": event.number,
        "set": name,
        "since": was["since"] if same else at,
        "rules": event.rules,
        "yara": event.yara,
        "failed": event.failed,
        "freshness": event.freshness,
        "built": _time(event.built),
        "checked": _time(event.checked),
        "refused": event.refused,
    }
    if event.state in _PROVEN:
        said["soaking"] = int(event.state == "soaking")
    elif not same:
        said["soaking"] = 0
    if event.state in ("refused", "rolled_back"):
        said |= {"refused_at": at, "refused_how": event.state, "refused_why": word(event.detail, DETAIL_CAP)}
    elif not event.refused:
        said |= {"refused_at": "", "refused_how": "", "refused_why": ""}
    if event.state in _PROVEN and at > was["silent_at"]:
        said |= {"silent": "", "silent_why": ""}
    return said


def _mute(db: sa.Connection, key: dict[str, str], events: Sequence[Signatures]) -> None:
    """What is muted; "muted" names those that were added."""
    mine = (MUTED.c.tenant == key["tenant"], MUTED.c.box == key["box"])
    known = set(db.scalars(sa.select(MUTED.c.sid).where(*mine)))
    after = known
    for event in events:
        wanted = {sid for sid in event.sids[:MUTED_SIDS] if 0 < sid < 1 << 32}
        after = after | wanted if event.state == "muted" and len(after | wanted) <= MUTED_CAP else wanted
    if gone := known - after:
        db.execute(MUTED.delete().where(*mine, MUTED.c.sid.in_(sorted(gone))))
    if new := after - known:
        db.execute(insert_new(db, MUTED), [{**key, "sid": sid} for sid in sorted(new)])


def _time(text: str) -> str:
    return text if _TIME.fullmatch(text) else ""


SLICE: Final = Slice("rulesets", (RULES, MUTED), take)
