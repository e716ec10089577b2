"""Changing what is decided for a box, and how far the newest decision has got.

A change is prepared first, outside of any transaction, because proving it takes a while: it is compiled as the box
will do it. It is then committed only over the document it was made from: of two people who change the same thing at
the same time the second is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import orders, utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.database import Database
from sekisho.center.orders.tables import EXCEPTION, ORDERS
from sekisho.center.scope import Scope
from sekisho.center.views.orders import APPLIED
from sekisho.policy import overlay
from sekisho.policy.model import Exemption
from sekisho.policy.overlay import EMPTY, Overlay

MAX_NUMBER: Final = 1 << 52
"""Beyond it a box's word about a number is not believed; half of what a message can carry."""

State = Literal["none", "waiting", "sent", "in_force", "refused"]


class ChangedMeanwhile(RejectedInput):
    """Somebody else has changed it since it was read."""


class Wish(msgspec.Struct, frozen=True):
    """What is decided for a box, and how far that has got."""

    box: str
    tenant: str
    n: int = 0
    overlay: Overlay = EMPTY
    at: str = ""
    by: str = ""
    state: State = "none"
    """none: nothing was ever decided here; waiting: for the broker; sent: the box has not said anything yet."""
    why: str = ""
    """The box's code where it refused (`telemetry.events.Applied`)."""
    state_at: str = ""
    """When the box said so, by its clock."""
    overruled: int = 0
    force_n: int = 0
    """The document that the box said last is in force; 0: none."""

    def of(self, n: int) -> State:
        """How far document `n` or a later one that repeats it has got."""
        if n <= self.force_n:
            return "in_force"
        return self.state if self.state != "in_force" else "sent"


@dataclass(frozen=True)
class Change:
    """A proven change that waits for its transaction."""

    box: str
    tenant: str
    seen: int
    overlay: Overlay
    document: bytes


def of_box(db: sa.Connection, scope: Scope, box: str) -> Wish | None:
    """The box's decisions; None where nothing was decided or the box is not in the scope."""
    found = _read(db, ORDERS.c.box == box, scope, 1)
    return found[0] if found else None


def of_tenant(db: sa.Connection, scope: Scope, limit: int = 200) -> list[Wish]:
    """The decisions about every box in the scope."""
    return _read(db, sa.true(), scope, limit)


def _read(db: sa.Connection, which: sa.ColumnElement[bool], scope: Scope, limit: int) -> list[Wish]:
    told = [APPLIED.c[name] for name in ("n", "state", "why", "at", "overruled", "force_n")]
    query = (
        sa.select(ORDERS, *(column.label(f"told_{column.name}") for column in told))
        .outerjoin(APPLIED, sa.and_(APPLIED.c.box == ORDERS.c.box, APPLIED.c.tenant == ORDERS.c.tenant))
        .where(which, scope.of(ORDERS.c.tenant))
        .order_by(ORDERS.c.tenant, ORDERS.c.box)
        .limit(limit)
    )
    return [_wish(row) for row in db.execute(query)]


def _wish(row: sa.Row[tuple[object, ...]]) -> Wish:
    told = row.told_n == row.n
    state: State = row.told_state if told else "sent" if row.sent_n >= row.n else "waiting"
    return Wish(
        row.box, row.tenant, row.n, overlay.parse(row.document), row.at, row.author, state,
        row.told_why if told else "", row.told_at if told else row.sent_at if state == "sent" else row.at,
        row.told_overruled if told else 0, row.told_force_n or 0,
    )  # fmt: skip


def prepare(wish: Wish, edit: Callable[[Overlay], Overlay]) -> Change | None:
    """The change that `edit` makes, proven; None where it makes none, unless the box refused what there is.

    Raises:
        RejectedInput: it could not be put in force; the message says why.

    """
    made = edit(wish.overlay)
    document = overlay.encode(made)
    if made == wish.overlay and wish.state != "refused":
        return None
    if len(document) > orders.DOCUMENT_CAP:
        raise RejectedInput(f"The settings are larger than {orders.DOCUMENT_CAP >> 10} KiB.")
    overlay.prove(made)
    return Change(wish.box, wish.tenant, wish.n, made, document)


def commit(db: sa.Connection, change: Change, by: str) -> int:
    """Keep a change, in the caller's transaction; its number.

    Raises:
        ChangedMeanwhile: the document is not the one any more that the change was made from.

    """
    row = db.execute(sa.select(ORDERS).where(ORDERS.c.box == change.box).with_for_update()).first()
    before = 0 if row is None else row.n
    if before != change.seen:
        raise ChangedMeanwhile("Somebody else has changed these settings meanwhile.", "Look at them, and try again.")
    n = max(before + 1, int(time.time()))
    values = {"tenant": change.tenant, "n": n, "document": change.document, "at": utc.now(), "author": by}
    if row is None:
        db.execute(ORDERS.insert().values(box=change.box, sent_n=0, sent_at="", **values))
    else:
        db.execute(ORDERS.update().where(ORDERS.c.box == change.box).values(**values))
    _note_exceptions(db, change, n, by)
    return n


def _note_exceptions(db: sa.Connection, change: Change, n: int, by: str) -> None:
    """Who made which: those that are new, and those that are gone."""
    of_box_ = EXCEPTION.c.box == change.box
    known = {row.id: row.gone_n for row in db.execute(sa.select(EXCEPTION.c.id, EXCEPTION.c.gone_n).where(of_box_))}
    now = {one.id: one for one in change.overlay.exception}
    for id_, one in now.items():
        values = {"tenant": change.tenant, "exemption": msgspec.json.encode(one), "gone_n": 0}
        if id_ not in known:
            db.execute(EXCEPTION.insert().values(box=change.box, id=id_, n=n, at=utc.now(), author=by, **values))
        elif known[id_]:
            db.execute(
                EXCEPTION.update().where(of_box_, EXCEPTION.c.id == id_).values(n=n, at=utc.now(), author=by, **values)
            )
    gone = [id_ for id_, gone_n in known.items() if not gone_n and id_ not in now]
    if gone:
        db.execute(EXCEPTION.update().where(of_box_, EXCEPTION.c.id.in_(gone)).values(gone_n=n))


class Made(msgspec.Struct, frozen=True):
    """One exception as people are shown it."""

    box: str
    id: str
    exemption: Exemption
    n: int
    at: str
    by: str
    gone_n: int


def exceptions(db: sa.Connection, scope: Scope, limit: int = 500) -> list[Made]:
    """The exceptions of the boxes in the scope, also those whose removal a box has not confirmed."""
    query = (
        sa.select(EXCEPTION)
        .outerjoin(APPLIED, sa.and_(APPLIED.c.box == EXCEPTION.c.box, APPLIED.c.tenant == EXCEPTION.c.tenant))
        .where(scope.of(EXCEPTION.c.tenant))
        .where(sa.or_(EXCEPTION.c.gone_n == 0, EXCEPTION.c.gone_n > sa.func.coalesce(APPLIED.c.force_n, 0)))
        .order_by(EXCEPTION.c.tenant, EXCEPTION.c.box, EXCEPTION.c.id)
        .limit(limit)
    )
    decode = msgspec.json.Decoder(Exemption).decode
    return [Made(r.box, r.id, decode(r.exemption), r.n, r.at, r.author, r.gone_n) for r in db.execute(query)]


def forget(db: sa.Connection, tenant: str) -> None:
    """Forget what was decided for a tenant's boxes; the daemon then takes it from the broker."""
    db.execute(EXCEPTION.delete().where(EXCEPTION.c.tenant == tenant))
    db.execute(ORDERS.delete().where(ORDERS.c.tenant == tenant))


def overtake(database: Database) -> int:
    """Number anew what lies behind a box's own: the centre was restored from before, and the box refuses older ones.

    Raises:
        DeviceFault: the database refused.

    """
    ahead = (
        sa.select(ORDERS.c.box, APPLIED.c.n)
        .join(APPLIED, sa.and_(APPLIED.c.box == ORDERS.c.box, APPLIED.c.tenant == ORDERS.c.tenant))
        .where(APPLIED.c.n > ORDERS.c.n, APPLIED.c.n < MAX_NUMBER)
        .limit(100)
    )
    with database.reading() as db:
        found = db.execute(ahead).all()
    if found:
        with database.transaction() as db:
            for row in found:
                which = sa.and_(ORDERS.c.box == row.box, ORDERS.c.n < row.n)
                db.execute(ORDERS.update().where(which).values(n=row.n + 1))
    return len(found)
