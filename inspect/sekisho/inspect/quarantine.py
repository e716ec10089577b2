"""What was stopped, kept encrypted on this box until its owner decides or it expires.

One entry is one file `ID.skq`: a JSON header line (who, when, where, which rules; never content), then
the content in AES-256-GCM chunks (NIST SP 800-38D) bound to header and position, so that an entry that
was cut, reordered or edited is refused. The key is made on first use, 0600, and never leaves the box.
"""

from __future__ import annotations

import os
import re
import secrets
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sekisho.appliance.core import fsio
from sekisho.appliance.core.errors import DeviceFault, RejectedInput

CHUNK = 1 << 20
MAX_HEADER = 64 << 10
_ID = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{12}")
_LENGTH = struct.Struct(">I")


class Entry(msgspec.Struct, omit_defaults=True, frozen=True):
    """One quarantined file."""

    id: str
    at: str
    sha256: str
    size: int
    file_name: str = ""
    rules: list[str] = []
    app: str = ""
    url: str = ""
    src: str = ""
    dst: str = ""
    form: str = "file"
    """"file": the file itself; "transfer": the bytes as they travelled (headers, chunks, encodings)."""
    released: str = ""
    """When and why the owner released it; empty while it is kept."""


class Quarantine:
    """The directory of entries. Every change is one rename; a crash leaves the old or the new state."""

    def __init__(self, directory: Path, *, max_bytes: int, keep_days: int) -> None:
        self._dir = directory
        self._max_bytes = max_bytes
        self._keep_s = keep_days * 86400
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in directory.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def _key(self) -> bytes:
        path = self._dir / "key"
        if not path.exists():
            fsio.write_atomic(path, secrets.token_bytes(32), 0o600)
        key = path.read_bytes()
        if len(key) != 32:
            raise DeviceFault(f"The quarantine key {path} is damaged.", "Entries cannot be opened; restore the key.")
        return key

    def put(self, content_fd: int, length: int, entry: Entry) -> Entry:
        """Keep `length` bytes of `content_fd`; the entry with its identifier, once it is durable.

        Raises:
            DeviceFault: disk full or unwritable; nothing is left behind.

        """
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        entry = msgspec.structs.replace(entry, id=f"{stamp}-{secrets.token_hex(6)}")
        try:
            self._make_room(length)
            self._write(entry, _chunks_of(content_fd, length))
        except OSError as err:
            raise DeviceFault(f"Quarantine: {err.strerror}.", "Free space on the data partition.") from err
        return entry

    def entries(self) -> list[Entry]:
        """All entries, oldest first; damaged ones are left out (`show` says what is wrong with one)."""
        found = []
        for path in sorted(self._dir.glob("*.skq")):
            try:
                with path.open("rb") as source:
                    found.append(_header(source.readline(MAX_HEADER))[0])
            except (OSError, RejectedInput):
                continue
        return found

    def show(self, ident: str) -> Entry:
        """Raises: RejectedInput: no such entry, or its header is damaged."""
        with self._open(ident) as source:
            return _header(source.readline(MAX_HEADER))[0]

    def read(self, ident: str) -> Iterator[bytes]:
        """The content, chunk by chunk, each authenticated before it is given out.

        Raises:
            RejectedInput: no such entry, or it was changed since it was written.

        """
        key = AESGCM(self._key())
        with self._open(ident) as source:
            line = source.readline(MAX_HEADER)
            _, nonce, bound = _header(line)
            index = 0
            while True:
                size = source.read(_LENGTH.size)
                if len(size) != _LENGTH.size:
                    raise RejectedInput(f"Quarantine entry {ident} is cut short.")
                (n,) = _LENGTH.unpack(size)
                if n > CHUNK + 17:
                    raise RejectedInput(f"Quarantine entry {ident} is damaged.")
                try:
                    plain = key.decrypt(_nonce(nonce, index), source.read(n), bound)
                except InvalidTag as err:
                    raise RejectedInput(f"Quarantine entry {ident} was changed or the key is not its own.") from err
                if plain[:1] == b"\x01":
                    yield plain[1:]
                    return
                yield plain[1:]
                index += 1

    def release(self, ident: str, target: Path, reason: str) -> Entry:
        """Write the content to `target` (0600, must not exist) and note the release; the entry stays until purged.

        Raises:
            RejectedInput: unknown or damaged entry, or `target` exists.
            DeviceFault: the target cannot be written.

        """
        entry = self.show(ident)
        try:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError as err:
            raise RejectedInput(f"{target} exists already.", "Choose a new name.") from err
        except OSError as err:
            raise DeviceFault(f"{target}: {err.strerror}.") from err
        try:
            with os.fdopen(fd, "wb") as out:
                for chunk in self.read(ident):
                    out.write(chunk)
        except (RejectedInput, OSError):
            target.unlink(missing_ok=True)
            raise
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry = msgspec.structs.replace(entry, released=f"{when} {reason}"[:500])
        self._write(entry, self.read(ident))
        return entry

    def purge(self, ident: str | None = None) -> list[str]:
        """Delete one entry, or with None all that are older than `keep_days`; the identifiers deleted."""
        gone = []
        if ident is not None:
            self._open(ident).close()
            gone.append(ident)
        else:
            limit = time.time() - self._keep_s
            gone = [p.stem for p in self._dir.glob("*.skq") if p.stat().st_mtime < limit]
        for name in gone:
            (self._dir / f"{name}.skq").unlink(missing_ok=True)
        if gone:
            fsio.sync_directory(self._dir)
        return gone

    def _open(self, ident: str) -> BinaryIO:
        if not _ID.fullmatch(ident):
            raise RejectedInput(f"{ident!r} is not a quarantine identifier.", "See `sekisho quarantine list`.")
        try:
            return (self._dir / f"{ident}.skq").open("rb")
        except OSError as err:
            raise RejectedInput(f"No quarantine entry {ident}.", "See `sekisho quarantine list`.") from err

    def _make_room(self, length: int) -> None:
        files = sorted(((p.stat().st_mtime, p) for p in self._dir.glob("*.skq")), key=lambda pair: pair[0])
        used = sum(p.stat().st_size for _, p in files)
        for _, path in files:
            if used + length <= self._max_bytes:
                return
            used -= path.stat().st_size
            path.unlink(missing_ok=True)

    def _write(self, entry: Entry, chunks: Iterator[bytes]) -> None:
        nonce = secrets.token_bytes(8)
        header = msgspec.json.encode({"entry": entry, "nonce": nonce.hex()}) + b"\n"
        key = AESGCM(self._key())
        path = self._dir / f"{entry.id}.skq"
        tmp = self._dir / f".{entry.id}.tmp"
        try:
            with os.fdopen(os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
                out.write(header)
                index, previous = 0, None
                for chunk in chunks:
                    if previous is not None:
                        _seal(out.write, key, nonce, index, b"\x00" + previous, header)
                        index += 1
                    previous = chunk
                _seal(out.write, key, nonce, index, b"\x01" + (previous or b""), header)
                out.flush()
                os.fsync(out.fileno())
            tmp.replace(path)
        except OSError:
            tmp.unlink(missing_ok=True)
            raise
        fsio.sync_directory(self._dir)


def _nonce(prefix: bytes, index: int) -> bytes:
    return prefix + _LENGTH.pack(index)


def _seal(write: Callable[[bytes], int], key: AESGCM, nonce: bytes, index: int, plain: bytes, bound: bytes) -> None:
    sealed = key.encrypt(_nonce(nonce, index), plain, bound)
    write(_LENGTH.pack(len(sealed)) + sealed)


class _Header(msgspec.Struct):
    entry: Entry
    nonce: str


def _header(line: bytes) -> tuple[Entry, bytes, bytes]:
    try:
        header = msgspec.json.decode(line, type=_Header)
        return header.entry, bytes.fromhex(header.nonce), line
    except (msgspec.MsgspecError, ValueError) as err:
        raise RejectedInput("A quarantine entry's header is damaged.") from err


def _chunks_of(fd: int, length: int) -> Iterator[bytes]:
    at = 0
    while at < length:
        chunk = os.pread(fd, min(CHUNK, length - at), at)
        if not chunk:
            return
        at += len(chunk)
        yield chunk
