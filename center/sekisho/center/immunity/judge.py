"""Which of the boxes' bad files join the fleet's list: one box that errs or lies must not stop a good file everywhere.

Only what the rules of a content scan found counts, not what another list said. A box may bring `PER_BOX` new files a
day; an operator's withdrawal holds for ever; a list of files that must never be stopped goes before everything. With
`boxes` above one, a file waits until boxes of so many tenants have found it by themselves.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core.known import BY_FLEET
from sekisho.center import tenants
from sekisho.center.database import Database, insert_new
from sekisho.center.immunity.tables import FLEET_FILE, FLEET_LIST, SIGHTING
from sekisho.center.outbox import BAD_FILE, NEW
from sekisho.center.rules.tables import RULE_OFF

PAGE: Final = 500
PER_BOX: Final = 50
HEARSAY: Final = frozenset({BY_FLEET, "known_file"})
NEVER: Final = frozenset({
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",  # nothing at all
    "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",  # "0"
    "01ba4719c80b6fe911b091a7c05124b64eeece964e09c058ef8f9805daca546b",  # an empty line
})  # fmt: skip


def judge(database: Database, boxes: int = 1) -> int:
    """Decide about what the boxes have found since; returns how many files were looked at.

    Raises:
        DeviceFault: the database refused; nothing was decided.

    """
    with database.reading() as db:
        if db.scalar(sa.select(BAD_FILE.c.id).where(BAD_FILE.c.state == NEW).limit(1)) is None:
            return 0
    with database.transaction() as db:
        new = db.execute(sa.select(BAD_FILE).where(BAD_FILE.c.state == NEW).order_by(BAD_FILE.c.id).limit(PAGE)).all()
        for row in new:
            state = _one(db, row, boxes)
            db.execute(BAD_FILE.update().where(BAD_FILE.c.id == row.id).values(state=state))
    return len(new)


def next_number(db: sa.Connection) -> int:
    """The list's next number, inside a transaction."""
    row = {"one": 1, "n": 0, "base": 0, "based_at": 0}
    db.execute(insert_new(db, FLEET_LIST), [row])
    db.execute(FLEET_LIST.update().values(n=FLEET_LIST.c.n + 1))
    return int(db.scalar(sa.select(FLEET_LIST.c.n)) or 1)


def _one(db: sa.Connection, row: Any, boxes: int) -> str:
    """What becomes of one finding; the word is kept with it."""
    rules = msgspec.json.decode(row.rules, type=list[str])
    counting = set(rules) - HEARSAY
    if not counting:
        return "hearsay"
    if counting <= _switched_off(db):
        return "switched_off"
    if row.sha256 in NEVER:
        return "never"
    if not tenants.load(db, row.tenant).immunity:
        return "not_shared"
    before = db.execute(sa.select(FLEET_FILE.c.state).where(FLEET_FILE.c.sha256 == row.sha256)).scalar()
    if before == "listed":
        db.execute(FLEET_FILE.update().where(FLEET_FILE.c.sha256 == row.sha256).values(at=row.received_at))
    if before in ("listed", "withdrawn"):
        return str(before)
    if not _counted(db, row):
        return "too_many"
    by = sa.func.count(sa.distinct(SIGHTING.c.tenant))
    seen = db.scalar(sa.select(by).where(SIGHTING.c.sha256 == row.sha256)) or 0
    state = "listed" if seen >= boxes else "waiting"
    if before is None:
        db.execute(
            FLEET_FILE.insert().values(
                sha256=row.sha256, state=state, n=next_number(db), box=row.box, tenant=row.tenant, rules=row.rules,
                at=row.received_at, why="",
            )
        )  # fmt: skip
    elif state == "listed":
        db.execute(FLEET_FILE.update().where(FLEET_FILE.c.sha256 == row.sha256).values(state=state, n=next_number(db)))
    return state


def withdraw_of(db: sa.Connection, rule: str) -> int:
    """Let the files pass again that no rule found but those that are switched off, `rule` the last of them.

    In the transaction that switches it off; returns how many.
    """
    off, gone = _switched_off(db), 0
    query = sa.select(FLEET_FILE.c.sha256, FLEET_FILE.c.rules).where(FLEET_FILE.c.state.in_(("listed", "waiting")))
    for sha256, rules in db.execute(query.where(FLEET_FILE.c.box != "")).all():
        if set(msgspec.json.decode(rules, type=list[str])) - HEARSAY <= off:
            values = {"state": "withdrawn", "n": next_number(db), "why": f"the rule {rule} was switched off"}
            db.execute(FLEET_FILE.update().where(FLEET_FILE.c.sha256 == sha256).values(**values))
            gone += 1
    return gone


def _switched_off(db: sa.Connection) -> set[str]:
    return set(db.scalars(sa.select(RULE_OFF.c.rule).where(RULE_OFF.c.kind == "yara")))


def _counted(db: sa.Connection, row: Any) -> bool:
    """Note that this box has found this file, unless it has brought too many today."""
    day = row.received_at[:10]
    mine = sa.select(sa.func.count()).select_from(SIGHTING).where(SIGHTING.c.box == row.box, SIGHTING.c.day == day)
    if (db.scalar(mine) or 0) >= PER_BOX:
        return False
    db.execute(insert_new(db, SIGHTING), [{"sha256": row.sha256, "box": row.box, "tenant": row.tenant, "day": day}])
    return True
