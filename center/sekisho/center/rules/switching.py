"""A rule is switched off for all boxes, or on again; a new set is announced. All in the caller's transaction.

What is decided is in the database before it is said (`center.immunity` says it), and every decision gets the next
number. Nothing here knows which rules there are: one that a set no longer has may stay switched off.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import switched, utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.muting import MAX_NAMES, MAX_SIDS
from sekisho.appliance.core.switched import Switched
from sekisho.center.database import insert_new
from sekisho.center.immunity.judge import withdraw_of
from sekisho.center.rules.tables import RULE_OFF, RULE_WORD

Kind = Literal["sid", "yara"]
CAPS: Final[dict[Kind, int]] = {"sid": MAX_SIDS, "yara": MAX_NAMES}
WHY_CAP: Final = 200


class Off(msgspec.Struct, frozen=True):
    """One rule that is off."""

    kind: Kind
    rule: str
    at: str
    by: str
    why: str
    sent: bool
    """The broker has it, and with it every box that is connected; which of them heard it is not known here."""


def named(text: str) -> tuple[Kind, str]:
    """What people call a rule, as kind and rule: a number is a Suricata rule, a name a YARA rule.

    Raises:
        RejectedInput: it is neither.

    """
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= switched.MAX_SID:
        return "sid", str(int(text))
    if re.fullmatch(switched.NAME, text):
        return "yara", text
    raise RejectedInput(f"{text[:40]!r} is neither a rule's number (1 to {switched.MAX_SID}) nor a YARA rule's name.")


def off(db: sa.Connection, text: str, by: str, why: str) -> bool:
    """Switch a rule off for all boxes; False when it was off already (who did it first, and why, stays).

    Files that only it found leave the fleet's list with it, and do not come back by themselves.

    Raises:
        RejectedInput: that is no rule, no reason was given, or no more can be switched off.

    """
    kind, rule = named(text)
    why = " ".join(why.split())
    if not why or len(why) > WHY_CAP or not why.isprintable():
        raise RejectedInput(f"A reason is needed, of at most {WHY_CAP} characters.")
    number = _next(db)  # first: on PostgreSQL it also keeps two people from going past the cap together
    count = sa.select(sa.func.count()).select_from(RULE_OFF).where(RULE_OFF.c.kind == kind)
    if _row(db, kind, rule) is not None:
        return False
    if (db.scalar(count) or 0) >= CAPS[kind]:
        raise RejectedInput(f"{CAPS[kind]} rules of this kind are switched off: no more can be.")
    db.execute(RULE_OFF.insert().values(kind=kind, rule=rule, n=number, at=utc.now(), by=by, why=why))
    if kind == "yara":
        withdraw_of(db, rule)
    return True


def on(db: sa.Connection, text: str) -> bool:
    """Let a rule work again on all boxes; False when it was not off.

    Raises:
        RejectedInput: that is no rule.

    """
    kind, rule = named(text)
    gone = db.execute(RULE_OFF.delete().where(RULE_OFF.c.kind == kind, RULE_OFF.c.rule == rule)).rowcount
    if gone:
        _next(db)
    return bool(gone)


def announce(db: sa.Connection, number: int) -> None:
    """Tell all boxes that this set was published: they look for it at once.

    Raises:
        RejectedInput: no number of a set.

    """
    if not 1 <= number < 1 << 53:
        raise RejectedInput(f"{number} is no number of a published set.")
    _next(db)
    db.execute(RULE_WORD.update().values(newest=number))


def listed(db: sa.Connection) -> list[Off]:
    """What is off, the newest first."""
    sent_n = db.scalar(sa.select(RULE_WORD.c.sent_n)) or 0
    rows = db.execute(sa.select(RULE_OFF).order_by(RULE_OFF.c.n.desc(), RULE_OFF.c.rule))
    return [Off(row.kind, row.rule, row.at, row.by, row.why, row.n <= sent_n) for row in rows]


def newest_number(db: sa.Connection) -> int:
    """Of the last decision; 0: nothing was ever said."""
    return int(db.scalar(sa.select(RULE_WORD.c.n)) or 0)


def current(db: sa.Connection) -> Switched:
    """What is to be said to every box; the first time gets a number, too."""
    if not newest_number(db):
        _next(db)
    word = db.execute(sa.select(RULE_WORD.c.n, RULE_WORD.c.newest)).one()
    found: dict[str, list[str]] = {"sid": [], "yara": []}
    for kind, rule in db.execute(sa.select(RULE_OFF.c.kind, RULE_OFF.c.rule)):
        found[kind].append(rule)
    return Switched(
        n=word.n,
        sids=tuple(sorted(map(int, found["sid"]))),
        yara=tuple(sorted(found["yara"])),
        newest=word.newest,
    )


def note_sent(db: sa.Connection, number: int) -> None:
    """The broker has confirmed the message of this number."""
    db.execute(RULE_WORD.update().where(RULE_WORD.c.sent_n < number).values(sent_n=number, sent_at=utc.now()))


def _next(db: sa.Connection) -> int:
    db.execute(insert_new(db, RULE_WORD), [{"one": 1, "n": 0, "newest": 0, "sent_n": 0, "sent_at": ""}])
    db.execute(RULE_WORD.update().values(n=RULE_WORD.c.n + 1))
    return int(db.scalar(sa.select(RULE_WORD.c.n)) or 1)


def _row(db: sa.Connection, kind: Kind, rule: str) -> object:
    return db.execute(sa.select(RULE_OFF.c.n).where(RULE_OFF.c.kind == kind, RULE_OFF.c.rule == rule)).first()
