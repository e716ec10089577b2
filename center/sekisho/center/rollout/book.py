"""Beginning a rollout, and how each is: for the command line and the staff's pages."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import tenants
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.rollout import facts, machine, papers, turn
from sekisho.center.rollout.model import OVER, About, Plan, Rollout, Rule, Seen
from sekisho.center.rollout.plan import Candidate
from sekisho.center.rollout.sending import Sender
from sekisho.center.rollout.tables import ROLLOUT, ROLLOUT_BOX, ROLLOUT_JOB, ROLLOUT_NOTE
from sekisho.center.store import BOX
from sekisho.center.views.firmware import RUNNING

LIST_CAP: Final = 100
NOTES_CAP: Final = 200
GRACE_S: Final = 86_400
"""After its jobs' end a box may still be telling how they ended."""
STANDINGS: Final[tuple[machine.Standing, ...]] = (
    "good", "gone", "trying", "going", "choosing", "waiting", "unasked", "passed", "bad", "silent", "worse"
)  # fmt: skip


class Listed(msgspec.Struct, frozen=True):
    """One rollout in a list."""

    id: str
    at: str
    by: str
    about: About
    rollout: Rollout
    rings: int
    boxes: int


class Ring(msgspec.Struct, frozen=True):
    """One ring, and how many of its boxes are how."""

    number: int
    """From 1."""
    boxes: int
    now: bool
    counts: dict[machine.Standing, int]


class Standing(msgspec.Struct, frozen=True):
    """One box."""

    box: str
    tenant: str
    ring: int
    how: machine.Standing
    state: str
    step: str
    why: str
    firmware: str
    connected: bool
    worse: str
    word_at: float


class Noted(msgspec.Struct, frozen=True):
    """Something that happened."""

    at: str
    what: str
    by: str
    rollout: Rollout


class Shown(msgspec.Struct, frozen=True):
    """One rollout, whole."""

    listed: Listed
    rule: Rule
    rings: list[Ring]
    boxes: list[Standing]
    notes: list[Noted]


def candidates(db: sa.Connection) -> list[Candidate]:
    """Every box in use that was ever heard, with its site."""
    mine = (BOX_IDENTITY.c.box == BOX.c.box, BOX_IDENTITY.c.tenant == BOX.c.tenant, BOX_IDENTITY.c.state == "active")
    runs = sa.and_(RUNNING.c.box == BOX.c.box, RUNNING.c.tenant == BOX.c.tenant)
    query = sa.select(BOX.c.box, BOX.c.tenant, BOX.c.state, RUNNING.c.counter).join(BOX_IDENTITY, sa.and_(*mine))
    sites = tenants.every_site(db)
    return [
        Candidate(row.box, row.tenant, sites.get((row.tenant, row.box), ""), row.state == "on", row.counter or 0)
        for row in db.execute(query.outerjoin(RUNNING, runs).order_by(BOX.c.box))
    ]


def start(db: sa.Connection, plan: Plan, sender: Sender, by: str, now: float) -> None:
    """Keep it and have its jobs held; the first ring is asked at the next look. In the caller's transaction.

    Raises:
        RejectedInput: not signed, changed after it was signed, begun already, a box is unknown or in another rollout.

    """
    papers.check(plan)
    if db.scalar(sa.select(ROLLOUT.c.id).where(ROLLOUT.c.id == plan.id)):
        raise RejectedInput("This rollout was started already.", f"See: sekisho center rollout status {plan.id}")
    if any(one.job.exp <= now for one in plan.papers):
        raise RejectedInput("The jobs of this plan have expired.", "Plan and sign it anew.")
    known = {one.box: one for one in candidates(db)}
    rings = plan.rings
    boxes = [box for ring in rings for box in ring]
    if unknown := [box for box in boxes if box not in known]:
        raise RejectedInput(f"The centre knows no box {unknown[0]!r}.", "Plan and sign it anew.")
    if other := _elsewhere(db, set(boxes)):
        raise RejectedInput(f"{other[0]} is in the rollout {other[1]}, which is not over.", "Cancel that one first.")
    rollout = Rollout(id=plan.id, kind=plan.kind)
    db.execute(
        ROLLOUT.insert().values(
            id=plan.id, state=rollout.state, counter=plan.about.counter, about=msgspec.json.encode(plan.about),
            rule=msgspec.json.encode(_rule(plan)), sizes=msgspec.json.encode([len(ring) for ring in rings]),
            saved=msgspec.json.encode(rollout), at=utc.now(), author=by, counted_at=0.0,
            until=max(one.job.exp for one in plan.papers) + GRACE_S,
        )
    )  # fmt: skip
    place = 0
    for one in plan.papers:
        for step in one.steps:
            sender.submit(db, step.envelope)
            sender.submit(db, step.cancel_envelope)
        last, first = one.steps[-1], one.steps[0] if len(one.steps) > 1 else None
        before = {"first": first.job.id if first else "", "first_cancel": first.cancel.id if first else ""}
        job = {"job": last.job.id, "rollout": plan.id, "ring": one.ring, "cancel": last.cancel.id, **before}
        db.execute(ROLLOUT_JOB.insert().values(**job))
        rows = []
        for box in one.job.boxes:
            of = known[box]
            where = {"tenant": of.tenant, "site": f"{of.tenant}/{of.site or box}"}
            fresh = {"asked_at": 0.0, "worse": "", "forgiven": False, "how": "unasked"}
            rows.append(
                {"rollout": plan.id, "box": box, "ring": one.ring, "place": place, "job": one.job.id, **where, **fresh}
            )
            place += 1
        db.execute(ROLLOUT_BOX.insert(), rows)
    turn.note(db, rollout, "start", by)


def _rule(plan: Plan) -> Rule:
    """With how many boxes of a site may fetch at one time, whichever of the two bounds is the smaller."""
    rule = plan.rule
    if not rule.site_bytes or not plan.about.length:
        return rule
    at_once = max(1, rule.site_bytes // plan.about.length)
    return msgspec.structs.replace(rule, per_site=min(rule.per_site, at_once))


def _elsewhere(db: sa.Connection, boxes: set[str]) -> tuple[str, str] | None:
    """One of these boxes that is in a rollout which is not over, and that."""
    active = sa.select(ROLLOUT.c.id).where(ROLLOUT.c.state.not_in(OVER))
    rows = db.execute(sa.select(ROLLOUT_BOX.c.box, ROLLOUT_BOX.c.rollout).where(ROLLOUT_BOX.c.rollout.in_(active)))
    return next(((row.box, row.rollout) for row in rows if row.box in boxes), None)


def listed(db: sa.Connection) -> list[Listed]:
    """The rollouts, the newest first."""
    return [_listed(row) for row in db.execute(sa.select(ROLLOUT).order_by(ROLLOUT.c.id.desc()).limit(LIST_CAP))]


def _listed(row: sa.Row[Any]) -> Listed:
    sizes = msgspec.json.decode(row.sizes, type=list[int])
    about = msgspec.json.decode(row.about, type=About)
    return Listed(row.id, row.at, row.author, about, turn.saved(row), len(sizes), sum(sizes))


def rings(db: sa.Connection, id_: str) -> list[Ring]:
    """The rings, and how many of their boxes were how at the last look.

    Raises:
        RejectedInput: there is no rollout of this name.

    """
    row = turn.load(db, id_)
    rollout, of = turn.saved(row), ROLLOUT_BOX
    query = sa.select(of.c.ring, of.c.how, sa.func.count()).where(of.c.rollout == id_).group_by(of.c.ring, of.c.how)
    counts: Counter[tuple[int, str]] = Counter({(ring, how): number for ring, how, number in db.execute(query)})
    return [
        Ring(
            number + 1, size, number == rollout.ring and rollout.state not in OVER,
            {how: counts[number, how] for how in STANDINGS},
        )
        for number, size in enumerate(msgspec.json.decode(row.sizes, type=list[int]))
    ]  # fmt: skip


def show(db: sa.Connection, id_: str, sender: Sender, *, how: str = "", after: str = "", limit: int = 0) -> Shown:
    """One of them with its boxes, as they stood at the last look, and what each has said by now.

    Args:
        db: the caller's transaction.
        id_: its name.
        sender: who knows what boxes said of their jobs.
        how: only boxes that stand so; empty: all.
        after: only those that are asked after this box.
        limit: so many of them; 0: all.

    Raises:
        RejectedInput: there is none of this name.

    """
    row, of = turn.load(db, id_), ROLLOUT_BOX
    query = sa.select(of.c.box, of.c.tenant, of.c.how).where(of.c.rollout == id_).order_by(of.c.place)
    if how:
        query = query.where(of.c.how == how)
    if after:
        before = sa.select(of.c.place).where(of.c.rollout == id_, of.c.box == after).scalar_subquery()
        query = query.where(of.c.place > sa.func.coalesce(before, -1))
    stands = {one.box: one for one in db.execute(query.limit(limit) if limit else query)}
    seen = facts.seen(db, row, sender, stands.keys() if limit else None)
    notes = sa.select(ROLLOUT_NOTE).where(ROLLOUT_NOTE.c.rollout == id_).order_by(ROLLOUT_NOTE.c.id.desc())
    return Shown(
        _listed(row), msgspec.json.decode(row.rule, type=Rule), rings(db, id_),
        [_standing(one, stands[one.box]) for one in seen if one.box in stands],
        [Noted(one.at, one.what, one.by, turn.saved(one)) for one in db.execute(notes.limit(NOTES_CAP))],
    )  # fmt: skip


def _standing(seen: Seen, stands: Any) -> Standing:
    return Standing(
        seen.box, stands.tenant, seen.ring + 1, stands.how, seen.state, seen.step, seen.why, seen.firmware,
        seen.connected, seen.worse, seen.word_at,
    )  # fmt: skip
