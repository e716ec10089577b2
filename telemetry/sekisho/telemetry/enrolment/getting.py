"""Getting a certificate: with a code the first time, with the certificate itself from then on.

Order matters. With a code: the CA's certificate is fetched from whoever answers and compared with the code's pin;
only then is a second connection made, which trusts that CA alone, and only over that one goes the secret. So a
stranger in between learns nothing and the code is not used up.
"""

from __future__ import annotations

from hmac import compare_digest
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from sekisho.appliance.core.errors import PeerError
from sekisho.telemetry.enrolment import code as codes
from sekisho.telemetry.enrolment.files import IdentityFiles
from sekisho.telemetry.enrolment.https import Centre, trusting, trusting_nobody
from sekisho.telemetry.enrolment.wire import (
    CA_PATH,
    ENROL_PATH,
    RENEW_PATH,
    RENEWAL_CONTEXT,
    CaAnswer,
    EnrolAsk,
    Grant,
    RenewAsk,
)


def enrol(centre: Centre, code: codes.EnrolCode, files: IdentityFiles) -> Grant:
    """Use the code; on return the identity is in force on disk.

    Raises:
        PeerError: unreachable, or not the centre the code is for; the code is still good.
        Refused: the centre does not take the code.
        DeviceFault: the disk refuses; the code is still good for this box.

    """
    files.prepare()
    ca_pem = _ca(centre, code.pin)
    key = files.next_key()
    csr = _csr(key).public_bytes(Encoding.PEM).decode()
    answer = centre.post(ENROL_PATH, EnrolAsk(code.secret.hex(), csr), trusting(ca_pem))
    grant = _grant(answer)
    files.adopt(_checked(grant, key, ca_pem), key, ca_pem)
    return grant


def renew(centre: Centre, files: IdentityFiles, job: str = "") -> Grant:
    """Replace the certificate in force by a new one for a new key; for a `job` the old one is kept until that connects.

    Raises:
        PeerError: unreachable; try again.
        Refused: not due yet (status 409), or the centre wants an enrolment code.
        RejectedInput: there is no identity to renew.
        DeviceFault: the disk refuses; the old identity holds.

    """
    old, old_key = files.current()
    ca_pem = Path(files.ca).read_text()
    key = files.next_key(old_key)
    csr = _csr(key)
    proof = old_key.sign(RENEWAL_CONTEXT + csr.public_bytes(Encoding.DER), ec.ECDSA(hashes.SHA256()))
    ask = RenewAsk(f"{old.serial_number:x}", csr.public_bytes(Encoding.PEM).decode(), proof.hex(), job)
    grant = _grant(centre.post(RENEW_PATH, ask, trusting(ca_pem)))
    files.adopt(_checked(grant, key, ca_pem), key, ca_pem, on_trial=bool(job))
    return grant


def _ca(centre: Centre, pin: bytes) -> str:
    data = centre.get(CA_PATH, trusting_nobody())
    try:
        answer = msgspec.json.decode(data, type=CaAnswer)
        cert = x509.load_pem_x509_certificate(answer.ca.encode())
        found = codes.pin_of(cert.public_key())
    except (ValueError, msgspec.DecodeError, UnsupportedAlgorithm) as err:
        raise PeerError("The centre's certificate cannot be read.") from err
    if not compare_digest(found, pin):
        raise PeerError(
            "This is not the centre the code is for.",
            "Nothing was sent to it; the code is still good. Check the address, and the network in between.",
        )
    return cert.public_bytes(Encoding.PEM).decode()


def _csr(key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
    """A request for this key and nothing else: the centre knows who we are."""
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())


def _checked(grant: Grant, key: ec.EllipticCurvePrivateKey, ca_pem: str) -> x509.Certificate:
    try:
        cert = x509.load_pem_x509_certificate(grant.certificate.encode())
        cert.verify_directly_issued_by(x509.load_pem_x509_certificate(ca_pem.encode()))
    except (ValueError, TypeError, InvalidSignature) as err:
        raise PeerError("The centre's answer is no certificate of its CA.") from err
    names = cert.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    if cert.public_key() != key.public_key() or [name.value for name in names] != [grant.box]:
        raise PeerError("The centre's answer is a certificate for someone else.")
    return cert


def _grant(data: bytes) -> Grant:
    try:
        return msgspec.json.decode(data, type=Grant)
    except msgspec.DecodeError as err:
        raise PeerError("The centre's answer cannot be understood.") from err
