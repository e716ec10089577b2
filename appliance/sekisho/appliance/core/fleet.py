"""The fleet's list of bad files as the centre signs it and every box checks it: one format for both ends.

Two messages. `All` is the whole list, sent again when much has changed; `Change` says what came and went since. Both
carry one running number; a box takes only what is newer than what it has. The signature is of a certificate that the
centre's CA has issued for signing lists and nothing else: a box's certificate or a broker cannot make one.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.known import HASH, MAX_FILES

TOPIC_ALL: Final = "sk/1/known/all"
TOPIC_CHANGE: Final = "sk/1/known/change"
MESSAGE_CAP: Final = 256 << 10
MAX_CHANGE: Final = 256
"""Hashes in one `Change`; beyond it the whole list is sent."""

_DOMAIN: Final = b"sekisho fleet list 1\n"
"""What is signed begins with it, so that no other signature of the key can pass for this one."""

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


class _Sealed(msgspec.Struct, frozen=True):
    payload: Annotated[bytes, msgspec.Meta(max_length=MESSAGE_CAP)]
    signature: Annotated[bytes, msgspec.Meta(max_length=256)]
    certificate: Annotated[bytes, msgspec.Meta(max_length=8 << 10)]
    """DER."""


_sealed = msgspec.json.Decoder(_Sealed).decode
_message = msgspec.json.Decoder(Message).decode


@dataclass(frozen=True)
class Signer:
    """The centre's key for lists, with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def seal(self, message: Message) -> bytes:
        """The message as it goes out."""
        payload = msgspec.json.encode(message)
        signature = self.key.sign(_DOMAIN + payload, ec.ECDSA(hashes.SHA256()))
        return msgspec.json.encode(_Sealed(payload, signature, self.certificate.public_bytes(Encoding.DER)))


def unseal(data: bytes, ca: x509.Certificate, now: float) -> Message:
    """What the centre signed; `now` in unix seconds, as well as it is known.

    Raises:
        RejectedInput: too large, malformed, or not signed by a key that may sign lists.

    """
    try:
        if len(data) > MESSAGE_CAP:
            raise ValueError("larger than its cap")
        sealed = _sealed(data)
        public = _public_key(x509.load_der_x509_certificate(sealed.certificate), ca, now)
        public.verify(sealed.signature, _DOMAIN + sealed.payload, ec.ECDSA(hashes.SHA256()))
        message: Message = _message(sealed.payload)
        if isinstance(message, All) and not _ascending(message.files):
            raise ValueError("hashes that are not in order")
    except InvalidSignature as err:
        raise RejectedInput("A list of the fleet's bad files was refused: its signature is not the centre's.") from err
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as err:
        raise RejectedInput(f"A list of the fleet's bad files was refused: {err}.") from err
    return message


def _public_key(certificate: x509.Certificate, ca: x509.Certificate, now: float) -> ec.EllipticCurvePublicKey:
    certificate.verify_directly_issued_by(ca)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if list(usage) != [ExtendedKeyUsageOID.CODE_SIGNING]:
        raise ValueError("a certificate that is not for signing lists")
    if dt.datetime.fromtimestamp(now, dt.UTC) > certificate.not_valid_after_utc:
        raise ValueError("the certificate that signed it is over")
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("a key of another kind")
    return public


def _ascending(files: bytes) -> bool:
    if len(files) % HASH:
        return False
    found = [files[at : at + HASH] for at in range(0, len(files), HASH)]
    return all(one < other for one, other in itertools.pairwise(found))
