"""What a customer has decided: who is told what, when and in which language; what the sites are called.

Settings are one checked document per tenant, kept whole: a key that is not known is refused when it is set, and a
tenant that nobody has set up yet has the defaults. Read by the notifier, fleet immunity and the portal.
"""

from __future__ import annotations

import functools
import logging
import re
import zoneinfo
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.names import is_name
from sekisho.center.database import metadata
from sekisho.center.scope import Scope

NAME_CAP: Final = 80
RECIPIENTS_CAP: Final = 16

Locale = Literal["ja", "en"]
Clock = Annotated[str, msgspec.Meta(pattern=r"^(|([01]\d|2[0-3]):[0-5]\d)$")]
Name = Annotated[str, msgspec.Meta(max_length=NAME_CAP)]

log = logging.getLogger(__name__)

ADDRESS_CAP: Final = 254
"""Characters of an address that fits into a mail's path with its brackets (RFC 5321 4.5.3.1.3)."""
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
"""An addr-spec (RFC 5322 3.4.1) without quoting, comments and address literals; nothing that could end a header."""

_tenant = sa.Table(
    "tenant",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("settings", sa.LargeBinary, nullable=False),
)
_site = sa.Table(
    "site",
    metadata,
    sa.Column("box", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("name", sa.String(NAME_CAP), nullable=False),
    sa.Index("site_by_tenant", "tenant", "box"),
)


class Tenant(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """One customer's settings; the defaults are what a customer has who was never asked."""

    id: str
    name: Name = ""
    locale: Locale = "ja"
    time_zone: Annotated[str, msgspec.Meta(max_length=64)] = "Asia/Tokyo"
    recipients: Annotated[tuple[str, ...], msgspec.Meta(max_length=RECIPIENTS_CAP)] = ()
    """Mail addresses of those who are told."""
    threshold: Annotated[int, msgspec.Meta(ge=1, le=3)] = 3
    """Stars from which a mail goes at once; what has fewer waits for the digest."""
    digest: Literal["daily", "weekly", "off"] = "daily"
    """A summary of what was not mailed at once; none is sent when there was nothing. Weekly: on Mondays."""
    digest_hour: Annotated[int, msgspec.Meta(ge=0, le=23)] = 8
    quiet_from: Clock = ""
    """Local time, HH:MM, from which mails wait; empty = never."""
    quiet_to: Clock = ""
    quiet_holds_important: bool = False
    """Whether even three stars wait for the end of the quiet hours."""
    fold_minutes: Annotated[int, msgspec.Meta(ge=1, le=1440)] = 15
    """Repeats of one thing within this time come as one further mail with their number."""
    mails_per_hour: Annotated[int, msgspec.Meta(ge=1, le=60)] = 10
    """Beyond it, what would be mailed at once is gathered into summaries."""
    offline_minutes: Annotated[int, msgspec.Meta(ge=0, le=1440)] = 10
    """How long a box may be out of reach before people are told; 0 = they are not told."""
    immunity: bool = True
    """Whether the tenant's boxes give to and take from the fleet's list of bad files."""
    second_factor: bool = False
    """Whether everyone of the customer needs a second factor to sign in."""
    one_session: bool = False
    """Whether an account is signed in on one browser at a time: a new sign-in ends the older one."""

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        return zoneinfo.ZoneInfo(self.time_zone)


def load(db: sa.Connection, tenant: str) -> Tenant:
    """The tenant's settings, or the defaults where none were ever set; see `_read` for what cannot be read."""
    found = db.execute(sa.select(_tenant.c.settings).where(_tenant.c.id == tenant)).scalar()
    return Tenant(tenant) if found is None else _read(tenant, found)


def every(db: sa.Connection) -> list[Tenant]:
    """All tenants that have settings, by name."""
    rows = db.execute(sa.select(_tenant.c.id, _tenant.c.settings).order_by(_tenant.c.id))
    return [_read(row.id, row.settings) for row in rows]


def some(db: sa.Connection, scope: Scope, which: Sequence[str] | sa.Select[tuple[str]]) -> list[Tenant]:
    """Those of these tenants that have settings."""
    rows = db.execute(
        sa.select(_tenant.c.id, _tenant.c.settings).where(_tenant.c.id.in_(which), scope.of(_tenant.c.id))
    )
    return [_read(row.id, row.settings) for row in rows]


def save(db: sa.Connection, tenant: Tenant) -> None:
    """Keep the settings as they are given.

    Raises:
        RejectedInput: an identifier, address, name or time zone that could not be used.

    """
    check(tenant)
    db.execute(sa.delete(_tenant).where(_tenant.c.id == tenant.id))
    db.execute(sa.insert(_tenant).values(id=tenant.id, settings=msgspec.json.encode(tenant)))


def changed(tenant: Tenant, values: dict[str, Any]) -> Tenant:
    """The settings with some of them changed; values may be text, as a command line gives them.

    Raises:
        RejectedInput: an unknown key or a value that is not allowed; the message names it.

    """
    try:
        made = msgspec.convert({**msgspec.to_builtins(tenant), **values, "id": tenant.id}, Tenant, strict=False)
    except msgspec.ValidationError as err:
        raise RejectedInput(f"Settings of {tenant.id}: {err}.") from err
    check(made)
    return made


def check(tenant: Tenant) -> None:
    """Refuse what a type alone cannot.

    Raises:
        RejectedInput: an identifier, address, name or time zone that could not be used.

    """
    if not is_name(tenant.id):
        raise RejectedInput(f"{tenant.id!r} is no tenant's identifier: letters, digits, '.', '_' and '-', at most 64.")
    for address in tenant.recipients:
        if len(address) > ADDRESS_CAP or not _ADDRESS.fullmatch(address):
            raise RejectedInput(f"{address!r} is no mail address that can be used.")
    _check_name(tenant.name)
    if bool(tenant.quiet_from) != bool(tenant.quiet_to):
        raise RejectedInput("Quiet hours need both quiet_from and quiet_to.")
    try:
        _ = tenant.zone
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as err:
        raise RejectedInput(f"{tenant.time_zone!r} is no time zone: write it like Asia/Tokyo.") from err


def name_site(db: sa.Connection, tenant: str, box: str, name: str) -> None:
    """Give a box the name its people know its place by; an empty name takes it away.

    Raises:
        RejectedInput: the name is too long or holds control characters.

    """
    _check_name(name)
    db.execute(sa.delete(_site).where(_site.c.box == box))
    if name:
        db.execute(sa.insert(_site).values(box=box, tenant=tenant, name=name))


def every_site(db: sa.Connection) -> dict[tuple[str, str], str]:
    """(Tenant, box) -> what its place is called, of all that have a name."""
    rows = db.execute(sa.select(_site.c.tenant, _site.c.box, _site.c.name))
    return {(row.tenant, row.box): row.name for row in rows}


def sites(db: sa.Connection, tenant: str) -> dict[str, str]:
    """Box -> what its people call the place."""
    rows = db.execute(sa.select(_site.c.box, _site.c.name).where(_site.c.tenant == tenant).order_by(_site.c.box))
    return {box: name for box, name in rows}


@functools.lru_cache(maxsize=4096)
def _read(tenant: str, settings: bytes) -> Tenant:
    """The stored settings; a default stands in for each that cannot be used (another version's, a zone that is gone).

    One customer's row must stop nobody else's alarms. It is said once. Who may have refused fleet immunity stays out.
    """
    try:
        made = msgspec.json.decode(settings, type=Tenant)
        _ = made.zone
    except (msgspec.DecodeError, UnicodeDecodeError, zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        log.error("settings of tenant %s cannot be used as they are: defaults stand in for what is wrong", tenant)
    else:
        return made
    try:
        values = msgspec.json.decode(settings)
    except (msgspec.DecodeError, UnicodeDecodeError):
        values = None
    if not isinstance(values, dict):
        return Tenant(tenant, immunity=False)
    made = Tenant(tenant, immunity=values.pop("immunity", True) is True)
    for key, value in values.items():
        with suppress(RejectedInput):
            made = changed(made, {key: value})
    return made


def _check_name(name: str) -> None:
    if len(name) > NAME_CAP or not name.isprintable():
        raise RejectedInput(f"A name has at most {NAME_CAP} printable characters.")
