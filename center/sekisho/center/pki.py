"""A small certificate authority: one for the broker, the centre and the boxes of one installation.

Owns key generation and signing; writes every file 0600, atomically. Refuses names that could not be
an MQTT topic level, because a box's CN is its place in the topic tree. Who may have a certificate, and which
were given, is for `ca/`.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sekisho.appliance.core import fleet, orders
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.names import RULE, is_name

Kind = Literal["client", "server", "node", "lists", "orders"]
"""A node of a broker's cluster serves its clients and calls the other nodes; `lists` signs the fleet's bad files,
`orders` what customers decide about their boxes."""

_CA_DAYS = 3650
_LEAF_DAYS = 825
_SKEW = dt.timedelta(days=1)
"""A box may boot with a clock that is behind; a certificate that is not valid yet would lock it out."""


_USAGES = {
    "client": [ExtendedKeyUsageOID.CLIENT_AUTH],
    "server": [ExtendedKeyUsageOID.SERVER_AUTH],
    "node": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    "lists": [x509.ObjectIdentifier(fleet.PURPOSE.usage)],
    "orders": [x509.ObjectIdentifier(orders.PURPOSE.usage)],
}


@dataclass(frozen=True)
class Credentials:
    """Three PEM files one TLS party needs."""

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """The CA's certificate and its key."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def create_ca(directory: Path, cn: str = "sekisho CA") -> Path:
    """Make `ca.crt` and `ca.key` in `directory` unless they are there already; return the certificate's path.

    Raises:
        OSError: the directory cannot be written.

    """
    cert_path, key_path = directory / "ca.crt", directory / "ca.key"
    if cert_path.exists() and key_path.exists():
        return cert_path
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])
    cert = (
        _builder(name, name, key.public_key(), dt.timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_key(key_path, key)
    write_atomic(cert_path, cert.public_bytes(serialization.Encoding.PEM))
    return cert_path


def issue(directory: Path, cn: str, kind: Kind = "client", san: tuple[str, ...] = ()) -> Credentials:
    """Make a key and sign a certificate for `cn` with the CA in `directory`; `san` holds host names and IP addresses.

    Raises:
        RejectedInput: `cn` is not a plain name, or the CA is absent or damaged.

    """
    key = ec.generate_private_key(ec.SECP256R1())
    cert = sign(load_ca(directory), cn, key.public_key(), dt.timedelta(days=_LEAF_DAYS), kind, san)
    made = Credentials(directory / "ca.crt", directory / f"{cn}.crt", directory / f"{cn}.key")
    _write_key(made.key, key)
    write_atomic(made.cert, cert.public_bytes(serialization.Encoding.PEM))
    return made


def check_name(name: str) -> None:
    """Whether a box, a tenant or a service may be called so.

    Raises:
        RejectedInput: it could not be an MQTT topic level.

    """
    if not is_name(name):
        raise RejectedInput(f"{name!r} is not {RULE}.")


def sign(
    ca: Authority,
    cn: str,
    public: ec.EllipticCurvePublicKey,
    life: dt.timedelta,
    kind: Kind = "client",
    san: tuple[str, ...] = (),
) -> x509.Certificate:
    """A certificate for `cn` and this key from now on for `life`; it says nothing that is not said here.

    Raises:
        RejectedInput: `cn` is not a plain name.

    """
    check_name(cn)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])
    builder = (
        _builder(subject, ca.cert.subject, public, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGES[kind]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
    )
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(s) for s in san]), critical=False)
    return builder.sign(ca.key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, life: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - min(_SKEW, life / 10))
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def load_ca(directory: Path) -> Authority:
    """The CA in `directory`.

    Raises:
        RejectedInput: absent, damaged, or unreadable for this user.

    """
    try:
        cert = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
    except (OSError, ValueError) as err:
        raise RejectedInput(f"The certificate authority in {directory} cannot be used: {err}.") from err
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise RejectedInput(f"The certificate authority in {directory} has a key of another kind.")
    return Authority(cert, key)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_atomic(path, pem)
