"""Private keys: one Ed25519 key per file (PKCS #8, PEM, mode 0600), named ROLE-ID.pem after the begin of its TUF id.

Where a file lies says nothing, its name only which files are worth opening; that a key is the one that is meant is
known when its public half has the id that the signed metadata names. Keys are never logged and never replaced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import sync_directory
from sekisho.signatures.depot.files import read_with_mode
from sekisho.signatures.depot.roles import TERMS

_SHORT: Final = 12
_FILES_CAP: Final = 1024
_BYTES_CAP: Final = 16 << 10

Passphrase = Callable[[Path], bytes | None]
"""Asked for the passphrase of an encrypted key file; None: there is none to be had."""


class KeysMissing(RejectedInput):
    """Not enough keys of a role were at hand; nothing was signed."""


def no_passphrase(_path: Path) -> bytes | None:
    return None


class Ring:
    """The keys in some directories and below them, opened only when they are needed."""

    def __init__(self, places: Sequence[Path], passphrase: Passphrase = no_passphrase) -> None:
        self.places = list(places)
        self._passphrase = passphrase
        self._held: dict[str, CryptoSigner] = {}

    def hold(self, signers: Iterable[CryptoSigner]) -> None:
        """Have these at hand too, whether or not a file is found."""
        self._held |= {signer.public_key.keyid: signer for signer in signers}

    def signers(self, role: str, wanted: Iterable[Key], count: int) -> list[CryptoSigner]:
        """`count` of the `wanted` keys.

        Raises:
            KeysMissing: fewer of them are at hand.
            RejectedInput: a key's file is open to others, damaged, or its passphrase is wrong.

        """
        named = {short(key.keyid): key for key in wanted}
        held = [key.keyid for key in named.values() if key.keyid in self._held][:count]
        found = {keyid: self._held[keyid] for keyid in held}
        for path in self._files(role) if len(found) < count else []:
            key = named.get(path.stem.removeprefix(f"{role}-"))
            if key is not None and key.keyid not in found and len(found) < count:
                found[key.keyid] = self._open(path, key)
        if len(found) < count:
            raise KeysMissing(
                f"{role} takes {count} of its {len(named)} keys; found here: {len(found)}"
                f" (looked for {', '.join(f'{role}-{name}.pem' for name in sorted(named))}).",
                "Name every directory or stick that has one with --keys.",
            )
        return list(found.values())

    def _files(self, role: str) -> list[Path]:
        found: list[Path] = []
        for place in self.places:
            if not place.is_dir():
                raise RejectedInput(f"{place} is no directory.", "Is the stick plugged in and mounted?")
            found += sorted(place.rglob(f"{role}-*.pem"))
        if len(found) > _FILES_CAP:
            raise RejectedInput(f"There are more than {_FILES_CAP} key files; name a smaller directory with --keys.")
        return found

    def _open(self, path: Path, key: Key) -> CryptoSigner:
        data, mode = read_with_mode(path, _BYTES_CAP)
        encrypted = b"ENCRYPTED" in data
        if not encrypted and mode & 0o077:
            raise RejectedInput(f"Others on this machine can read the key {path}.", f"Run: chmod 600 {path}")
        try:
            private = serialization.load_pem_private_key(data, self._passphrase(path) if encrypted else None)
        except (ValueError, TypeError) as err:
            why = "its passphrase is missing or wrong" if encrypted else "it is damaged"
            raise RejectedInput(f"The key {path} cannot be opened: {why}.") from err
        public = SSlibKey.from_crypto(private.public_key())
        if not isinstance(private, Ed25519PrivateKey) or public.keyid != key.keyid:
            raise RejectedInput(f"{path} is not the key its name says.")
        return CryptoSigner(private, public)


def make(role: str, directory: Path, passphrase: bytes | None = None) -> CryptoSigner:
    """A new key, on the disk when this returns.

    Raises:
        DeviceFault: the directory cannot be written.

    """
    private = Ed25519PrivateKey.generate()
    signer = CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))
    cipher = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)
    path = directory / f"{role}-{short(signer.public_key.keyid)}.pem"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            out.write(pem)
            out.flush()
            os.fsync(fd)
        sync_directory(directory)
        sync_directory(directory.parent)
    except OSError as err:
        raise DeviceFault(f"Cannot write the key {path}: {err.strerror}.") from err
    return signer


def make_role(role: str, place: Path, passphrase: bytes | None = None) -> list[CryptoSigner]:
    """All keys of a role, each in the directory it is meant to leave with; the passphrase is for offline ones.

    Offline keys go to `ROLE-1`, `ROLE-2`, ...: a stick each. Online keys go to `online`; further ones of the same
    role to `spare`, for a second machine or a safe.
    """
    terms = TERMS[role]
    made = []
    for number in range(1, terms.keys + 1):
        name = f"{role}-{number}" if terms.offline else "online" if number == 1 else "spare"
        made.append(make(role, place / name, passphrase if terms.offline else None))
    return made


def short(keyid: str) -> str:
    """What people and file names call a key."""
    return keyid[:_SHORT]
