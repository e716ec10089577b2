"""Taking a box's certificates back: what is revoked, and the list brokers and the web service go by.

`revoke` writes it down. `publish` writes the list (RFC 5280, 5) where brokers look:

- `crl.pem`: the newest one, read at a broker's start and reload;
- `<hash>.r0`, `.r1`, …: the same in OpenSSL's hashed form. A running Mosquitto with `capath` looks for the next
  number at every handshake, so that a revocation holds at once, without a reload and without any right over the
  broker. Files that were overtaken are emptied, but must stay: the numbers may have no gap.
"""

from __future__ import annotations

import datetime as dt
import logging
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.center import pki
from sekisho.center.ca import registry
from sekisho.center.ca.tables import BOX_IDENTITY, CERTIFICATE, ENROL_CODE
from sekisho.center.ca.times import text
from sekisho.center.refused import REFUSED

LIST_DAYS: Final = 3650
"""A list that is over would close the broker to everyone; ours is replaced when something is revoked, not by age."""
LONGEST: Final = dt.timedelta(days=825)
"""No certificate of a box lives longer (`settings.Ca`): after this one that was revoked is over for certain."""
RESTORED: Final = "on the list of revoked certificates, not in the database: it was restored"
HEADROOM: Final = dt.timedelta(days=1)
"""Lists are dated back by this: of two, OpenSSL goes by the later (whole seconds), and refuses one of the future."""
CRL: Final = "crl.pem"

log = logging.getLogger(__name__)


def revoke(db: sa.Connection, box: str, who: str, reason: str, now: dt.datetime) -> int:
    """Revoke every certificate of `box` that is still of use and every open code; how many certificates.

    Raises:
        RejectedInput: the box is not known here.

    """
    if box not in registry.identities(db, [box]):
        raise RejectedInput(f"No box is called {box}.")
    of_box = (CERTIFICATE.c.box == box, CERTIFICATE.c.revoked_at == "")
    values = {"revoked_at": text(now), "revoked_by": who, "reason": reason}
    done = db.execute(CERTIFICATE.update().where(*of_box).values(**values)).rowcount
    open_codes = (ENROL_CODE.c.box == box, ENROL_CODE.c.expires_at > text(now))
    db.execute(ENROL_CODE.update().where(*open_codes).values(expires_at=text(now)))
    registry.revoke(db, box, text(now))
    return done


def due(db: sa.Connection) -> list[sa.Row[tuple[str, str]]]:
    """(serial, box) of what was revoked and not yet cut off, or of what has been heard of since.

    A broker lets in who resumes a TLS session from before, and Mosquitto does not ask the list for WebSocket at all.
    Ingest believes none of it, and that it refused something is what tells us here.
    """
    refused = (REFUSED.c.box == CERTIFICATE.c.box, REFUSED.c.kind == "tenant", REFUSED.c.last_at > CERTIFICATE.c.cut_at)
    still = (BOX_IDENTITY.c.box == CERTIFICATE.c.box, BOX_IDENTITY.c.state == "revoked")
    back = sa.and_(sa.exists().where(*refused), sa.exists().where(*still))
    which = (CERTIFICATE.c.revoked_at != "", sa.or_(CERTIFICATE.c.cut_at == "", back))
    return list(db.execute(sa.select(CERTIFICATE.c.serial, CERTIFICATE.c.box).where(*which)))


def cut(db: sa.Connection, serials: Iterable[str], now: dt.datetime) -> None:
    """Note that these are on the list and that their box's session was closed."""
    db.execute(CERTIFICATE.update().where(CERTIFICATE.c.serial.in_(list(serials))).values(cut_at=text(now)))


def revoked(db: sa.Connection, now: dt.datetime) -> list[tuple[int, dt.datetime]]:
    """(serial, when) of every certificate that is revoked and would otherwise still be valid."""
    which = (CERTIFICATE.c.revoked_at != "", CERTIFICATE.c.not_after > text(now))
    rows = db.execute(sa.select(CERTIFICATE.c.serial, CERTIFICATE.c.revoked_at).where(*which))
    return [(int(row.serial, 16), dt.datetime.fromisoformat(row.revoked_at)) for row in rows]


def adopt(db: sa.Connection, directory: Path, ca: pki.Authority, now: dt.datetime) -> list[tuple[int, dt.datetime]]:
    """Hold on to what the list in `directory` says and the database does not: it was restored from before that.

    The boxes of such certificates are revoked here too. What is returned the database knows nothing of: certificates
    given after the backup, which stay on the list until they are over for certain.
    """
    current = _try_read(directory / CRL)
    if current is None or not current.is_signature_valid(ca.key.public_key()):
        return []
    listed = {f"{entry.serial_number:x}": entry.revocation_date_utc for entry in current}
    known: dict[str, tuple[str, str]] = {}
    serials = list(listed)
    for start in range(0, len(serials), 500):
        which = CERTIFICATE.c.serial.in_(serials[start : start + 500])
        rows = db.execute(sa.select(CERTIFICATE.c.serial, CERTIFICATE.c.box, CERTIFICATE.c.revoked_at).where(which))
        known |= {serial: (box, revoked_at) for serial, box, revoked_at in rows}
    for box in sorted({box for box, revoked_at in known.values() if not revoked_at}):
        log.warning("%s was revoked before the database was restored: revoked again", box)
        revoke(db, box, "sekisho", RESTORED, now)
    return [(int(serial, 16), when) for serial, when in listed.items() if serial not in known and when + LONGEST > now]


def publish(directory: Path, ca: pki.Authority, entries: Iterable[tuple[int, dt.datetime]], now: dt.datetime) -> None:
    """Write the list, unless what is there says the same. Everyone may read it.

    Raises:
        OSError: the directory cannot be written.

    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    entries = sorted(entries)
    current = _try_read(directory / CRL)
    if current is not None and sorted(entry.serial_number for entry in current) == [serial for serial, _ in entries]:
        return
    stem, number = _subject_hash(ca.cert), 0
    while (directory / f"{stem}.r{number}").exists():
        number += 1
    after = current.last_update_utc if current is not None else dt.datetime.min.replace(tzinfo=dt.UTC)
    signed = _list(ca, entries, max(now - HEADROOM, after + dt.timedelta(seconds=1)), number)
    write_atomic(directory / CRL, signed, 0o644)
    write_atomic(directory / f"{stem}.r{number}", signed, 0o644)
    if number > 1:
        begin = (directory / f"{stem}.r0").read_bytes()
        write_atomic(directory / f"{stem}.r{number - 1}", begin, 0o644)


def _list(ca: pki.Authority, entries: list[tuple[int, dt.datetime]], at: dt.datetime, number: int) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.cert.subject)
        .last_update(at)
        .next_update(at + dt.timedelta(days=LIST_DAYS))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
    )
    for serial, when in entries:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _try_read(path: Path) -> x509.CertificateRevocationList | None:
    try:
        return x509.load_pem_x509_crl(path.read_bytes())
    except (OSError, ValueError):
        return None


def _subject_hash(cert: x509.Certificate) -> str:
    """The name under which OpenSSL looks for this CA's lists (X509_NAME_hash)."""
    pem = cert.public_bytes(Encoding.PEM)
    argv = ["openssl", "x509", "-noout", "-subject_hash"]
    return subprocess.run(argv, input=pem, capture_output=True, check=True, timeout=10).stdout.decode().strip()
