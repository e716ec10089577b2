"""The fleet's list of bad files as the centre signs it and every box checks it: one format for both ends.

Two messages. `All` is the whole list, sent again when much has changed; `Change` says what came and went since. Both
carry one running number; a box takes only what is newer than what it has. The signature is of a certificate that the
centre's CA has issued for signing lists and nothing else: a box's certificate or a broker cannot make one.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Final

import msgspec
from cryptography import x509

from sekisho.appliance.core import sealed
from sekisho.appliance.core.envelope import Purpose
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.known import HASH, MAX_FILES
from sekisho.appliance.core.sealed import Key

TOPIC_ALL: Final = "sk/1/known/all"
TOPIC_CHANGE: Final = "sk/1/known/change"
MAX_CHANGE: Final = 256
"""Hashes in one `Change`; beyond it the whole list is sent."""

PURPOSE: Final = Purpose(b"sekisho fleet list 1\n", "1.3.6.1.5.5.7.3.3")
"""id-kp-codeSigning (RFC 5280 4.2.1.12)."""

_Number = Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
_Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class All(msgspec.Struct, frozen=True, tag="all", forbid_unknown_fields=True):
    """The whole list."""

    n: _Number
    until: Annotated[int, msgspec.Meta(ge=0)]
    """Unix seconds: from then on it is not used any more."""
    files: Annotated[bytes, msgspec.Meta(max_length=MAX_FILES * HASH)] = b""
    """SHA-256 hashes, 32 bytes each, in ascending order."""


class Change(msgspec.Struct, frozen=True, tag="change", forbid_unknown_fields=True):
    """Everything that came and went since the whole list numbered `base`."""

    n: _Number
    base: _Number
    until: Annotated[int, msgspec.Meta(ge=0)]
    add: Annotated[list[_Hash], msgspec.Meta(max_length=MAX_CHANGE)] = []
    remove: Annotated[list[_Hash], msgspec.Meta(max_length=MAX_CHANGE)] = []


class Away(msgspec.Struct, frozen=True, tag="away", forbid_unknown_fields=True):
    """To one box: its tenant takes no part."""

    n: _Number
    box: Annotated[str, msgspec.Meta(max_length=64)]


Message = All | Change | Away


_message = msgspec.json.Decoder(Message).decode


def seal(message: Message, key: Key) -> bytes:
    """The message as it goes out."""
    return key.seal(msgspec.json.encode(message), PURPOSE)


def unseal(data: bytes, ca: x509.Certificate, now: float) -> Message:
    """What the centre signed; `now` in unix seconds, as well as it is known.

    Raises:
        RejectedInput: too large, malformed, or not signed by a key that may sign lists.

    """
    try:
        message: Message = _message(sealed.unseal(data, PURPOSE, ca, now))
        if isinstance(message, All) and not _ascending(message.files):
            raise ValueError("hashes that are not in order")
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise RejectedInput(f"A list of the fleet's bad files was refused: {err}.") from err
    return message


def _ascending(files: bytes) -> bool:
    if len(files) % HASH:
        return False
    found = [files[at : at + HASH] for at in range(0, len(files), HASH)]
    return all(one < other for one, other in itertools.pairwise(found))
