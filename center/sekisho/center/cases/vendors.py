"""The companies that come (お助け実働隊 地域IT事業者): who there is, where, and how they are reached.

The centre's own list is everyone's; a chamber adds its own, for its customers alone. The insurance pays nobody else.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.cases.tables import VENDOR
from sekisho.center.customers import CUSTOMER
from sekisho.center.scope import Scope

CAP: Final = 500
"""Vendors of one list."""
_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=80)]


class Vendor(msgspec.Struct, frozen=True):
    """One company."""

    id: str
    reseller: str
    area: _Word
    name: _Word
    phone: _Word
    hours: Annotated[str, msgspec.Meta(max_length=120)]


def seen_by(db: sa.Connection, scope: Scope, chamber: str = "") -> list[Vendor]:
    """The vendors whoever has this scope sees: everyone's, those of the customers' chambers and of their own."""
    chambers = sa.select(CUSTOMER.c.reseller).where(scope.of(CUSTOMER.c.tenant))
    mine: sa.ColumnElement[bool] = sa.or_(VENDOR.c.reseller.in_(("", chamber)), VENDOR.c.reseller.in_(chambers))
    if scope.tenants is None:
        mine = sa.true()
    query = _select().where(mine).order_by(VENDOR.c.area, VENDOR.c.name, VENDOR.c.id).limit(CAP)
    return [_vendor(row) for row in db.execute(query)]


def of_tenant(db: sa.Connection, tenant: str) -> list[Vendor]:
    """The vendors this customer may choose from."""
    return seen_by(db, Scope(frozenset({tenant})))


def save(db: sa.Connection, vendor: Vendor) -> str:
    """Enter a vendor, or change it when it has an id; the caller has asked who may. Returns the id.

    Raises:
        RejectedInput: a field is empty or too long, or the list is full.

    """
    try:
        values = msgspec.to_builtins(msgspec.convert(msgspec.to_builtins(vendor), Vendor))
    except msgspec.ValidationError as err:
        raise RejectedInput(f"A vendor's entry: {err}.") from err
    if not all(value.isprintable() for value in values.values()):
        raise RejectedInput("A vendor's entry holds characters that cannot be shown.")
    if vendor.id:
        db.execute(VENDOR.update().where(VENDOR.c.id == vendor.id).values(**values))
        return vendor.id
    count = sa.select(sa.func.count()).where(VENDOR.c.reseller == vendor.reseller)
    if db.execute(count).scalar_one() >= CAP:
        raise RejectedInput(f"A list has at most {CAP} vendors.")
    made = secrets.token_hex(8)
    db.execute(VENDOR.insert().values(**{**values, "id": made}))
    return made


def load(db: sa.Connection, id_: str) -> Vendor | None:
    row = db.execute(_select().where(VENDOR.c.id == id_)).first()
    return _vendor(row) if row else None


def remove(db: sa.Connection, id_: str) -> None:
    """Take a vendor from the list; cases that name it keep the name."""
    db.execute(VENDOR.delete().where(VENDOR.c.id == id_))


def _select() -> sa.Select[Any]:
    return sa.select(*(VENDOR.c[name] for name in Vendor.__struct_fields__))


def _vendor(row: Any) -> Vendor:
    return Vendor(*row)
