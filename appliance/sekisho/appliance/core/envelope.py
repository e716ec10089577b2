"""How what the centre signs goes over the wire: a payload, its signature, the certificate it was made with.

Apart from `sealed`, which makes and checks them, so that who reads what another process has checked loads no
cryptography.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

MESSAGE_CAP: Final = 256 << 10


@dataclass(frozen=True)
class Purpose:
    """What a key may sign."""

    domain: bytes
    """What every signed text of it begins with."""
    usage: str
    """The only extended key usage of its certificate, as dotted numbers."""


class Sealed(msgspec.Struct, frozen=True):
    """A message, base64 in JSON."""

    payload: Annotated[bytes, msgspec.Meta(max_length=MESSAGE_CAP)]
    signature: Annotated[bytes, msgspec.Meta(max_length=256)]
    certificate: Annotated[bytes, msgspec.Meta(max_length=8 << 10)]
    """DER."""


_sealed = msgspec.json.Decoder(Sealed).decode


def opened(data: bytes) -> Sealed:
    """The parts of a message; nothing of them is checked.

    Raises:
        ValueError: too large, or no such message.

    """
    if len(data) > MESSAGE_CAP:
        raise ValueError("larger than its cap")
    try:
        return _sealed(data)
    except (msgspec.MsgspecError, RecursionError) as err:
        raise ValueError(str(err)) from err
