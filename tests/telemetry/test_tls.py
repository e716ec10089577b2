"""Which servers a box talks to when it knows the time, and when it does not: real handshakes on loopback."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import pki
from sekisho.telemetry import tls

NOW = dt.datetime.now(dt.UTC)
YEAR = dt.timedelta(days=365)
EXPIRED = (NOW - 2 * YEAR, NOW - YEAR)
VALID = (NOW - YEAR, NOW + YEAR)
FUTURE = (NOW + YEAR, NOW + 2 * YEAR)


@dataclass
class Sense:
    """What the box is told to know."""

    right: bool = False
    floor: float = 0.0
    true: float | None = None

    def true_time(self, mono: float) -> float | None:
        return self.true


def server(root: Path, period: tuple[dt.datetime, dt.datetime], host: str = "127.0.0.1") -> ssl.SSLContext:
    """A server's context whose certificate, signed by the CA in `root`, is valid in `period`."""
    ca = x509.load_pem_x509_certificate((root / "ca.crt").read_bytes())
    ca_key = serialization.load_pem_private_key((root / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(period[0])
        .not_valid_after(period[1])
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = root / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def shake(context: ssl.SSLContext, of_server: ssl.SSLContext) -> None:
    """One handshake, as the MQTT client makes it.

    Raises:
        ssl.SSLCertVerificationError: the client refused the server.

    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            raw, _ = listener.accept()
            with raw:
                try:
                    of_server.wrap_socket(raw, server_side=True).close()
                except OSError:
                    return

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname()) as raw,
                context.wrap_socket(raw, server_hostname="127.0.0.1", do_handshake_on_connect=False) as secure,
            ):
                secure.do_handshake()
        finally:
            thread.join()


def client(root: Path, sense: Sense) -> ssl.SSLContext:
    box = pki.issue(root, "box-1")
    return tls.context(str(box.ca), str(box.cert), str(box.key), sense)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pki.create_ca(tmp_path)
    return tmp_path


LATE = time.time() + 3 * 365 * 86400
EARLY = time.time() - 3 * 365 * 86400


@pytest.mark.parametrize(
    ("period", "sense", "accepted"),
    [
        (VALID, Sense(right=True), True),
        (EXPIRED, Sense(right=True), False),
        (FUTURE, Sense(right=True), False),
        # Nothing is known but that some time has passed: what ended before it is over, the rest may be valid.
        (VALID, Sense(), True),
        (FUTURE, Sense(), True),
        (EXPIRED, Sense(), True),
        (EXPIRED, Sense(floor=time.time()), False),
        (VALID, Sense(floor=LATE), False),
        # The wall clock is wrong, the true time is known from the centre.
        (VALID, Sense(true=time.time()), True),
        (VALID, Sense(true=LATE), False),
        (VALID, Sense(true=EARLY), False),
        (FUTURE, Sense(true=time.time()), False),
        (EXPIRED, Sense(true=time.time()), False),
        (EXPIRED, Sense(true=EXPIRED[0].timestamp() + 1, floor=time.time()), True),
    ],
)
@pytest.mark.protocol("P5")
def test_a_servers_period_is_held_against_what_is_known_of_the_time(
    root: Path, period: tuple[dt.datetime, dt.datetime], sense: Sense, accepted: bool
) -> None:
    context, other = client(root, sense), server(root, period)
    if accepted:
        shake(context, other)
        return
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(context, other)


def test_what_is_known_changes_without_a_new_context(root: Path) -> None:
    sense = Sense()
    context, other = client(root, sense), server(root, EXPIRED)
    shake(context, other)
    sense.right = True
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(context, other)
    sense.right = False
    shake(context, other)


@pytest.mark.parametrize("sense", [Sense(), Sense(right=True), Sense(true=time.time())])
@pytest.mark.protocol("P5")
def test_a_wrong_clock_excuses_neither_another_authority_nor_another_name(
    root: Path, sense: Sense, tmp_path: Path
) -> None:
    context = client(root, sense)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(context, server(root, VALID, host="192.0.2.1"))
    pki.create_ca(tmp_path / "other", "another CA")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(context, server(tmp_path / "other", VALID))


def test_the_file_that_cannot_be_used_is_named(root: Path) -> None:
    box = pki.issue(root, "box-1")
    broken = root / "broken"
    broken.write_text("nothing")
    for ca, cert, key in ((broken, box.cert, box.key), (box.ca, broken, box.key), (box.ca, box.cert, broken)):
        with pytest.raises(RejectedInput, match="broken"):
            tls.context(str(ca), str(cert), str(key), Sense())
