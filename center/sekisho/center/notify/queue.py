"""The queue of mails: claimed before they are sent, so that a kill sends a mail again and never forgets it.

A claim is the state "sending" with a time until which it holds; a daemon that dies leaves a claim that runs out, and
the mail is sent again with the same Message-ID. That is the only way a mail goes out twice: the server had it all, and
the daemon died (or heard no answer) before it had written that down. Several daemons may work on one queue.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec
import sqlalchemy as sa

from sekisho.center.database import Database
from sekisho.center.notify.letter import Letter
from sekisho.center.notify.tables import mail, text

LEASE_S: Final = 90
"""How long a claim holds; longer than the longest attempt (`smtp.ATTEMPT_S`)."""
GIVE_UP: Final = dt.timedelta(days=3)
"""So long after the first temporary refusal it counts as final; RFC 5321 4.5.4.1 says four to five days, alarms age
faster. Days on which our own server could not be used do not count: nobody has refused the mail."""
SHORTEST_S: Final = 15.0
LONGEST_S: Final = 1800.0
"""After a temporary refusal a mail waits half as long again as it has waited in all, within these: greylisting lets
one of the next few pass, and a full mailbox is not knocked at all day."""
REPLY_CAP: Final = 200
PAUSES_S: Final = (1.0, 2.0, 5.0, 15.0, 30.0)
"""While the server cannot be used: the wait after the first, second, ... time."""


class Claimed(msgspec.Struct, frozen=True):
    """A mail that is this sender's to send for `LEASE_S`."""

    id: str
    recipient: str
    tenant: str
    kind: str
    letter: bytes
    created_at: str
    deferred_at: str
    """When it was first refused for now; empty: never."""
    attempts: int
    """This one included; names the claim."""


class Shown(msgspec.Struct, frozen=True):
    """A mail as the command line shows it."""

    id: str
    tenant: str
    recipient: str
    kind: str
    about: str
    stars: int
    state: str
    attempts: int
    created_at: str
    due_at: str
    done_at: str
    reply: str


def waiting(db: sa.Connection, now: dt.datetime) -> bool:
    """Whether some mail is due."""
    return db.execute(sa.select(mail.c.id).where(*_due(now)).limit(1)).first() is not None


def claim(db: sa.Connection, now: dt.datetime, *, in_turn: bool = False) -> Claimed | None:
    """Take the most important mail that is due, inside a transaction; None when there is none.

    `in_turn`: the one that has been due for longest instead. One mail may be what the server breaks off at, and must
    not keep the others from being tried.
    """
    columns = [mail.c[name] for name in Claimed.__struct_fields__]
    order = () if in_turn else (mail.c.stars.desc(),)
    query = sa.select(*columns).where(*_due(now)).order_by(*order, mail.c.due_at).limit(1)
    row = db.execute(query.with_for_update(skip_locked=True)).first()
    if row is None:
        return None
    found = Claimed(*row)
    taken = msgspec.structs.replace(found, attempts=found.attempts + 1)
    until = text(now + dt.timedelta(seconds=LEASE_S))
    change = {"state": "sending", "due_at": until, "attempts": taken.attempts}
    db.execute(sa.update(mail).where(mail.c.id == taken.id).values(change))
    return taken


def sent(db: sa.Connection, taken: Claimed, reply: str, now: dt.datetime) -> None:
    """The server has it."""
    _settle(db, taken, state="sent", reply=reply, done_at=text(now))


def failed(db: sa.Connection, taken: Claimed, reply: str, now: dt.datetime) -> None:
    """It is not sent again: refused for good, or for too long."""
    _settle(db, taken, state="failed", reply=reply, done_at=text(now))


def later(db: sa.Connection, taken: Claimed, reply: str, now: dt.datetime) -> bool:
    """Refused for now: send it again later; False (and it has failed) when that has gone on for too long."""
    first = dt.datetime.fromisoformat(taken.deferred_at or text(now))
    if now - first > GIVE_UP:
        failed(db, taken, reply, now)
        return False
    delay = min(max((now - first).total_seconds() / 2, SHORTEST_S), LONGEST_S)
    due_at = text(now + dt.timedelta(seconds=delay))
    _settle(db, taken, state="due", reply=reply, due_at=due_at, deferred_at=text(first))
    return True


def unreached(db: sa.Connection, taken: Claimed, reply: str, now: dt.datetime) -> None:
    """The server could not be used: the mail waits, ever longer to half a minute, and is never given up."""
    wait_s = pause(taken.attempts)
    _settle(db, taken, state="due", reply=reply, due_at=text(now + dt.timedelta(seconds=wait_s)))


def pause(times: int) -> float:
    """The wait after the server could not be used so many times, seconds."""
    return PAUSES_S[min(max(times, 1), len(PAUSES_S)) - 1]


def shown(database: Database, *, tenant: str = "", state: str = "", limit: int = 100) -> list[Shown]:
    """The newest mails first."""
    query = sa.select(*(mail.c[name] for name in Shown.__struct_fields__)).order_by(mail.c.created_at.desc(), mail.c.id)
    if tenant:
        query = query.where(mail.c.tenant == tenant)
    if state:
        query = query.where(mail.c.state == state)
    with database.reading() as db:
        return [Shown(*row) for row in db.execute(query.limit(limit))]


def letter(taken: Claimed) -> Letter:
    return msgspec.json.decode(taken.letter, type=Letter)


def _due(now: dt.datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return mail.c.state.in_(("due", "sending")), mail.c.due_at <= text(now)


def _settle(db: sa.Connection, taken: Claimed, **change: str) -> None:
    """Write down how a claim ended, unless it ran out and somebody else has it."""
    change["reply"] = change["reply"][:REPLY_CAP]
    own = (mail.c.id == taken.id, mail.c.attempts == taken.attempts, mail.c.state == "sending")
    db.execute(sa.update(mail).where(*own).values(change))
