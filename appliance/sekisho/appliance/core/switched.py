"""Rules that people at the monitoring centre switched off for all boxes, as it signs them and every box checks them.

One message to all boxes, retained at the broker: everything that is off, and the number of the newest published set.
A running number; a box takes only what is newer than what it has. It is signed as the fleet's list of bad files is, by
a key for lists, in words of its own: neither passes for the other. It does not run out: what is off stays off until
the centre says otherwise, also for a box that hears nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cryptography import x509

from sekisho.appliance.core import sealed
from sekisho.appliance.core.envelope import Purpose
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.muting import MAX_NAMES, MAX_SIDS
from sekisho.appliance.core.sealed import Key
from sekisho.appliance.core.settings import Settings

TOPIC: Final = "sk/1/rules/all"
PURPOSE: Final = Purpose(b"sekisho rules off 1\n", "1.3.6.1.5.5.7.3.3")
"""id-kp-codeSigning (RFC 5280 4.2.1.12)."""
NAME: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
"""A YARA rule's."""
MAX_SID: Final = (1 << 32) - 1

_Sid = Annotated[int, msgspec.Meta(ge=1, le=MAX_SID)]
_Name = Annotated[str, msgspec.Meta(pattern=NAME)]
_NEWEST_CAP: Final = 4096


class Switched(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is off, whole."""

    n: Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
    sids: Annotated[tuple[_Sid, ...], msgspec.Meta(max_length=MAX_SIDS)] = ()
    """Suricata rules, ascending."""
    yara: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=MAX_NAMES)] = ()
    """YARA rules, ascending."""
    newest: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0
    """Number of the newest published set, to be fetched soon; 0: nothing is said. No order: the repository decides."""


class Newest(msgspec.Struct, frozen=True):
    """What the signatures daemon reads of it."""

    number: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0


def newest_path(settings: Settings) -> Path:
    """Where telemetry writes `Newest`."""
    return settings.fleet / "newest.json"


def newest(settings: Settings) -> int:
    """The number the centre announced last; 0 when it never did, or the file is damaged."""
    try:
        with newest_path(settings).open("rb") as source:
            return msgspec.json.decode(source.read(_NEWEST_CAP), type=Newest).number
    except (OSError, msgspec.MsgspecError):
        return 0


_message = msgspec.json.Decoder(Switched).decode


def seal(message: Switched, key: Key) -> bytes:
    """The message as it goes out."""
    return key.seal(msgspec.json.encode(message), PURPOSE)


def unseal(data: bytes, ca: x509.Certificate, now: float | None) -> Switched:
    """What the centre signed. `now`: unix seconds, as well as known; None: it was checked when it came.

    Raises:
        RejectedInput: too large, malformed, or not signed by a key that may sign lists.

    """
    try:
        message: Switched = _message(sealed.unseal(data, PURPOSE, ca, now))
        if not (_ascending(message.sids) and _ascending(message.yara)):
            raise ValueError("rules that are not in order")
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise RejectedInput(f"What the centre says of rules was refused: {err}.") from err
    return message


def _ascending(some: Sequence[int] | Sequence[str]) -> bool:
    return all(one < other for one, other in itertools.pairwise(some))  # type: ignore[operator]  # all of one kind
