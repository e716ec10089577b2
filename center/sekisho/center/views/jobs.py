"""How far each job has got on each box: the box's word with the greatest number, and an end is for ever.

What the centre shows of jobs is made of these alone. `ver` 0 is a word about a message that was no job for the box; it
changes nothing of a job of that name and is kept beside it. A word about a job that the centre does not send to this
box stays in the events only, so there are as many rows as operators signed jobs, whatever is invented. A box that was
enrolled by a code since counts from the beginning: its disk may be another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from sekisho.appliance.core.jobs import TERMINAL
from sekisho.center.ca.tables import CERTIFICATE
from sekisho.center.database import insert_new, metadata
from sekisho.center.jobs.tables import JOB_BOX
from sekisho.center.views.health import time_of, word
from sekisho.center.views.model import Row, Slice
from sekisho.telemetry.events import Job

WORD_CAP: Final = 64
DETAIL_CAP: Final = 256
AGAIN: Final = frozenset({"fw.stage", "job.cancel"})
"""Kinds that may go again to a box that was enrolled anew though they had ended (`center.jobs.book.anew` says when)."""
_ID: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")

JOB_STATE: Final = sa.Table(
    "job_state",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("ver", sa.BigInteger, nullable=False, doc="0: it has said nothing of the job itself"),
    sa.Column("state", sa.Text, nullable=False, doc="core.jobs.State; empty with ver 0"),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("pct", sa.SmallInteger, nullable=False),
    sa.Column("decided_by", sa.Text, nullable=False, doc="who decided at the box"),
    sa.Column("signers", sa.Text, nullable=False, doc="as the box found them"),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False, doc="by the box's clock"),
    sa.Column("received_at", sa.Text, nullable=False),
    sa.Column("refused", sa.Text, nullable=False, doc="code of a message of this name that was no job; empty: none"),
    sa.Column("refused_at", sa.Text, nullable=False),
    sa.Index("job_state_by_job", "job", "box"),
    sqlite_with_rowid=False,
)
_EMPTY: Final = {
    "ver": 0, "state": "", "kind": "", "why": "", "step": "", "pct": 0, "decided_by": "", "signers": "", "detail": "",
    "at": "", "received_at": "", "refused": "", "refused_at": "",
}  # fmt: skip


def take(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Keep what these events say; an older word changes nothing."""
    told: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if isinstance(row.event, Job) and _ID.fullmatch(row.event.id):
            told.setdefault((row.tenant, row.box, row.event.id), []).append(row)
    for key, some in sorted(told.items()):
        _keep(db, key, some)


def _keep(db: sa.Connection, key: tuple[str, str, str], rows: Sequence[Row]) -> None:
    tenant, box, job = key
    mine = (JOB_STATE.c.tenant == tenant, JOB_STATE.c.box == box, JOB_STATE.c.job == job)
    before = db.execute(sa.select(JOB_STATE).where(*mine).with_for_update()).mappings().first()
    if before is None:
        sent = (JOB_BOX.c.job == job, JOB_BOX.c.box == box, JOB_BOX.c.tenant == tenant)
        if db.execute(sa.select(JOB_BOX.c.job).where(*sent)).first() is None:
            return
        db.execute(insert_new(db, JOB_STATE), {"tenant": tenant, "box": box, "job": job, **_EMPTY})
    was: dict[str, Any] = dict(before) if before is not None else dict(_EMPTY)
    now = dict(was)
    for row in rows:
        now |= _said(db, now, row)
    if changed := {name: value for name, value in now.items() if name in _EMPTY and value != was.get(name)}:
        db.execute(JOB_STATE.update().where(*mine).values(**changed))


def _said(db: sa.Connection, was: dict[str, Any], row: Row) -> dict[str, Any]:
    event = row.event
    assert isinstance(event, Job)  # noqa: S101 - `take` chose it
    if not event.ver:
        newer = time_of(row) >= was["refused_at"]
        return {"refused": word(event.why, WORD_CAP), "refused_at": time_of(row)} if newer else {}
    ended = was["state"] in TERMINAL
    if (event.ver <= was["ver"] or ended) and not ((not ended or was["kind"] in AGAIN) and _anew(db, was, row)):
        return {}
    return {
        "ver": event.ver, "state": event.state, "kind": word(event.kind, WORD_CAP), "why": word(event.why, WORD_CAP),
        "step": word(event.step, WORD_CAP), "pct": event.pct, "decided_by": word(event.by, WORD_CAP),
        "signers": word(", ".join(event.signers[:4]), DETAIL_CAP), "detail": word(event.detail, DETAIL_CAP),
        "at": time_of(row), "received_at": row.received_at,
    }  # fmt: skip


def _anew(db: sa.Connection, was: dict[str, Any], row: Row) -> bool:
    """Whether the box was enrolled by a code since its last word: `book.anew` took that away, a rebuild reads it."""
    mine = (CERTIFICATE.c.box == row.box, CERTIFICATE.c.tenant == row.tenant, CERTIFICATE.c.how == "code")
    since = (CERTIFICATE.c.issued_at > was["received_at"], CERTIFICATE.c.issued_at <= row.received_at)
    return db.execute(sa.select(CERTIFICATE.c.serial).where(*mine, *since).limit(1)).first() is not None


SLICE: Final = Slice("jobs", (JOB_STATE,), take)
