"""The boxes' births and wills, looked at every few seconds; what is to be told goes into the queue with its memory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.center import pulse, tenants
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.database import Database
from sekisho.center.notify import offline, rollouts, upkeep
from sekisho.center.notify.desk import Desk, planner_lock
from sekisho.center.notify.letter import Kind, Letter
from sekisho.center.notify.offline import Fleet, Watched
from sekisho.center.notify.tables import text, watch
from sekisho.center.notify.upkeep import Upkeep, What
from sekisho.center.settings import Notify
from sekisho.center.store import BOX, BoxState

EVERY_S: Final = 5.0
_FLEET: Final = "*"
_UPKEEP: Final = "*rules"
"""No box has these names."""


@dataclass(frozen=True)
class _Seen:
    fleet: Fleet
    boxes: dict[str, Watched]
    upkeep: Upkeep


def step(database: Database, reading: Database, config: Notify, now: dt.datetime) -> None:
    """Compare what is with what people were told; tell what is due. Writes only when there is something to write.

    Raises:
        DeviceFault: the database refused; nothing of it was done.

    """
    with reading.reading() as db:
        was = _load(db)
        if _look(db, was, now) == (was, [], []) and not rollouts.waiting(db):
            return
    with database.transaction() as db:
        planner_lock(db)
        was = _load(db)
        found, told, rules = _look(db, was, now)
        desk = Desk(db, now, config.operator)
        if bool(found.fleet.outage_since) != bool(was.fleet.outage_since):
            kind: Kind = "outage" if found.fleet.outage_since else "over"
            _tell_operator(desk, config, kind, found.fleet.outage_since or was.fleet.outage_since, found.fleet.lost)
        if found.fleet.deaf_told != was.fleet.deaf_told:
            kind = "deaf" if found.fleet.deaf_told else "hears"
            _tell_operator(desk, config, kind, found.fleet.deaf_since or was.fleet.deaf_since, 0)
        for what in rules:
            of = getattr(found.upkeep, what)
            _tell_operator(desk, config, what, of.since, of.number, again=of.at)
        for name, kind in told:
            _tell(desk, config, name, found.boxes[name], kind)
        rollouts.tell(desk, config)
        _save(db, was, found)


def _look(db: sa.Connection, was: _Seen, now: dt.datetime) -> tuple[_Seen, list[tuple[str, offline.Told]], list[What]]:
    """What is seen now, and what people are to be told of it: of boxes, and of the rules of all of them."""
    states = {row.box: BoxState(*row) for row in db.execute(_states())}
    boxes = {box: offline.seen(was.boxes.get(box), state, now) for box, state in states.items()}
    fleet = offline.fleet(was.fleet, list(boxes.values()), pulse.heard(db), now)
    if fleet.ours or was.fleet.ours or offline.surge(list(boxes.values()), now):
        boxes = {name: offline.forgiven(box, now) for name, box in boxes.items()}
    told: list[tuple[str, offline.Told]] = []
    keep = was.upkeep
    for name, box in boxes.items():
        if box.state != "on" or box.told != "on" or box.drops:
            wait = dt.timedelta(minutes=tenants.load(db, box.tenant).offline_minutes)
            boxes[name], kind = offline.judge(box, wait, now)
            told += [(name, kind)] if kind else []
    rules: list[What] = []
    if not fleet.ours:
        for what, number in upkeep.count(db, now).items():
            of, due = upkeep.judge(getattr(was.upkeep, what), number, now)
            keep = msgspec.structs.replace(keep, **{what: of})
            rules += [what] if due else []
    return _Seen(fleet, boxes, keep), told, rules


def _states() -> sa.Select[Any]:
    """Every box but those whose certificate was revoked: they are gone on purpose."""
    revoked = sa.select(BOX_IDENTITY.c.box).where(BOX_IDENTITY.c.state == "revoked")
    return sa.select(*(BOX.c[name] for name in BoxState.__struct_fields__)).where(BOX.c.box.not_in(revoked))


def _tell(desk: Desk, config: Notify, name: str, box: Watched, told: offline.Told) -> None:
    tenant = tenants.load(desk.db, box.tenant)
    offline_about = f"box/{name}/{box.offline_at}"
    letter = Letter(
        kind=told,
        tenant=tenant.id,
        tenant_name=tenant.name,
        at=text(desk.now),
        locale=tenant.locale,
        time_zone=tenant.time_zone,
        sites=tenants.sites(desk.db, tenant.id),
        box=name,
        since=box.since,
        number=len(box.drops),
        unaddressed=not tenant.recipients,
        thread=offline_about if told == "back" else "",
    )
    about = offline_about if told == "offline" else f"box/{name}/{told}/{text(desk.now)}"
    desk.post(letter, about, tenant.recipients or config.operator)


def _tell_operator(desk: Desk, config: Notify, kind: Kind, since: str, number: int, again: str = "") -> None:
    """`again`: tells mails about the same apart."""
    letter = Letter(
        kind=kind,
        tenant="",
        at=text(desk.now),
        locale=config.operator_locale,
        since=since,
        number=number,
        thread={"over": f"outage/{since}", "hears": f"deaf/{since}"}.get(kind, ""),
    )
    desk.post(letter, f"{kind}/{again or since}", config.operator)


def _load(db: sa.Connection) -> _Seen:
    rows = {row.box: row.watched for row in db.execute(sa.select(watch))}
    fleet, keep = rows.pop(_FLEET, None), rows.pop(_UPKEEP, None)
    return _Seen(
        Fleet() if fleet is None else msgspec.json.decode(fleet, type=Fleet),
        {box: msgspec.json.decode(watched, type=Watched) for box, watched in rows.items()},
        Upkeep() if keep is None else msgspec.json.decode(keep, type=Upkeep),
    )


def _save(db: sa.Connection, was: _Seen, now: _Seen) -> None:
    """Write what has changed."""
    old: Mapping[str, msgspec.Struct] = {**was.boxes, _FLEET: was.fleet, _UPKEEP: was.upkeep}
    new: Mapping[str, msgspec.Struct] = {**now.boxes, _FLEET: now.fleet, _UPKEEP: now.upkeep}
    if gone := old.keys() - new.keys():
        db.execute(sa.delete(watch).where(watch.c.box.in_(gone)))
    rows = [
        {"box": name, "watched": msgspec.json.encode(value)} for name, value in new.items() if old.get(name) != value
    ]
    if rows:
        db.execute(sa.delete(watch).where(watch.c.box == sa.bindparam("name")), [{"name": row["box"]} for row in rows])
        db.execute(sa.insert(watch), rows)
