"""Keeping jobs, letting them go, holding them back, and what became of them; all in the caller's transaction.

A job that has not left can be held for ever. One that has left is in its box's hands: it is taken back by a job of
kind `job.cancel`, which operators sign as they signed the first.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.jobs import ENVELOPE_CAP, LIFE_S, TERMINAL, Envelope, Job, span_s, working_s
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.database import insert_new
from sekisho.center.jobs.tables import JOB, JOB_BOX
from sekisho.center.scope import Scope
from sekisho.center.views.jobs import JOB_STATE

GRACE_S: Final = 60
"""After a deadline a box may still be telling that it kept it."""
NEVER: Final = 2
_UNDER_WAY: Final = ("network", "budget", "memory", "disk")
"""What a job that has begun waits for; its box gives it the whole span from there."""
TOLD: Final = sa.and_(
    JOB_STATE.c.job == JOB_BOX.c.job, JOB_STATE.c.box == JOB_BOX.c.box, JOB_STATE.c.tenant == JOB_BOX.c.tenant
)
"""Joins what a box said of a job to the job as it was given to that box."""
PAGE: Final = 200
_CHUNK: Final = 500


class BoxState(msgspec.Struct, frozen=True):
    """How far one box has got with one job."""

    box: str
    tenant: str
    state: str
    """`core.jobs.State` as the box said it; before its first word HELD, WAITS (for the broker), SENT or CANCELED (it
    never went out). TIMED_OUT with `why` "silent" is the centre's own word, and the box's takes its place."""
    why: str = ""
    step: str = ""
    pct: int = 0
    by: str = ""
    signers: str = ""
    detail: str = ""
    at: str = ""
    """By the box's clock; before its first word when it was sent."""
    received_at: str = ""
    ver: int = 0
    refused: str = ""
    """Code of a message of this name that the box said was no job for it."""

    @property
    def over(self) -> bool:
        return self.state in TERMINAL


class Kept(msgspec.Struct, frozen=True):
    """One job."""

    id: str
    kind: str
    nbf: int
    exp: int
    rollout: str
    signers: str
    at: str
    author: str


def read(envelope: bytes) -> tuple[Job, Envelope]:
    """What is in an envelope; who may sign is the boxes' to judge.

    Raises:
        RejectedInput: it is none, or its job is none.

    """
    if len(envelope) > ENVELOPE_CAP:
        raise RejectedInput(f"The job is larger than {ENVELOPE_CAP >> 10} KiB.", "Name fewer boxes in it.")
    try:
        opened = msgspec.json.decode(envelope, type=Envelope)
        return msgspec.json.decode(opened.payload, type=Job), opened
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise RejectedInput(f"The job cannot be read: {err}.") from err


def submit(db: sa.Connection, envelope: bytes, *, by: str = "", hold: bool = False) -> Job:
    """Keep a signed job and let it go to its boxes, or (`hold`) to none yet. Twice is once; signatures that were
    added since are taken.

    Raises:
        RejectedInput: it is none, it is over, it names a box that is not of this centre, or another job has its name.

    """
    job, opened = read(envelope)
    last = min(job.exp, job.nbf + LIFE_S)
    known = db.execute(sa.select(JOB.c.envelope).where(JOB.c.id == job.id).with_for_update()).first()
    signers = ", ".join(sorted({one.keyid for one in opened.signatures}))
    if known is not None:
        if msgspec.json.decode(known.envelope, type=Envelope).payload != opened.payload:
            raise RejectedInput(f"Another job is kept under the name {job.id}.", "Make a new one.")
        if known.envelope != envelope:
            db.execute(JOB.update().where(JOB.c.id == job.id).values(envelope=envelope, signers=signers))
            db.execute(JOB_BOX.update().where(JOB_BOX.c.job == job.id).values(next_at=0))
        return job
    if last <= time.time() or job.exp <= job.nbf:
        raise RejectedInput("The job's time is over.", "Make and sign it anew.")
    found = db.execute(
        sa.select(BOX_IDENTITY.c.box, BOX_IDENTITY.c.tenant).where(
            BOX_IDENTITY.c.box.in_(job.boxes), BOX_IDENTITY.c.state == "active"
        )
    ).all()
    tenants = {row.box: row.tenant for row in found}
    if missing := sorted(set(job.boxes) - tenants.keys()):
        raise RejectedInput(f"{', '.join(missing[:5])}: no box of this centre that is in use.", "Name others.")
    db.execute(
        JOB.insert().values(
            id=job.id, envelope=envelope, kind=job.kind, nbf=job.nbf, exp=last, rollout=job.rollout, signers=signers,
            at=utc.now(), author=by,
        )
    )  # fmt: skip
    fresh = {"held": int(hold), "tries": 0, "sent_at": "", "birth": 0, "next_at": 0}
    rows = [{"job": job.id, "box": box, "tenant": tenant, **fresh} for box, tenant in sorted(tenants.items())]
    db.execute(insert_new(db, JOB_BOX), rows)
    return job


def release(db: sa.Connection, job: str, boxes: Iterable[str]) -> None:
    """Let it go to these of its boxes, now."""
    for some in _chunks(boxes):
        mine = (JOB_BOX.c.job == job, JOB_BOX.c.box.in_(some), JOB_BOX.c.held == 1)
        db.execute(JOB_BOX.update().where(*mine).values(held=0, next_at=0))


def withhold(db: sa.Connection, job: str) -> list[str]:
    """Hold it (again) for the boxes that have not said anything of it; those of them for which it never left. What the
    broker had may still arrive, or be there already.
    """
    heard = sa.exists().where(TOLD, JOB_STATE.c.ver > 0)
    mine = (JOB_BOX.c.job == job, JOB_BOX.c.held < NEVER, ~heard)
    found = db.execute(sa.select(JOB_BOX.c.box, JOB_BOX.c.sent_at).where(*mine).order_by(JOB_BOX.c.box)).all()
    for some in _chunks(row.box for row in found):
        db.execute(JOB_BOX.update().where(JOB_BOX.c.job == job, JOB_BOX.c.box.in_(some)).values(held=1))
    return [row.box for row in found if not row.sent_at]


def anew(db: sa.Connection, box: str, now: float) -> None:
    """The box was enrolled by a code, so its disk may be another: what has not ended there goes to it from the
    beginning. `now`: unix seconds.

    An end stays one, but where something that goes again needs it: what takes it back, and the release it activates.
    A box that has its disk after all answers with where it is, so nothing is done twice by this.
    """
    query = sa.select(JOB.c.id, JOB.c.kind, JOB.c.envelope, JOB_STATE.c.state).join(JOB_BOX, JOB_BOX.c.job == JOB.c.id)
    rows = db.execute(query.outerjoin(JOB_STATE, TOLD).where(JOB_BOX.c.box == box, JOB.c.exp > now)).all()
    again = {row.id: row.kind for row in rows if row.state not in TERMINAL}
    activates = "fw.activate" in again.values()
    for row in rows:
        staged = row.kind == "fw.stage" and row.state == "SUCCEEDED" and activates
        if staged or (row.kind == "job.cancel" and read(row.envelope)[0].args.get("job") in again):
            again[row.id] = row.kind
    for some in _chunks(again):
        db.execute(JOB_STATE.delete().where(JOB_STATE.c.box == box, JOB_STATE.c.job.in_(some)))
        db.execute(
            JOB_BOX.update().where(JOB_BOX.c.box == box, JOB_BOX.c.job.in_(some)).values(birth=0, next_at=0, tries=0)
        )


def cancel(db: sa.Connection, job: str) -> list[str]:
    """Never send it any more; the boxes that may have it all the same, for which a signed `job.cancel` is needed."""
    db.execute(JOB_BOX.update().where(JOB_BOX.c.job == job).values(held=NEVER))
    return [box for box, one in states(db, job).items() if not one.over]


def jobs(db: sa.Connection, limit: int = PAGE) -> list[Kept]:
    """The newest first."""
    query = sa.select(JOB).order_by(JOB.c.at.desc(), JOB.c.id.desc()).limit(limit)
    return [_kept(row) for row in db.execute(query)]


def find(db: sa.Connection, job: str) -> Kept | None:
    row = db.execute(sa.select(JOB).where(JOB.c.id == job)).first()
    return _kept(row) if row is not None else None


def states(
    db: sa.Connection, job: str, now: float | None = None, boxes: Iterable[str] | None = None
) -> dict[str, BoxState]:
    """Every box of a job, or those of `boxes` (a page of them). `now`: unix seconds."""
    which = JOB_BOX.c.job == job if boxes is None else sa.and_(JOB_BOX.c.job == job, JOB_BOX.c.box.in_(boxes))
    return {one.box: one for _, one in _states(db, which, now)}


def of_box(db: sa.Connection, scope: Scope, box: str, limit: int = PAGE) -> list[tuple[Kept, BoxState]]:
    """The jobs of a box in the scope, newest first."""
    return _states(db, sa.and_(JOB_BOX.c.box == box, scope.of(JOB_BOX.c.tenant)), None, limit)


def _states(
    db: sa.Connection, which: sa.ColumnElement[bool], now: float | None, limit: int = 10_000
) -> list[tuple[Kept, BoxState]]:
    said = [JOB_STATE.c[name].label(f"said_{name}") for name in JOB_STATE.c.keys() if name not in _KEY]
    kept = [JOB.c[name] for name in JOB.c.keys() if name != "envelope"]
    query = (
        sa.select(*kept, JOB_BOX.c.box, JOB_BOX.c.tenant, JOB_BOX.c.held, JOB_BOX.c.sent_at, *said)
        .join(JOB, JOB.c.id == JOB_BOX.c.job)
        .outerjoin(JOB_STATE, TOLD)
        .where(which)
        .order_by(JOB.c.at.desc(), JOB.c.id.desc(), JOB_BOX.c.box)
        .limit(limit)
    )
    at = time.time() if now is None else now
    return [(_kept(row), _state(row, at)) for row in db.execute(query)]


_KEY: Final = ("tenant", "box", "job")


def _kept(row: Any) -> Kept:
    return Kept(row.id, row.kind, row.nbf, row.exp, row.rollout, row.signers, row.at, row.author)


def _state(row: Any, now: float) -> BoxState:
    refused = row.said_refused or ""
    if not row.said_ver:
        gone = {0: "SENT" if row.sent_at else "WAITS", 1: "HELD", NEVER: "SENT" if row.sent_at else "CANCELED"}
        state, silent = gone[row.held], now > row.exp + GRACE_S
        if silent and state != "CANCELED":
            return BoxState(row.box, row.tenant, "TIMED_OUT", refused or "silent", at=row.sent_at, refused=refused)
        return BoxState(row.box, row.tenant, state, refused, at=row.sent_at, refused=refused)
    state, why = row.said_state, row.said_why
    if state not in TERMINAL and now > _deadline(row):
        state, why = "TIMED_OUT", "silent"
    return BoxState(
        row.box, row.tenant, state, why, row.said_step, row.said_pct, row.said_decided_by, row.said_signers,
        row.said_detail, row.said_at, row.said_received_at, row.said_ver, refused,
    )  # fmt: skip


def _deadline(row: Any) -> float:
    """Until when a box that last said this must have said how it ended; unix seconds."""
    if row.said_state == "RUNNING" and working_s(row.kind) < span_s(row.kind):  # its wait for a person is over
        return _unix(row.said_received_at) + working_s(row.kind) + GRACE_S
    begun = row.said_state == "RUNNING" or row.said_why in _UNDER_WAY
    begun |= row.said_why == "turn" and bool(row.said_step)  # what waits to begin has no step yet
    span = span_s(row.kind) if begun else 0.0
    return max(float(row.exp), _unix(row.said_received_at) if begun else 0.0) + span + GRACE_S


def _unix(text: str) -> float:
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _chunks(names: Iterable[str]) -> Iterable[list[str]]:
    every = sorted(set(names))
    return (every[first : first + _CHUNK] for first in range(0, len(every), _CHUNK))
