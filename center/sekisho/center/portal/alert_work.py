"""What is done about an alert and written down with it, whoever does it: people on its page, partners by the API."""

from __future__ import annotations

from typing import Final, Literal

import sqlalchemy as sa

from sekisho.center.portal import audit
from sekisho.center.portal.viewer import Viewer
from sekisho.center.views.alert_list import Line
from sekisho.center.views.alerts import ALERT, ALERT_NOTE

NOTE_CAP: Final = 1000

State = Literal["open", "done"]


def handle(db: sa.Connection, who: Viewer, line: Line, to: State, at: str, why: str = "") -> bool:
    """It was dealt with, or it has to be again; False when it stood like that already. `why` is kept as a note."""
    by = {"handled_by": who.name, "handled_at": at} if to == "done" else {"handled_by": "", "handled_at": ""}
    mine = (ALERT.c.tenant == line.tenant, ALERT.c.id == line.id, ALERT.c.state != to)
    if not db.execute(ALERT.update().where(*mine).values(state=to, **by)).rowcount:
        return False
    keep(db, who, line, to, "", at)
    if why:
        keep(db, who, line, "note", why, at)
    audit.note(db, who, f"alert.{to}", str(line.id), tenant=line.tenant)
    return True


def note(db: sa.Connection, who: Viewer, line: Line, text: str, at: str) -> None:
    """Somebody's note about it."""
    keep(db, who, line, "note", text, at)
    audit.note(db, who, "alert.note", str(line.id), tenant=line.tenant)


def keep(db: sa.Connection, who: Viewer, line: Line, kind: str, text: str, at: str) -> None:
    """One entry of the alert's history."""
    values = {"at": at, "account": who.account, "who": who.name, "kind": kind, "text": text}
    db.execute(ALERT_NOTE.insert().values(tenant=line.tenant, alert=line.id, **values))


def clean(text: str) -> str:
    """A note as it is kept: lines of what can be shown, at most NOTE_CAP characters."""
    lines = text[: 2 * NOTE_CAP].replace("\r\n", "\n").split("\n")
    kept = "\n".join("".join(char if char.isprintable() else " " for char in line) for line in lines)
    return kept.strip()[:NOTE_CAP]
