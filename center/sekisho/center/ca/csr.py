"""A certificate signing request, read for nothing but its key: who the key belongs to is decided elsewhere."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sekisho.appliance.core.errors import RejectedInput
from sekisho.telemetry.enrolment.wire import RENEWAL_CONTEXT

_CURVES = (ec.SECP256R1, ec.SECP384R1)


def read(pem: str) -> x509.CertificateSigningRequest:
    """A request whose sender has the key: its signature is right, the key is on P-256 or P-384.

    Raises:
        RejectedInput: anything else.

    """
    try:
        csr = x509.load_pem_x509_csr(pem.encode())
        key = csr.public_key()
        # Before anything is computed with it: a signature of a huge RSA key would cost seconds.
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
            raise RejectedInput("The key must be an elliptic curve key on P-256 or P-384.")
        if not csr.is_signature_valid:
            raise RejectedInput("The request is not signed by its own key.")
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as err:
        raise RejectedInput("This is not a certificate signing request.") from err
    return csr


def key_of(csr: x509.CertificateSigningRequest) -> ec.EllipticCurvePublicKey:
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - `read` made sure
    return key


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of the public key, hexadecimal."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def proves(certificate_pem: str, csr: x509.CertificateSigningRequest, proof: bytes) -> bool:
    """Whether who has the certificate's key wants `csr` in its place."""
    key = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(proof, RENEWAL_CONTEXT + csr.public_bytes(Encoding.DER), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
