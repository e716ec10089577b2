"""What the customer has decided at the centre, as one document for one box: the format both ends share.

State, not a command: each document says everything, so only the newest counts and a box that was away for weeks needs
no other. Box and tenant are inside what is signed: another box's document is none. Its content (`policy.overlay`) is
read by who puts it in force; to who carries it, it is bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from sekisho.appliance.core import envelope
from sekisho.appliance.core.envelope import Purpose
from sekisho.appliance.core.errors import RejectedInput

if TYPE_CHECKING:
    from cryptography import x509

    from sekisho.appliance.core.sealed import Key

PURPOSE: Final = Purpose(b"sekisho orders 1\n", "1.3.6.1.5.5.7.3.36")
"""id-kp-documentSigning (RFC 9336)."""
LEVEL: Final = "orders"
"""The topic's last level, below the box's own."""
EVERYWHERE: Final = f"sk/1/+/+/{LEVEL}"
DOCUMENT_CAP: Final = 128 << 10
"""Bytes of a document; sealed it fits into a message."""

_Name = Annotated[str, msgspec.Meta(max_length=64)]


class Orders(msgspec.Struct, frozen=True):
    """One document. Fields that are not known are passed over; what the document itself says is read strictly."""

    n: Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
    """Grows with every change; a box takes nothing below what it has."""
    tenant: _Name
    box: _Name
    policy: msgspec.Raw = msgspec.Raw(b"{}")


_orders = msgspec.json.Decoder(Orders).decode


def seal(orders: Orders, key: Key) -> bytes:
    """The message as it goes out.

    Raises:
        RejectedInput: the document is larger than its cap.

    """
    if len(bytes(orders.policy)) > DOCUMENT_CAP:
        raise RejectedInput(f"The settings are larger than {DOCUMENT_CAP >> 10} KiB.", "Remove what is not needed.")
    return key.seal(msgspec.json.encode(orders), PURPOSE)


def unseal(data: bytes, ca: x509.Certificate, now: float | None) -> Orders:
    """What the centre signed; `now` as `sealed.unseal` takes it.

    Raises:
        RejectedInput: too large, malformed, or not signed by a key that may sign orders.

    """
    from sekisho.appliance.core import sealed  # here: who reads unchecked loads no cryptography

    try:
        return _read(sealed.unseal(data, PURPOSE, ca, now))
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise RejectedInput(f"The centre's settings for this box were refused: {err}.") from err


def unchecked(data: bytes) -> Orders:
    """What a file holds whose writer has checked it.

    Raises:
        RejectedInput: the file is damaged.

    """
    try:
        return _read(envelope.opened(data).payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise RejectedInput(f"The kept settings of the centre are damaged: {err}.") from err


def _read(payload: bytes) -> Orders:
    orders = _orders(payload)
    if len(bytes(orders.policy)) > DOCUMENT_CAP:
        raise ValueError("larger than its cap")
    return orders
