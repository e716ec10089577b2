"""One look at every rollout that is not over, and what somebody says of one: each is one transaction, or nothing.

What is seen is read first, beside everybody who writes; the decision is written only over the state it was made from.
So a kill at any moment leaves a rollout as it was before or after one decision, and what goes out with a decision
(`Sender`) is in the same transaction: nothing is asked twice and nothing is forgotten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.jobs import TERMINAL
from sekisho.center import pulse
from sekisho.center.database import Database
from sekisho.center.rollout import facts, machine, worse
from sekisho.center.rollout.model import OVER, Decision, Rollout, Rule, Seen
from sekisho.center.rollout.sending import Sender
from sekisho.center.rollout.tables import ROLLOUT, ROLLOUT_BOX, ROLLOUT_JOB, ROLLOUT_NOTE

Wish = Literal["pause", "resume", "halt", "cancel"]
WISHES: Final[tuple[Wish, ...]] = ("pause", "resume", "halt", "cancel")
ACTIVE_CAP: Final = 50
"""Rollouts that are looked at in one turn: of more, those that were not for the longest."""
PAGE: Final = 500
"""Boxes named in one statement."""
SELDOM: Final = 20
"""What is over for so many minutes is counted once a minute."""

log = logging.getLogger("sekisho.center.rollout")


def step(database: Database, sender: Sender, now: Callable[[], float] = time.time) -> int:
    """Look at each once; at how many that go on. One that cannot be looked at is logged, and keeps none from its turn.

    Raises:
        DeviceFault: the database refused; what was decided before is kept.

    """
    with database.reading() as db:
        going = sa.select(ROLLOUT.c.id).where(ROLLOUT.c.state.not_in(OVER)).order_by(ROLLOUT.c.counted_at, ROLLOUT.c.id)
        active = list(db.scalars(going.limit(ACTIVE_CAP)))
        over = _to_count(db, now())
    for act, ids in ((_look, active), (_count, over)):
        for id_ in ids:
            try:
                act(database, sender, id_, now())
            except DeviceFault:
                raise
            except Exception:  # what is wrong with one keeps no other from its turn
                log.exception("rollout %s: nothing was decided.", id_)
    return len(active)


def _to_count(db: sa.Connection, now: float) -> list[str]:
    """Rollouts that are over, whose boxes may still say something: the longer it is over the more seldom."""
    query = sa.select(ROLLOUT).where(ROLLOUT.c.state.in_(OVER), ROLLOUT.c.counted_at < ROLLOUT.c.until)
    return [row.id for row in db.execute(query) if now - row.counted_at >= (now - saved(row).looked_at) / SELDOM]


def _count(database: Database, sender: Sender, id_: str, now: float) -> None:
    with database.reading() as db:
        row = load(db, id_)
        seen, rule = facts.seen(db, row, sender), msgspec.json.decode(row.rule, type=Rule)
    with database.transaction() as db:
        _keep(db, saved(row), rule, seen, now)


def _keep(db: sa.Connection, rollout: Rollout, rule: Rule, seen: Sequence[Seen], now: float) -> None:
    """How each box stands, for the pages: who looks at one does not count them all anew."""
    of = ROLLOUT_BOX.c.rollout == rollout.id
    kept = {row.box: row.how for row in db.execute(sa.select(ROLLOUT_BOX.c.box, ROLLOUT_BOX.c.how).where(of))}
    fresh: dict[machine.Standing, list[str]] = {}
    for one in seen:
        if (how := machine.standing(one, rollout, rule, now)) != kept.get(one.box):
            fresh.setdefault(how, []).append(one.box)
    for now_so, boxes in fresh.items():
        for start in range(0, len(boxes), PAGE):
            some = ROLLOUT_BOX.c.box.in_(boxes[start : start + PAGE])
            db.execute(ROLLOUT_BOX.update().where(of, some).values(how=now_so))
    db.execute(ROLLOUT.update().where(ROLLOUT.c.id == rollout.id).values(counted_at=now))


def _look(database: Database, sender: Sender, id_: str, now: float) -> None:
    with database.reading() as db:
        row = load(db, id_)
        seen = facts.seen(db, row, sender)
        was, rule = saved(row), msgspec.json.decode(row.rule, type=Rule)
        heard = facts.seconds(pulse.heard(db))
        signs = worse.found(db, row, was, rule, seen, now) if worse.is_due(was, now) else {}
    seen = [msgspec.structs.replace(one, worse=signs[one.box]) if one.box in signs else one for one in seen]
    sizes = msgspec.json.decode(row.sizes, type=list[int])
    decision = machine.look(was, rule, sizes, seen, now, heard)
    with database.transaction() as db:
        if load(db, id_, for_update=True).saved != row.saved:
            return  # somebody paused it, or looked, meanwhile: the next look sees that
        for box, what in signs.items():
            db.execute(_box(id_, box).values(worse=what))
        _keep(db, decision.rollout, rule, seen, now)
        carry_out(db, sender, decision, now, by="")
    for what in decision.told:
        log.info("rollout %s: %s %s", id_, what, decision.rollout.why)


def say(db: sa.Connection, sender: Sender, id_: str, what: Wish, by: str, now: float) -> Rollout:
    """Pause, resume, halt or cancel it, in the caller's transaction; how it is then.

    Raises:
        RejectedInput: there is none of this name, or it is not in a state in which that can be.

    """
    row = load(db, id_, for_update=True)
    decision = machine.wish(saved(row), what, now)
    if what == "resume":
        rule = msgspec.json.decode(row.rule, type=Rule)
        known = [one.box for one in facts.seen(db, row, sender) if machine.is_harm(one, saved(row), rule, now)]
        for box in known:
            db.execute(_box(id_, box).values(forgiven=True))
        _again(db, sender, id_, now)
    carry_out(db, sender, msgspec.structs.replace(decision, told=[what]), now, by)
    return decision.rollout


def carry_out(db: sa.Connection, sender: Sender, decision: Decision, now: float, by: str) -> None:
    """Write a decision, and do what it says."""
    id_, document = decision.rollout.id, msgspec.json.encode(decision.rollout)
    db.execute(ROLLOUT.update().where(ROLLOUT.c.id == id_).values(state=decision.rollout.state, saved=document))
    if decision.release:
        jobs: dict[str, list[str]] = {}
        of = (ROLLOUT_BOX.c.rollout == id_, ROLLOUT_BOX.c.box.in_(decision.release))
        for box, job in db.execute(sa.select(ROLLOUT_BOX.c.box, ROLLOUT_BOX.c.job).where(*of)):
            jobs.setdefault(job, []).append(box)
        for row in db.execute(sa.select(ROLLOUT_JOB).where(ROLLOUT_JOB.c.job.in_(list(jobs)))).all():
            for job in (row.first, row.job):
                if job:
                    sender.release(db, job, jobs[row.job])
        db.execute(ROLLOUT_BOX.update().where(*of).values(asked_at=now, how="waiting"))
    if decision.withdraw:
        _withdraw(db, sender, id_)
    for what in decision.told:
        note(db, decision.rollout, what, by)


def _withdraw(db: sa.Connection, sender: Sender, id_: str) -> None:
    """Hold what no box has answered, and send to whom it was sent the jobs that cancel it, but to who has ended.

    A box that has not said anything is sent them too: the broker may still have for it what the centre holds now, or
    the box has it and its words are under way. It stays one that was asked, unless the job never left.
    """
    for row in db.execute(sa.select(ROLLOUT_JOB).where(ROLLOUT_JOB.c.rollout == id_)).all():
        of = (ROLLOUT_BOX.c.rollout == id_, ROLLOUT_BOX.c.job == row.job, ROLLOUT_BOX.c.asked_at > 0)
        asked = set(db.scalars(sa.select(ROLLOUT_BOX.c.box).where(*of)))
        if not asked:
            continue
        here = set(sender.withhold(db, row.job))
        if row.first:
            here &= set(sender.withhold(db, row.first))
        if held := asked & here:
            db.execute(ROLLOUT_BOX.update().where(*of, ROLLOUT_BOX.c.box.in_(held)).values(asked_at=0.0))
        for job, cancel in ((row.job, row.cancel), (row.first, row.first_cancel)):
            ended = {box for box, word in sender.words(db, job).items() if word.state in TERMINAL} if job else asked
            sender.release(db, cancel, sorted(asked - ended))


def _again(db: sa.Connection, sender: Sender, id_: str, now: float) -> None:
    """Let go what a halt held of boxes that may have a job of it, and hold the cancels not answered."""
    for row in db.execute(sa.select(ROLLOUT_JOB).where(ROLLOUT_JOB.c.rollout == id_)).all():
        of = (ROLLOUT_BOX.c.rollout == id_, ROLLOUT_BOX.c.job == row.job)
        jobs = [job for job in (row.first, row.job) if job]
        rows = db.execute(sa.select(ROLLOUT_BOX.c.box, ROLLOUT_BOX.c.asked_at).where(*of))
        asked = {one.box: one.asked_at for one in rows}
        spoke = {box for job in jobs for box in sender.words(db, job) if not asked.get(box)}
        if spoke:  # it left, and was killed who would have noted that
            db.execute(ROLLOUT_BOX.update().where(*of, ROLLOUT_BOX.c.box.in_(spoke)).values(asked_at=now))
        for job in jobs:
            sender.release(db, job, spoke | {box for box, at in asked.items() if at})
        for cancel in filter(None, (row.cancel, row.first_cancel)):
            sender.withhold(db, cancel)


def note(db: sa.Connection, rollout: Rollout, what: str, by: str) -> None:
    """Keep what happened. The staff is mailed of what it did not do itself."""
    mailed = not (what == "halt" and not by)
    values = {"rollout": rollout.id, "at": utc.now(), "what": what, "by": by, "saved": msgspec.json.encode(rollout)}
    db.execute(ROLLOUT_NOTE.insert().values(mailed=mailed, **values))


def load(db: sa.Connection, id_: str, *, for_update: bool = False) -> sa.Row[Any]:
    """The rollout's row.

    Raises:
        RejectedInput: there is none of this name.

    """
    query = sa.select(ROLLOUT).where(ROLLOUT.c.id == id_)
    row = db.execute(query.with_for_update() if for_update else query).first()
    if row is None:
        raise RejectedInput(f"There is no rollout {id_[:40]!r}.", "See: sekisho center rollout status")
    return row


def saved(row: sa.Row[Any]) -> Rollout:
    return msgspec.json.decode(row.saved, type=Rollout)


def _box(id_: str, box: str) -> sa.Update:
    return ROLLOUT_BOX.update().where(ROLLOUT_BOX.c.rollout == id_, ROLLOUT_BOX.c.box == box)
