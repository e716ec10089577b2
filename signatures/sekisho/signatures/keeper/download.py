"""One file of known length and hash, resumable after a cut, a kill and a power cut.

What arrives goes into `SHA256.part`; `SHA256.note` says how far it is on the disk for certain. After a kill all that
was written still counts, after a new boot only what was noted, and that only when it has the noted hash. A finished
file is renamed to `SHA256` after its whole content has the signed hash. How the server is reached, and how long it
may take, is the `Source`'s (`trust.web`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from sekisho.appliance.core.boot import boot_id
from sekisho.appliance.core.errors import DeviceFault, PeerError
from sekisho.appliance.core.fsio import sync_directory, write_atomic
from sekisho.signatures.trust.source import Source

NOTE_BYTES: Final = 1 << 20
"""What a power cut may cost."""
READ_BYTES: Final = 64 << 10
SPENT: Final = 2.1
"""Times its length that a file may cost on the wire, once begun anew, before it is left until `LATER_S` have passed."""
SPENT_MORE: Final = 64 << 10
LATER_S: Final = 6 * 3600.0
RESERVE_BYTES: Final = 64 << 20
"""Of the disk that stays free for everything else on the box."""
OTHERS: Final = 6
"""Files that stay of earlier downloads: those of sets that were refused one after the other must not fill the disk."""


class Target(msgspec.Struct, frozen=True):
    """A file as the signed metadata names it."""

    url: str
    length: int
    sha256: str


class _Note(msgspec.Struct):
    boot: str = ""
    etag: str = ""
    """Of the answer the part is of."""
    synced: int = 0
    """Bytes that are on the disk for certain, with this hash."""
    sha256: str = ""
    spent: int = 0
    """Bytes that came over the wire for this file, in all attempts."""
    since: float = 0.0
    """Unix time of the first of them."""


class Downloader:
    """Files into `folder`."""

    def __init__(self, folder: Path, stopping: Callable[[], bool] = lambda: False) -> None:
        """`stopping` says that the daemon ends: the download is cut, to be resumed."""
        self._folder, self._stopping = folder, stopping
        self._boot = boot_id()

    def fetch(self, source: Source, target: Target) -> Path:
        """The whole file, verified.

        Raises:
            PeerError: cut, stalled, slow, past its budget, or not what was signed; what arrived is kept for the next
                attempt where it may be right.
            RejectedInput: the server's file is larger than what was signed.
            DeviceFault: the disk is full or refuses.

        """
        done = self._folder / target.sha256
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if done.exists() and _sha256(done) == target.sha256:
                return done
            self._forget(target.sha256)
            room(self._folder, target.length)
            self._fetch(source, target, done)
        except OSError as err:
            raise DeviceFault(
                f"Cannot write the download to {self._folder}: {err.strerror or err}.",
                "Free space on the data partition.",
            ) from err
        return done

    def _forget(self, wanted: str) -> None:
        others = [path for path in self._folder.iterdir() if path.name.split(".")[0] != wanted]
        for path in sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)[OTHERS:]:
            path.unlink()

    def _fetch(self, source: Source, target: Target, done: Path) -> None:
        part, noted = done.with_suffix(".part"), done.with_suffix(".note")
        note = _noted(noted)
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "r+b") as out:
            at = self._resume(out, note, target)
            digest = _Digest(out, at)
            self._stream(source, target, out, digest, note, noted)
        if digest.hex != target.sha256:
            part.unlink()
            raise PeerError("The server's file is not the one that was signed.")
        part.rename(done)
        noted.unlink(missing_ok=True)
        sync_directory(self._folder)

    def _stream(self, source: Source, target: Target, out: BinaryIO, digest: _Digest, note: _Note, noted: Path) -> None:
        if digest.at == target.length:
            return
        budget = int(target.length * SPENT) + SPENT_MORE
        if note.spent > budget:
            raise PeerError("The file cost more of the line than it is worth; it is left for some hours.")
        with source.read(target.url, target.length, start=digest.at, etag=note.etag, bulk=True) as reply:
            if reply.start != digest.at:
                out.truncate(0)
                digest.begin()
            out.seek(digest.at)
            note.etag = reply.etag
            _mark(noted, note, out, digest)
            try:
                for chunk in reply.chunks:
                    out.write(chunk)
                    out.flush()
                    digest.took(chunk)
                    note.spent += len(chunk)
                    if digest.at - note.synced >= NOTE_BYTES:
                        _mark(noted, note, out, digest)
                    if note.spent > budget:
                        raise PeerError("The file costs more of the line than it is worth; it is left for some hours.")
                    if self._stopping():
                        raise PeerError("The daemon is ending.")
            finally:
                _mark(noted, note, out, digest)
        if digest.at != target.length:
            raise PeerError("The server's file is shorter than the one that was signed.")

    def _resume(self, out: BinaryIO, note: _Note, target: Target) -> int:
        """How many bytes of the part may be right; cuts the rest off."""
        at = min(os.fstat(out.fileno()).st_size, target.length)
        if not self._boot or note.boot != self._boot:  # the power was away: the tail may be anything
            sound = note.boot and note.synced <= at and _Digest(out, note.synced).hex == note.sha256
            at = note.synced if sound else 0
        out.truncate(at)
        note.boot = self._boot
        return at


class _Digest:
    """SHA-256 of a file's first `at` bytes."""

    def __init__(self, out: BinaryIO, at: int) -> None:
        self.begin()
        out.seek(0)
        while self.at < at and (chunk := out.read(min(READ_BYTES, at - self.at))):
            self.took(chunk)

    def begin(self) -> None:
        self.at, self._digest = 0, hashlib.sha256()

    def took(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self.at += len(chunk)

    @property
    def hex(self) -> str:
        return self._digest.hexdigest()


def room(folder: Path, length: int, what: str = "a new set of signatures") -> None:
    """Whether `length` bytes fit and leave something for the rest of the box.

    Raises:
        DeviceFault: they do not.

    """
    free = shutil.disk_usage(folder).free
    if free < length + RESERVE_BYTES:
        raise DeviceFault(
            f"The disk has {free >> 20} MB free; {what} needs {(length + RESERVE_BYTES) >> 20}.",
            "Free space on the data partition; what is in force stays until then.",
        )


def _noted(path: Path) -> _Note:
    try:
        note = msgspec.json.decode(path.read_bytes(), type=_Note)
    except (OSError, msgspec.MsgspecError):
        return _Note(since=time.time())
    if abs(time.time() - note.since) > LATER_S:
        note.spent, note.since = 0, time.time()
    return note


def _mark(path: Path, note: _Note, out: BinaryIO, digest: _Digest) -> None:
    """Say durably how far the file is."""
    out.flush()
    os.fdatasync(out.fileno())
    note.synced, note.sha256 = digest.at, digest.hex
    write_atomic(path, msgspec.json.encode(note))


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
