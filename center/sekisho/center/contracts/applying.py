"""Applying for the service at a chamber: a form for everyone, bounded; nothing changes until a person approves."""

from __future__ import annotations

import datetime as dt
import secrets
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.names import is_name
from sekisho.center import customers, tenants
from sekisho.center.contracts.tables import APPLICATION, RESELLER
from sekisho.center.database import insert_new
from sekisho.center.tenants import Tenant

KEPT: Final = dt.timedelta(days=90)
"""An application that nobody approved is forgotten after this."""
PER_SOURCE: Final = 5
"""Applications from one address within a day."""
WAITING_CAP: Final = 300
"""Applications that may wait at one chamber."""
SHOWN: Final = 100
TEXT_CAP: Final = 500
_CAPS: Final = {"company": tenants.NAME_CAP, "person": 80, "mail": tenants.ADDRESS_CAP, "phone": 32, "note": TEXT_CAP}


class Form(msgspec.Struct, frozen=True):
    """What an applicant says."""

    company: str
    person: str
    mail: str
    phone: str
    note: str = ""


def name_reseller(db: sa.Connection, reseller: str, name: str) -> None:
    """Let customers apply at a chamber, under the name they know it by.

    Raises:
        RejectedInput: no identifier, or no name of at most 80 printable characters.

    """
    if not is_name(reseller) or not 0 < len(name) <= tenants.NAME_CAP or not name.isprintable():
        raise RejectedInput("A chamber has an identifier and a name of at most 80 characters.")
    db.execute(insert_new(db, RESELLER), {"id": reseller, "name": name})
    db.execute(RESELLER.update().where(RESELLER.c.id == reseller).values(name=name))


def reseller_name(db: sa.Connection, reseller: str) -> str:
    """What it is called; empty where nobody applies at it."""
    return db.scalar(sa.select(RESELLER.c.name).where(RESELLER.c.id == reseller)) or ""


def resellers(db: sa.Connection) -> list[tuple[str, str]]:
    """(identifier, name) of those at which customers apply."""
    return [(row.id, row.name) for row in db.execute(sa.select(RESELLER).order_by(RESELLER.c.id).limit(1000))]


def read(fields: dict[str, str]) -> Form:
    """A form as it was sent.

    Raises:
        RejectedInput: something is missing, too long, not printable, or no mail address.

    """
    values = {name: fields.get(name, "").strip() for name in _CAPS}
    for name, cap in _CAPS.items():
        text = values[name].replace("\r\n", "\n").replace("\n", " ") if name == "note" else values[name]
        if len(text) > cap or not text.isprintable() or (not text and name != "note"):
            raise RejectedInput(f"The field {name} cannot be used as it is.")
        values[name] = text
    tenants.check(Tenant("applicant", name=values["company"], recipients=(values["mail"],)))
    return Form(**values)


def apply(db: sa.Connection, reseller: str, form: Form, source: str, now: dt.datetime) -> None:
    """Keep an application for a person to look at.

    Raises:
        RejectedInput: too many came from this address today, or too many wait.

    """
    since = utc.text(now - dt.timedelta(days=1))
    mine = sa.select(sa.func.count()).select_from(APPLICATION)
    recent = mine.where(APPLICATION.c.source == source, APPLICATION.c.asked_at > since)
    waiting = mine.where(APPLICATION.c.reseller == reseller, APPLICATION.c.state == "waiting")
    if (db.scalar(recent) or 0) >= PER_SOURCE or (db.scalar(waiting) or 0) >= WAITING_CAP:
        raise RejectedInput("There were too many applications.", "Please call the chamber.")
    values = {"id": secrets.token_hex(16), "reseller": reseller, "state": "waiting", "tenant": "", "source": source}
    db.execute(APPLICATION.insert().values(**values, asked_at=utc.text(now), **msgspec.structs.asdict(form)))


def waiting(db: sa.Connection, reseller: str | None) -> list[sa.Row[Any]]:
    """Applications that wait, oldest first; None: at every chamber."""
    query = sa.select(APPLICATION).where(APPLICATION.c.state == "waiting")
    if reseller is not None:
        query = query.where(APPLICATION.c.reseller == reseller)
    return list(db.execute(query.order_by(APPLICATION.c.asked_at).limit(SHOWN)))


def approve(db: sa.Connection, application: str, reseller: str | None, now: dt.datetime) -> tuple[str, Form] | None:
    """The contract begins: a customer of its own; None where no such application waits (at this chamber)."""
    row = _waits(db, application, reseller)
    if row is None:
        return None
    tenant = f"c-{secrets.token_hex(5)}"
    customers.add(db, tenant, row.reseller, at=utc.text(now))
    tenants.save(db, Tenant(tenant, name=row.company, recipients=(row.mail,)))
    db.execute(APPLICATION.update().where(APPLICATION.c.id == application).values(state="approved", tenant=tenant))
    return tenant, Form(row.company, row.person, row.mail, row.phone, row.note)


def decline(db: sa.Connection, application: str, reseller: str | None) -> bool:
    """Forget an application; whether it was there."""
    if _waits(db, application, reseller) is None:
        return False
    db.execute(APPLICATION.delete().where(APPLICATION.c.id == application))
    return True


def forget(db: sa.Connection, now: dt.datetime) -> None:
    """Let go of what nobody approved, and of where approved ones came from."""
    old = APPLICATION.c.asked_at < utc.text(now - KEPT)
    db.execute(APPLICATION.delete().where(APPLICATION.c.state == "waiting", old))
    db.execute(
        APPLICATION.update().where(APPLICATION.c.state == "approved", APPLICATION.c.source != "").values(source="")
    )


def _waits(db: sa.Connection, application: str, reseller: str | None) -> sa.Row[Any] | None:
    query = sa.select(APPLICATION).where(APPLICATION.c.id == application, APPLICATION.c.state == "waiting")
    if reseller is not None:
        query = query.where(APPLICATION.c.reseller == reseller)
    return db.execute(query.with_for_update()).first()
