"""What people answered by a link: kept once, whoever presses how often, and worked off by the centre's staff."""

from __future__ import annotations

import datetime as dt

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.database import insert_new
from sekisho.center.notify.letter import Letter
from sekisho.center.notify.links import Action, Grant
from sekisho.center.notify.tables import mail, request, text


class Request(msgspec.Struct, frozen=True):
    """One answer. `about` is the notice (box/epoch/seq) or the round the mail was about."""

    id: str
    tenant: str
    action: str
    mail: str
    recipient: str
    about: str
    asked_at: str
    done_at: str
    done_by: str


class Subject(msgspec.Struct, frozen=True):
    """The mail an answer is about."""

    tenant: str
    recipient: str
    about: str
    letter: Letter


def subject(db: sa.Connection, grant: Grant) -> Subject | None:
    """The mail a token was made for; None when it is gone."""
    columns = (mail.c.tenant, mail.c.recipient, mail.c.about, mail.c.letter)
    row = db.execute(sa.select(*columns).where(mail.c.id == grant.mail)).first()
    if row is None:
        return None
    return Subject(row.tenant, row.recipient, row.about, msgspec.json.decode(row.letter, type=Letter))


def keep(db: sa.Connection, grant: Grant, about: Subject, now: dt.datetime) -> None:
    """Record the answer; a second time changes nothing."""
    row = {
        "id": f"{grant.mail}-{grant.action}",
        "tenant": about.tenant,
        "action": grant.action,
        "mail": grant.mail,
        "recipient": about.recipient,
        "about": about.about,
        "asked_at": text(now),
        "done_at": "",
        "done_by": "",
    }
    db.execute(insert_new(db, request), [row])


def kept(db: sa.Connection, grant: Grant) -> bool:
    """Whether this was answered already."""
    found = sa.select(request.c.id).where(request.c.id == f"{grant.mail}-{grant.action}")
    return db.execute(found).first() is not None


def listed(db: sa.Connection, *, done: bool = False, action: Action | None = None) -> list[Request]:
    """The open answers, the oldest first; with `done`, all of them."""
    query = sa.select(*(request.c[name] for name in Request.__struct_fields__)).order_by(request.c.asked_at)
    if not done:
        query = query.where(request.c.done_at == "")
    if action:
        query = query.where(request.c.action == action)
    return [Request(*row) for row in db.execute(query)]


def finish(db: sa.Connection, id_: str, by: str, now: dt.datetime) -> None:
    """Write down that somebody has seen to it.

    Raises:
        RejectedInput: there is no such open answer.

    """
    which = (request.c.id == id_, request.c.done_at == "")
    if not db.execute(sa.update(request).where(*which).values(done_at=text(now), done_by=by[:80])).rowcount:
        raise RejectedInput(f"There is no open request {id_}.")
