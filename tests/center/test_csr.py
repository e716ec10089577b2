"""A signing request from anywhere: read for its key, or refused, and nothing else ever happens."""

from __future__ import annotations

import base64
import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.ca import csr

KEY = ec.generate_private_key(ec.SECP256R1())
GOOD = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "anything")]))
    .add_extension(x509.SubjectAlternativeName([x509.DNSName("centre.example")]), critical=True)
    .sign(KEY, hashes.SHA256())
    .public_bytes(Encoding.DER)
)

CERTIFICATE = (
    x509.CertificateBuilder()
    .subject_name(x509.Name([]))
    .issuer_name(x509.Name([]))
    .public_key(KEY.public_key())
    .serial_number(1)
    .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    .not_valid_after(dt.datetime(2027, 1, 1, tzinfo=dt.UTC))
    .sign(KEY, hashes.SHA256())
    .public_bytes(Encoding.PEM)
    .decode()
)


def _pem(der: bytes) -> str:
    lines = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{lines}-----END CERTIFICATE REQUEST-----\n"


def test_its_key_is_all_that_is_taken() -> None:
    assert csr.fingerprint(csr.key_of(csr.read(_pem(GOOD)))) == csr.fingerprint(KEY.public_key())
    p384 = ec.generate_private_key(ec.SECP384R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(p384, hashes.SHA384())
    assert csr.key_of(csr.read(made.public_bytes(Encoding.PEM).decode())).key_size == 384


@given(st.text(max_size=300))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(RejectedInput):
        csr.read(text)


@given(st.binary(max_size=300))
def test_any_bytes_in_its_armour_are_refused(der: bytes) -> None:
    with pytest.raises(RejectedInput):
        csr.read(_pem(der))


def test_one_changed_byte_is_noticed_wherever_it_is() -> None:
    """Or it changes nothing that counts (the spare bits of the signature's encoding): the key is the same."""
    accepted = 0
    for at in range(len(GOOD)):
        for change in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            try:
                read = csr.read(_pem(GOOD[:at] + bytes([GOOD[at] ^ change]) + GOOD[at + 1 :]))
            except RejectedInput:
                continue
            accepted += 1
            assert csr.fingerprint(csr.key_of(read)) == csr.fingerprint(KEY.public_key())
    assert accepted <= 8


@given(st.binary(max_size=200))
def test_no_other_proof_is_taken(proof: bytes) -> None:
    assert not csr.proves(CERTIFICATE, x509.load_der_x509_csr(GOOD), proof)
