"""Certificates for thousands of simulated boxes: one key for all, one certificate each, signed in a few seconds.

The centre's own authority writes each file durably, which is right for a box and too slow for a fleet of a bench.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def box_name(number: int) -> str:
    return f"sim-{number:05d}"


def issue_fleet(authority: Path, directory: Path, boxes: int) -> None:
    """Write `sim-NNNNN.pem` (certificate and key) for each box, signed with `ca.crt` and `ca.key` of `authority`."""
    directory.mkdir(mode=0o700)
    ca = x509.load_pem_x509_certificate((authority / "ca.crt").read_bytes())
    signer = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority signs with an elliptic curve")
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    now = dt.datetime.now(dt.UTC)
    for number in range(boxes):
        cert = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, box_name(number))]))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(signer, hashes.SHA256())
        )
        (directory / f"{box_name(number)}.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM) + pem)
