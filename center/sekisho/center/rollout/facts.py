"""What the centre knows now of the boxes of a rollout: made from its tables, by its own clock."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core.jobs import TERMINAL
from sekisho.center.rollout.model import Seen
from sekisho.center.rollout.sending import Sender, Word
from sekisho.center.rollout.tables import ROLLOUT_BOX, ROLLOUT_JOB
from sekisho.center.store import BOX
from sekisho.center.views.firmware import RELEASE

_NONE: Final = Word("", "", "", "", "")
_BEFORE: Final = ("turn", "not_staged", "clock", "not_before", "daemon")
"""What a job waits for that has not begun."""


def seen(db: sa.Connection, rollout: sa.Row[Any], sender: Sender, boxes: Collection[str] | None = None) -> list[Seen]:
    """Every box of it, or those of `boxes` (a page of them), in the order in which they are asked."""
    words: dict[str, tuple[Mapping[str, Word], Mapping[str, Word], float]] = {}
    rows = _rows(rollout)
    jobs = sa.select(ROLLOUT_JOB).where(ROLLOUT_JOB.c.rollout == rollout.id)
    if boxes is not None:
        rows = rows.where(ROLLOUT_BOX.c.box.in_(boxes))
        mine = sa.select(ROLLOUT_BOX.c.job).where(ROLLOUT_BOX.c.rollout == rollout.id, ROLLOUT_BOX.c.box.in_(boxes))
        jobs = jobs.where(ROLLOUT_JOB.c.job.in_(mine))
    for row in db.execute(jobs).all():
        first = sender.words(db, row.first, boxes) if row.first else {}
        words[row.job] = sender.words(db, row.job, boxes), first, sender.expires(db, row.job)
    made = []
    for row in db.execute(rows):
        last, first, expires = words[row.job]
        made.append(_seen(row, _together(last.get(row.box, _NONE), first.get(row.box, _NONE)), expires))
    return made


def _together(last: Word, first: Word) -> Word:
    """What the box said of both jobs: of the last once it does that one, of the first until then.

    A first one that ended badly is how it ended: the last then waits for what does not come.
    """
    received_at, at = max(last.received_at, first.received_at), max(last.at, first.at)
    begun = last.state in TERMINAL or last.state == "RUNNING" or (last.state == "WAITING" and last.why not in _BEFORE)
    of = last if begun or not first.state or first.state == "SUCCEEDED" else first
    return msgspec.structs.replace(of, received_at=received_at, at=at)


def _rows(rollout: sa.Row[Any]) -> sa.Select[Any]:
    of, told = ROLLOUT_BOX, RELEASE
    same = (told.c.tenant == of.c.tenant, told.c.box == of.c.box, told.c.counter == rollout.counter)
    joined = of.outerjoin(BOX, sa.and_(BOX.c.box == of.c.box, BOX.c.tenant == of.c.tenant))
    joined = joined.outerjoin(told, sa.and_(*same))
    columns = [of.c[name] for name in ("box", "ring", "job", "site", "asked_at", "worse", "forgiven")]
    said = [BOX.c.state.label("link"), BOX.c.changed_at.label("link_at"), told.c.state.label("firmware"), told.c.why]
    said += [told.c.received_at.label("firmware_at"), told.c.at.label("firmware_said_at")]
    query = sa.select(*columns, *said).select_from(joined)
    return query.where(of.c.rollout == rollout.id).order_by(of.c.place)


def _seen(row: sa.Row[Any], word: Word, expires: float) -> Seen:
    # By the box's own clock: a spool brings words of an earlier attempt late, and with those of this one.
    firmware_later = bool(row.firmware and word.state) and seconds(row.firmware_said_at) >= seconds(word.at)
    connected = row.link == "on"
    return Seen(
        box=row.box,
        ring=row.ring,
        site=row.site,
        asked_at=row.asked_at,
        state=word.state,
        step=word.step,
        why=(row.why or word.why) if firmware_later and word.why != "silent" else word.why,
        word_at=max(seconds(word.received_at), seconds(row.firmware_at) if firmware_later else 0.0),
        expires=expires,
        firmware=row.firmware if firmware_later else "",
        connected=connected,
        lost_at=0.0 if connected else seconds(row.link_at or "") or 1.0,
        worse=row.worse,
        forgiven=bool(row.forgiven),
    )


def seconds(text: str) -> float:
    """Unix seconds of a time as the centre keeps it; 0 for none."""
    return dt.datetime.fromisoformat(text).timestamp() if text else 0.0
