"""The certificate the box makes for itself: nobody else can vouch for an address like 192.168.1.2.

One file with certificate and key, and beside it a note for whom and until when, so that a start with a good one costs
nothing. It is made anew when the box's addresses changed or its time is nearly over; the key
stays. Run as `python -I -m sekisho.portal_agent.certificate FILE ADDRESS...`: the daemon does so in a process of
its own, because the cryptography library is needed for a second once in two years.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import write_atomic

NAME: Final = "sekisho"
LIFE_D: Final = 825
"""What browsers still take."""
EARLY_D: Final = 60
TOOL_S: Final = 120
SOUND: Final = 1767225600.0
"""2026-01-01: a clock before this is not set yet, and a certificate that begins at it is good today as well."""


class Note(msgspec.Struct, frozen=True):
    """For whom the certificate is, and when to make the next."""

    addresses: list[str]
    until: float


def note_file(path: Path) -> Path:
    return path.with_suffix(".json")


def ensure(path: Path, addresses: list[str]) -> None:
    """Have a usable certificate for these addresses at `path`.

    Raises:
        DeviceFault: it cannot be made.

    """
    with suppress(OSError, msgspec.MsgspecError):
        note = msgspec.json.decode(note_file(path).read_bytes(), type=Note)
        if path.exists() and note.addresses == addresses and time.time() < note.until:
            return
    argv = [sys.executable, "-I", "-m", "sekisho.portal_agent.certificate", str(path), *addresses]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=TOOL_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise DeviceFault(f"The page's certificate cannot be made: {err}.") from err
    if done.returncode != 0:
        raise DeviceFault(f"The page's certificate cannot be made: {done.stderr.strip()[-200:]}.")


def fingerprint(path: Path) -> str:
    """SHA-256 of the certificate, as browsers show it; empty when there is none.

    Needs no cryptography library.
    """
    try:
        pem = path.read_text()
        der = ssl.PEM_cert_to_DER_cert(pem[pem.index(ssl.PEM_HEADER) : pem.index(ssl.PEM_FOOTER)] + ssl.PEM_FOOTER)
    except (OSError, ValueError):
        return ""
    return ":".join(f"{octet:02X}" for octet in hashlib.sha256(der).digest())


def make(path: Path, addresses: list[str], now: float) -> None:
    """Make the certificate; with the key of the one before, where that can be read."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    with suppress(OSError, ValueError):
        data = path.read_bytes()
        old = serialization.load_pem_private_key(data[data.index(b"-----BEGIN PRIVATE") :], None)
        key = old if isinstance(old, ec.EllipticCurvePrivateKey) else key
    begins = dt.datetime.fromtimestamp(max(now, SOUND), dt.UTC) - dt.timedelta(days=1)
    ends = begins + dt.timedelta(days=LIFE_D)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    named = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address)) for address in addresses])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(named, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_atomic(path, made.public_bytes(serialization.Encoding.PEM) + pem)
    note = Note(addresses, (ends - dt.timedelta(days=EARLY_D)).timestamp())
    write_atomic(note_file(path), msgspec.json.encode(note))


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2:], time.time())
