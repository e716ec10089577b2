"""What the devices behind each box are called: the newest word of the box's inventory, and what people call them.

A name is what the device says of itself: somebody else's text, to be made harmless where it is shown. What people
enter (`OWN`) is theirs: it is in no view, and stays when views are made anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.database import insert_new, metadata
from sekisho.telemetry import events
from sekisho.telemetry.events import Device

if TYPE_CHECKING:
    from sekisho.center.store import NewRow

DEVICE = sa.Table(
    "device",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("mac", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, nullable=False, doc="when the box said so"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("vendor", sa.Text, nullable=False),
)
OWN = sa.Table(
    "device_own",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("mac", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("whose", sa.Text, nullable=False),
    sa.Column("standing", sa.Text, nullable=False, doc="expected, stranger, or empty: nobody has said"),
    sa.Column("at", sa.Text, nullable=False),
)
Standing = Literal["", "expected", "stranger"]
_WORD_CAP = 64


class Known(msgspec.Struct, frozen=True):
    """What is known of one device; each may be empty."""

    name: str = ""
    kind: str = ""
    vendor: str = ""


def note(db: sa.Connection, tenant: str, box: str, new: Sequence[NewRow]) -> None:
    """Keep what these rows say of devices; an older word does not replace a newer one."""
    for row in new:
        if row.type != Device.__struct_config__.tag:
            continue
        device = events.decode(row.body)
        if isinstance(device, Device) and device.mac and all(map(_is_word, (device.mac, device.at))):
            _keep(db, {"tenant": tenant, "box": box, "mac": device.mac}, device)


def known(db: sa.Connection, tenant: str, box: str, mac: str) -> Known:
    """What is known of the device with this address."""
    which = (DEVICE.c.tenant == tenant, DEVICE.c.box == box, DEVICE.c.mac == mac)
    row = db.execute(sa.select(DEVICE.c.name, DEVICE.c.kind, DEVICE.c.vendor).where(*which)).first()
    return Known(*row) if row else Known()


def enter(db: sa.Connection, tenant: str, box: str, mac: str, *, name: str, whose: str, standing: Standing) -> None:
    """Keep what people say of a device.

    Raises:
        RejectedInput: a text is too long or holds control characters.

    """
    if not all(map(_is_word, (name, whose))):
        raise RejectedInput(f"A name has at most {_WORD_CAP} printable characters.")
    key = {"tenant": tenant, "box": box, "mac": mac}
    said = {"name": name.strip(), "whose": whose.strip(), "standing": standing, "at": utc.now()}
    db.execute(insert_new(db, OWN), {**key, **said})
    db.execute(OWN.update().where(*(OWN.c[column] == value for column, value in key.items())).values(**said))


def _keep(db: sa.Connection, key: dict[str, str], device: Device) -> None:
    words = (device.name, device.kind, device.vendor)
    said = dict(zip(("name", "kind", "vendor"), (word if _is_word(word) else "" for word in words), strict=True))
    db.execute(insert_new(db, DEVICE), {**key, "at": device.at, **said})
    which = [DEVICE.c[name] == value for name, value in key.items()]
    db.execute(DEVICE.update().where(*which, DEVICE.c.at < device.at).values(at=device.at, **said))


def _is_word(text: str) -> bool:
    return len(text) <= _WORD_CAP and text.isprintable()
