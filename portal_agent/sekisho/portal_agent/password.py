"""The owner's password: made by the box at first, printed for its label, changed by the owner; kept as argon2id.

`password.json` holds the hash; `label` the first password in clear text, for root's eyes, until it is changed.
"""

from __future__ import annotations

import ctypes
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import stamp, write_atomic

MIN_CHARS: Final = 10
MAX_CHARS: Final = 200
_SYMBOLS: Final = "23456789abcdefghjkmnpqrstuvwxyz"
"""Without what is mistaken for something else on a label."""
_FILE_CAP: Final = 4096
_M_MMAP_THRESHOLD: Final = -3


class _Kept(msgspec.Struct, frozen=True):
    hash: str


class Password:
    """The password in `folder`. Looks are one after the other: each takes 19 MiB for its time (RFC 9106; OWASP)."""

    def __init__(self, folder: Path) -> None:
        self._file, self._label = folder / "password.json", folder / "label"
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 << 10, parallelism=1)
        self._one = threading.Lock()
        _give_back_large_pieces()

    def stamp(self) -> tuple[int, int]:
        """Changes with the password."""
        return stamp(self._file)

    def ensure(self) -> None:
        """Make the first password where there is none.

        Raises:
            DeviceFault: the disk refuses.

        """
        if not self._file.exists():
            made = "-".join("".join(secrets.choice(_SYMBOLS) for _ in range(4)) for _ in range(3))
            # The label first: a password that nobody knows opens nothing.
            self._write(self._label, made.encode() + b"\n")
            self._put(made)

    def label(self) -> str:
        """The first password; empty once it was changed."""
        try:
            return self._label.read_text()[:_FILE_CAP].strip()
        except OSError:
            return ""

    def change(self, new: str) -> None:
        """Put a new one in force.

        Raises:
            RejectedInput: too short or too long.
            DeviceFault: the disk refuses; the old one stays.

        """
        if not MIN_CHARS <= len(new) <= MAX_CHARS:
            raise RejectedInput(f"A password has {MIN_CHARS} to {MAX_CHARS} characters.")
        self._put(new)
        self._label.unlink(missing_ok=True)

    def is_right(self, given: str) -> bool:
        """Whether it is this one; slow on purpose."""
        try:
            with self._file.open("rb") as source:
                kept = msgspec.json.decode(source.read(_FILE_CAP), type=_Kept).hash
            with self._one:
                return len(given) <= MAX_CHARS and self._hasher.verify(kept, given)
        except (OSError, msgspec.MsgspecError, VerificationError, InvalidHashError):
            return False

    def _put(self, new: str) -> None:
        with self._one:
            made = self._hasher.hash(new)
        self._write(self._file, msgspec.json.encode(_Kept(made)))

    def _write(self, path: Path, data: bytes) -> None:
        try:
            write_atomic(path, data)
        except OSError as err:
            raise DeviceFault(f"Cannot write {path}: {err.strerror}.") from err


def _give_back_large_pieces() -> None:
    """Without this the C library keeps a look's 19 MiB for ever (mallopt(3)); one that has no such switch is let be."""
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)
