"""Cases as people work on them: find, list, change. Every look takes a scope; every change is in the log with it."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center import tenants
from sekisho.center.cases import record, steps
from sekisho.center.cases.record import Entry
from sekisho.center.cases.steps import Count, Move, State, Work
from sekisho.center.cases.tables import ALERT, CASE
from sekisho.center.cases.window import Window, Year, year
from sekisho.center.notify.tables import mail, request
from sekisho.center.notify.told import Told
from sekisho.center.scope import Scope

LOG_CAP: Final = 2000
"""Entries of one case: beyond it nothing can be added but the end."""
NAMED_CAP: Final = 100
"""Alerts of a case that are named one by one."""
_MAILED_WITHIN: Final = dt.timedelta(days=7)


class Actor(msgspec.Struct, frozen=True):
    """Who does something."""

    login: str
    role: str


class Case(msgspec.Struct, frozen=True):
    """One case as pages show it."""

    id: str
    tenant: str
    box: str
    epoch: str
    seq: int
    """box, epoch, seq: the alert that opened it."""
    why: str
    detected_at: str
    opened_at: str
    last_at: str
    last_received: str
    number: int
    told: Told
    work: Work
    window: Window

    @property
    def alert(self) -> str:
        return f"{self.box}/{self.epoch}/{self.seq}"


class AlertKey(msgspec.Struct, frozen=True):
    """One alert of a case."""

    box: str
    epoch: str
    seq: int
    at: str

    def __str__(self) -> str:
        return f"{self.box}/{self.epoch}/{self.seq}"


class Answer(msgspec.Struct, frozen=True):
    """What somebody answered to a mail about the case, or asked for on its page."""

    id: str
    action: str
    recipient: str
    asked_at: str
    done_at: str
    done_by: str


def load(db: sa.Connection, scope: Scope, case: str) -> Case | None:
    """The case; None where there is none in this scope."""
    row = db.execute(_select(scope).where(CASE.c.id == case)).first()
    return _case(db, row) if row else None


def listed(
    db: sa.Connection, scope: Scope, *, closed: bool, before: tuple[str, str] | None = None, limit: int = 50
) -> list[Case]:
    """Cases by the time they were opened, the newest first, behind `before` (opened_at, id)."""
    state = CASE.c.state == "closed" if closed else CASE.c.state != "closed"
    query = _select(scope).where(state)
    if before is not None:
        query = query.where(sa.tuple_(CASE.c.opened_at, CASE.c.id) < sa.tuple_(*map(sa.literal, before)))
    rows = db.execute(query.order_by(CASE.c.opened_at.desc(), CASE.c.id.desc()).limit(limit)).all()
    return [_case(db, row) for row in rows]


def case_of(db: sa.Connection, scope: Scope, box: str, epoch: str, seq: int) -> str | None:
    """The name of the case an alert is in."""
    which = (ALERT.c.box == box, ALERT.c.epoch == epoch, ALERT.c.seq == seq, scope.of(ALERT.c.tenant))
    found: str | None = db.execute(sa.select(ALERT.c.case).where(*which)).scalar()
    return found


def alerts(db: sa.Connection, case: Case) -> list[AlertKey]:
    """The alerts of a case, the oldest first, `NAMED_CAP` at most."""
    columns = (ALERT.c.box, ALERT.c.epoch, ALERT.c.seq, ALERT.c.at)
    query = sa.select(*columns).where(ALERT.c.case == case.id).order_by(ALERT.c.at).limit(NAMED_CAP)
    return [AlertKey(*row) for row in db.execute(query)]


def move(db: sa.Connection, scope: Scope, case: str, who: Actor, what: Move, now: dt.datetime) -> Case | None:
    """Do it and write it down; None where there is no such case in this scope.

    Raises:
        Refused: the rules do not allow it; nothing has changed.

    """
    found = _held(db, scope, case)
    if found is None:
        return None
    n, before = record.last(db, case)
    if n >= LOG_CAP and not isinstance(what, steps.Close):
        raise steps.Refused("full")
    work = steps.step(found.work, what, who.login, now, found.window)
    values: dict[str, Any] = {"work": msgspec.json.encode(work), "state": work.state}
    if isinstance(what, Count):
        values["used_on"] = work.visit if what.used else ""
    if work.state == "closed":
        values["open_key"] = None
    db.execute(CASE.update().where(CASE.c.id == case).values(**values))
    data = msgspec.to_builtins(what)
    kind = data.pop("type")
    record.add(db, found.tenant, Entry(case, n + 1, utc.text(now), who.login, who.role, kind, data), before)
    return msgspec.structs.replace(found, work=work)


def write(
    db: sa.Connection, scope: Scope, case: str, who: Actor, kind: str, data: dict[str, Any], now: dt.datetime
) -> Case | None:
    """Write down what changes nothing in the case itself: that it was exported, that somebody was called."""
    found = _held(db, scope, case)
    if found is None:
        return None
    n, before = record.last(db, case)
    if n < LOG_CAP:
        record.add(db, found.tenant, Entry(case, n + 1, utc.text(now), who.login, who.role, kind, data), before)
    return found


def call(db: sa.Connection, scope: Scope, case: str, who: Actor, contact: str, now: dt.datetime) -> Case | None:
    """Ask to be called; goes where the answers to mails go, so that nobody has two lists to look at."""
    found = write(db, scope, case, who, "call", {"contact": contact}, now)
    if found is None:
        return None
    n, _ = record.last(db, case)
    row = {"id": f"case-{case}-{n}", "tenant": found.tenant, "action": "call", "mail": "", "recipient": who.login}
    times = {"asked_at": utc.text(now), "done_at": "", "done_by": ""}
    if not any(not answer.done_at and answer.id.startswith("case-") for answer in answers(db, found)):
        db.execute(request.insert().values(about=found.alert, **row, **times))
    return found


def answers(db: sa.Connection, case: Case) -> list[Answer]:
    """What people answered by the mails about this case's alerts, or asked for on its page."""
    keys = {case.alert, *map(str, alerts(db, case))}
    which = (request.c.tenant == case.tenant, request.c.about.in_(sorted(keys)))
    columns = (request.c[name] for name in Answer.__struct_fields__)
    query = sa.select(*columns).where(*which).order_by(request.c.asked_at).limit(NAMED_CAP)
    return [Answer(*row) for row in db.execute(query)]


def uses(db: sa.Connection, tenant: str, today: dt.date, began: dt.date | None) -> tuple[Year, int]:
    """The year `today` is in, and the visits in it that count as uses."""
    within = year(today, began)
    return within, used_within(db, tenant, within.first, within.last)


def used_within(db: sa.Connection, tenant: str, first: dt.date, last: dt.date) -> int:
    """Visits on these days that count as uses."""
    which = (CASE.c.tenant == tenant, CASE.c.used_on >= str(first), CASE.c.used_on <= str(last))
    return int(db.execute(sa.select(sa.func.count()).where(*which)).scalar_one())


def counts(db: sa.Connection, scope: Scope, since: str, until: str) -> dict[State, int]:
    """Cases opened in [since, until), by where they stand now."""
    which = (scope.of(CASE.c.tenant), CASE.c.opened_at >= since, CASE.c.opened_at < until)
    query = sa.select(CASE.c.state, sa.func.count()).where(*which).group_by(CASE.c.state)
    return {state: number for state, number in db.execute(query)}


def _held(db: sa.Connection, scope: Scope, case: str) -> Case | None:
    """The case, and nobody else changes it before this transaction ends."""
    row = db.execute(_select(scope).where(CASE.c.id == case).with_for_update()).first()
    return _case(db, row) if row else None


def _select(scope: Scope) -> sa.Select[Any]:
    return sa.select(CASE).where(scope.of(CASE.c.tenant))


def _case(db: sa.Connection, row: Any) -> Case:
    told, work = msgspec.json.decode(row.facts, type=Told), msgspec.json.decode(row.work, type=Work)
    names = (
        "id",
        "tenant",
        "box",
        "epoch",
        "seq",
        "why",
        "detected_at",
        "opened_at",
        "last_at",
        "last_received",
        "number",
    )
    plain: dict[str, Any] = {name: getattr(row, name) for name in names}
    return Case(**plain, told=told, work=work, window=_window(db, row))


def _window(db: sa.Connection, row: Any) -> Window:
    zone = tenants.load(db, row.tenant).zone
    received = dt.datetime.fromisoformat(row.last_received)
    which = (
        mail.c.tenant == row.tenant,
        mail.c.created_at >= row.opened_at,
        mail.c.created_at < utc.text(dt.datetime.fromisoformat(row.opened_at) + _MAILED_WITHIN),
        mail.c.about == f"{row.box}/{row.epoch}/{row.seq}",
        mail.c.state == "sent",
    )
    found = db.execute(sa.select(mail.c.done_at).where(*which).order_by(mail.c.created_at).limit(1)).scalar()
    arrived = dt.datetime.fromisoformat(found) if found else None
    if arrived is not None and arrived >= received:
        return Window(arrived, "mail", zone)
    return Window(received, "received", zone)
