"""The identity on disk: one file with certificate and key, so that both change in one rename.

`identity.pem` is what the sender loads; `next.key` a key whose certificate was asked for and has not arrived yet (the
same key is sent again, so that a lost answer costs nothing); `ca.pem` whom the box believes; `renewal.json` when
the next renewal is due, for who must not load a cryptography library to know. All 0600 but `ca.pem`, and all of
the user who owns the telemetry directory: `sekisho box enrol` runs as root, renewal does not.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.telemetry.enrolment.due import Due, due_file
from sekisho.telemetry.rotation import former_of

RENEW_AFTER: Final = 2 / 3
JITTER: Final = 0.05
"""Of the certificate's life, either way: a thousand boxes enrolled on one day do not come back on one."""
FILE_CAP_BYTES: Final = 64 << 10


class IdentityFiles:
    """A directory of one identity."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.identity, self.ca, self._next = (directory / name for name in ("identity.pem", "ca.pem", "next.key"))

    def prepare(self) -> None:
        """Make the directory.

        Raises:
            DeviceFault: it cannot be written.

        """
        try:
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700, exist_ok=True)
            self._hand_over(self.directory)
        except OSError as err:
            raise DeviceFault(f"Cannot write {self.directory}: {err.strerror}.") from err

    def current(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """The certificate in force and its key.

        Raises:
            RejectedInput: there is none, or it cannot be read.

        """
        try:
            data = _read(self.identity)
            return x509.load_pem_x509_certificate(data), _key(data)
        except (OSError, ValueError) as err:
            raise RejectedInput(f"There is no usable certificate in {self.identity}: {err}.") from err

    def next_key(self, old: ec.EllipticCurvePrivateKey | None = None) -> ec.EllipticCurvePrivateKey:
        """The key to ask a certificate for, on disk before it is used: the one asked for before, or a new one.

        `old` is the one in force; power may have failed between its certificate's arrival and the end of `adopt`.

        Raises:
            DeviceFault: it cannot be written.

        """
        try:
            key = _key(_read(self._next))
            if old is None or key.public_key() != old.public_key():
                return key
        except (OSError, ValueError):
            pass
        key = ec.generate_private_key(ec.SECP256R1())
        self._write(self._next, _pem(key))
        return key

    def adopt(
        self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, ca_pem: str, *, on_trial: bool = False
    ) -> None:
        """Put the certificate in force. After a power cut at any moment the old identity holds, or the new one.

        `on_trial`: the old one stays beside it, and the key as the one asked for, until it has connected (`rotation`).

        Raises:
            DeviceFault: it cannot be written; the old one holds.

        """
        if on_trial:
            former = former_of(self.identity)
            self._write(former.with_suffix(".json"), due_file(self.identity).read_bytes())
            self._write(former, self.identity.read_bytes())
        else:
            former_of(self.identity).unlink(missing_ok=True)
        self._write(self.ca, ca_pem.encode(), 0o644)
        self._write(self.identity, certificate.public_bytes(serialization.Encoding.PEM) + _pem(key))
        begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        share = RENEW_AFTER + random.uniform(-JITTER, JITTER)  # noqa: S311 - jitter
        self._write(due_file(self.identity), msgspec.json.encode(Due(begins + share * (ends - begins), ends - begins)))
        if not on_trial:
            self._next.unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        try:
            write_atomic(path, data, mode)
            self._hand_over(path)
        except OSError as err:
            raise DeviceFault(f"Cannot write {path}: {err.strerror}.") from err

    def _hand_over(self, path: Path) -> None:
        if os.geteuid() == 0:
            owner = self.directory.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_CAP_BYTES)


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem[pem.find(b"-----BEGIN PRIVATE KEY") :], password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is of another kind")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
