"""What the centre signs and every box checks: a payload, its signature, and the certificate it was made with.

The certificate is of the centre's CA and is for one purpose and nothing else, said by its extended key usage: neither
a box's certificate nor a broker can make such a message. What is signed begins with the purpose, so that no message
of one purpose passes for another's. Nothing of a payload is read before its signature is right.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from sekisho.appliance.core.envelope import Purpose, Sealed, opened
from sekisho.appliance.core.errors import RejectedInput


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
        sealed = opened(data)
        public = _public_key(x509.load_der_x509_certificate(sealed.certificate), purpose, ca, now)
        public.verify(sealed.signature, purpose.domain + sealed.payload, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as err:
        raise ValueError("its signature is not the centre's") from err
    except (TypeError, RecursionError, x509.ExtensionNotFound, UnsupportedAlgorithm) as err:
        raise ValueError(str(err)) from err
    return sealed.payload


def _public_key(
    certificate: x509.Certificate, purpose: Purpose, ca: x509.Certificate, now: float | None
) -> ec.EllipticCurvePublicKey:
    certificate.verify_directly_issued_by(ca)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if [one.dotted_string for one in usage] != [purpose.usage]:
        raise ValueError("a certificate that is for another purpose")
    if now is not None and dt.datetime.fromtimestamp(now, dt.UTC) > certificate.not_valid_after_utc:
        raise ValueError("the certificate that signed it is over")
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("a key of another kind")
    return public
