"""What the centre signs and every box checks: a payload, its signature, and the certificate it was made with.

The certificate is of the centre's CA and is for one purpose and nothing else, said by its extended key usage: neither
a box's certificate nor a broker can make such a message. What is signed begins with the purpose, so that no message
of one purpose passes for another's. Nothing of a payload is read before its signature is right.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from sekisho.appliance.core.errors import RejectedInput

MESSAGE_CAP: Final = 256 << 10


@dataclass(frozen=True)
class Purpose:
    """What a key may sign."""

    domain: bytes
    """What every signed text of it begins with."""
    usage: x509.ObjectIdentifier
    """The only extended key usage of its certificate."""


class Sealed(msgspec.Struct, frozen=True):
    """A message as it goes over the wire, base64 in JSON."""

    payload: Annotated[bytes, msgspec.Meta(max_length=MESSAGE_CAP)]
    signature: Annotated[bytes, msgspec.Meta(max_length=256)]
    certificate: Annotated[bytes, msgspec.Meta(max_length=8 << 10)]
    """DER."""


_sealed = msgspec.json.Decoder(Sealed).decode


@dataclass(frozen=True)
class Key:
    """A key of the centre's for one purpose, with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def seal(self, payload: bytes, purpose: Purpose) -> bytes:
        """The message as it goes out."""
        signature = self.key.sign(purpose.domain + payload, ec.ECDSA(hashes.SHA256()))
        return msgspec.json.encode(Sealed(payload, signature, self.certificate.public_bytes(Encoding.DER)))


def load_key(certificate: Path, key: Path) -> Key:
    """The key in a PEM file and its certificate.

    Raises:
        RejectedInput: it cannot be read, or is of another kind.

    """
    try:
        private: Any = serialization.load_pem_private_key(key.read_bytes(), password=None)
        made = Key(private, x509.load_pem_x509_certificate(certificate.read_bytes()))
    except (OSError, ValueError) as err:
        raise RejectedInput(f"The signing key {key} cannot be used: {err}.") from err
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise RejectedInput(f"The signing key {key} is of another kind.")
    return made


def unseal(data: bytes, purpose: Purpose, ca: x509.Certificate, now: float | None) -> bytes:
    """The payload that the centre signed. `now`: unix seconds, as well as known; None: it was checked when it came.

    Raises:
        ValueError: too large, malformed, or not signed by a key for this purpose; the message says which.

    """
    try:
        if len(data) > MESSAGE_CAP:
            raise ValueError("larger than its cap")
        sealed = _sealed(data)
        public = _public_key(x509.load_der_x509_certificate(sealed.certificate), purpose, ca, now)
        public.verify(sealed.signature, purpose.domain + sealed.payload, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as err:
        raise ValueError("its signature is not the centre's") from err
    except (msgspec.MsgspecError, TypeError, RecursionError, x509.ExtensionNotFound, UnsupportedAlgorithm) as err:
        raise ValueError(str(err)) from err
    return sealed.payload


def unchecked(data: bytes) -> bytes:
    """The payload of a message that was checked by who wrote the file it is from.

    Raises:
        ValueError: it is no such message.

    """
    try:
        if len(data) > MESSAGE_CAP:
            raise ValueError("larger than its cap")
        return _sealed(data).payload
    except (msgspec.MsgspecError, RecursionError) as err:
        raise ValueError(str(err)) from err


def _public_key(
    certificate: x509.Certificate, purpose: Purpose, ca: x509.Certificate, now: float | None
) -> ec.EllipticCurvePublicKey:
    certificate.verify_directly_issued_by(ca)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if list(usage) != [purpose.usage]:
        raise ValueError("a certificate that is for another purpose")
    if now is not None and dt.datetime.fromtimestamp(now, dt.UTC) > certificate.not_valid_after_utc:
        raise ValueError("the certificate that signed it is over")
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("a key of another kind")
    return public
