"""A rollout that halted by itself is told to the centre's staff, once, in the transaction that notes it as told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.center.notify import words
from sekisho.center.notify.desk import Desk
from sekisho.center.notify.letter import Letter
from sekisho.center.notify.tables import text
from sekisho.center.rollout.model import About, Rollout
from sekisho.center.rollout.tables import ROLLOUT, ROLLOUT_NOTE
from sekisho.center.settings import Notify

PAGE: Final = 20


def waiting(db: sa.Connection) -> Sequence[Any]:
    """What happened to rollouts that the staff was not told of."""
    of = ROLLOUT_NOTE.join(ROLLOUT, ROLLOUT.c.id == ROLLOUT_NOTE.c.rollout)
    query = sa.select(ROLLOUT_NOTE.c.id, ROLLOUT_NOTE.c.at, ROLLOUT_NOTE.c.saved, ROLLOUT.c.about).select_from(of)
    return db.execute(query.where(~ROLLOUT_NOTE.c.mailed).order_by(ROLLOUT_NOTE.c.id).limit(PAGE)).all()


def tell(desk: Desk, config: Notify) -> None:
    """Put a mail for each into the queue."""
    for row in waiting(desk.db):
        rollout = msgspec.json.decode(row.saved, type=Rollout)
        about = msgspec.json.decode(row.about, type=About)
        said = {"ring": rollout.why_ring + 1, "number": rollout.why_number, "of": rollout.why_of}
        reason = words.say(config.operator_locale, "halted", rollout.why, **said)
        letter = Letter(
            kind="halted",
            tenant="",
            at=text(desk.now),
            locale=config.operator_locale,
            box=rollout.why_box,
            since=row.at,
            number=rollout.why_number,
            detail=f"{about.version}: {reason}",
        )
        desk.post(letter, f"rollout/{rollout.id}/{row.id}", config.operator)
        desk.db.execute(ROLLOUT_NOTE.update().where(ROLLOUT_NOTE.c.id == row.id).values(mailed=True))
