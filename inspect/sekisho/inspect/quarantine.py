"""What was stopped, kept encrypted on this box until its owner decides or it expires.

One entry is one file `ID.skq`: a JSON header line (who, when, where, which rules; never content), then
the content in AES-256-GCM chunks (NIST SP 800-38D) bound to header and position, so that an entry that
was cut, reordered, renamed or edited is refused. The key is made on first use, 0600, and never leaves
the box. Age is told by the identifier, so a release does not prolong a stay. One process puts entries
(the daemon, `writer`); any number may read, release and purge beside it.
"""

from __future__ import annotations

import calendar
import contextlib
import math
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
from sekisho.inspect.kept import Entry
from sekisho.telemetry.clocks import may_expire

CHUNK = 1 << 20
MAX_HEADER = 64 << 10
TEXT_CAP, RULE_CAP, RULES_CAP = 1024, 128, 16
"""Characters, each of which may be six bytes in JSON: all of it is less than a header may be."""
SOUND_CLOCK = 1735689600
"""2025-01-01: a box that says it is earlier has not been told the time."""
_ID = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{12}")
_LENGTH = struct.Struct(">I")


class Quarantine:
    """The directory of entries. Every change is one rename; a crash leaves the old or the new state."""

    def __init__(self, directory: Path, *, max_bytes: int, keep_days: int, writer: bool = True) -> None:
        """`writer` also clears what a crash left half-written and what is past its time; only the daemon is one."""
        self._dir = directory
        self._max_bytes = max_bytes
        self._keep_s = keep_days * 86400
        if writer:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for leftover in directory.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
            self.purge()

    def _key(self, *, make: bool = False) -> bytes:
        path = self._dir / "key"
        if make and not path.exists():
            fsio.write_atomic(path, secrets.token_bytes(32), 0o600)
        try:
            key = path.read_bytes()
        except OSError as err:
            raise DeviceFault(f"The quarantine key {path} cannot be read: {err.strerror}.", "Restore the key.") from err
        if len(key) != 32:
            raise DeviceFault(f"The quarantine key {path} is damaged.", "Entries cannot be opened; restore the key.")
        return key

    def put(self, content_fd: int, length: int, entry: Entry) -> Entry:
        """Keep `length` bytes of `content_fd`; the entry with its identifier, once it is durable.

        Makes room by deleting the oldest entries.

        Raises:
            RejectedInput: larger than the whole quarantine may be; nothing was deleted for it.
            DeviceFault: disk full or unwritable; nothing is left behind.

        """
        if length > self._max_bytes:
            raise RejectedInput(f"{length} bytes do not fit into a quarantine of {self._max_bytes}.")
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        entry = _bounded(msgspec.structs.replace(entry, id=f"{stamp}-{secrets.token_hex(6)}"))
        try:
            self._make_room(length)
            self._write(entry, _chunks_of(content_fd, length), self._key(make=True))
        except OSError as err:
            raise DeviceFault(f"Quarantine: {err.strerror}.", "Free space on the data partition.") from err
        return entry

    def entries(self) -> list[Entry]:
        """All entries, oldest first, without the `damaged` ones."""
        return [entry for ident in self._idents() if (entry := self._try_show(ident)) is not None]

    def newest(self, limit: int) -> tuple[list[Entry], int, int]:
        """The newest so many, newest first, how many of them are damaged, and how many older ones there are.

        Reads no more than it gives out: a quarantine may hold many thousands.
        """
        idents = self._idents()
        taken = idents[: -limit - 1 : -1]
        entries = [entry for ident in taken if (entry := self._try_show(ident)) is not None]
        return entries, len(taken) - len(entries), len(idents) - len(taken)

    def damaged(self) -> list[str]:
        """Identifiers of entries whose header cannot be read (`show` says what is wrong with one)."""
        gone = [ident for ident in self._idents() if self._try_show(ident) is None]
        return [ident for ident in gone if self._path(ident).exists()]

    def show(self, ident: str) -> Entry:
        """Raises: RejectedInput: no such entry, or its header is damaged."""
        with self._open(ident) as source:
            return _header(source.readline(MAX_HEADER), ident)[0]

    def _try_show(self, ident: str) -> Entry | None:
        try:
            return self.show(ident)
        except RejectedInput:
            return None

    def read(self, ident: str) -> Iterator[bytes]:
        """The content, chunk by chunk, each authenticated before it is given out.

        Raises:
            RejectedInput: no such entry, or it was changed since it was written.

        """
        with self._open(ident) as source:
            key = AESGCM(self._key())
            line = source.readline(MAX_HEADER)
            _, nonce, bound = _header(line, ident)
            index = 0
            while True:
                size = source.read(_LENGTH.size)
                if len(size) != _LENGTH.size:
                    raise RejectedInput(f"Quarantine entry {ident} is cut short.")
                (n,) = _LENGTH.unpack(size)
                if n > CHUNK + 17:
                    raise RejectedInput(f"Quarantine entry {ident} is damaged.")
                sealed = source.read(n)
                if len(sealed) != n:
                    raise RejectedInput(f"Quarantine entry {ident} is cut short.")
                try:
                    plain = key.decrypt(_nonce(nonce, index), sealed, bound)
                except (InvalidTag, ValueError) as err:
                    raise RejectedInput(f"Quarantine entry {ident} was changed or the key is not its own.") from err
                if plain[:1] == b"\x01":
                    if source.read(1):
                        raise RejectedInput(f"Quarantine entry {ident} was changed: something follows its end.")
                    yield plain[1:]
                    return
                yield plain[1:]
                index += 1

    def release(self, ident: str, target: Path, reason: str) -> Entry:
        """Write the content to `target` (0600, must not exist) and note the release; the entry stays until purged.

        Raises:
            RejectedInput: unknown or damaged entry, or `target` exists.
            DeviceFault: the target cannot be written (it is removed again), or the entry cannot be noted.

        """
        entry, key = self.show(ident), self._key()
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
                out.flush()
                os.fsync(out.fileno())
        except RejectedInput:
            target.unlink(missing_ok=True)
            raise
        except OSError as err:
            target.unlink(missing_ok=True)
            raise DeviceFault(f"{target}: {err.strerror}.") from err
        try:
            return self._note(entry, reason, key)
        except OSError as err:
            raise DeviceFault(f"{target} is written, but not noted: {err.strerror}.") from err

    def note_release(self, ident: str, reason: str) -> Entry:
        """Note that the owner releases an entry, whose content is proven whole by it; `read` gives it out.

        Raises:
            RejectedInput: unknown or damaged entry.
            DeviceFault: it cannot be noted; it is as it was.

        """
        try:
            return self._note(self.show(ident), reason, self._key())
        except OSError as err:
            raise DeviceFault(f"Quarantine: {err.strerror}.", "Free space on the data partition.") from err

    def _note(self, entry: Entry, reason: str, key: bytes) -> Entry:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry = msgspec.structs.replace(entry, released=f"{when} {reason}"[:500])
        self._write(entry, self.read(entry.id), key)
        return entry

    def purge(self, ident: str | None = None) -> list[str]:
        """Delete one entry, or with None all that are older than `keep_days`; the identifiers deleted."""
        if ident is not None:
            self._open(ident).close()
            gone = [ident]
        else:
            now, made = time.time(), {name: _made_at(name) for name in self._idents()}
            old = {name for name, at in made.items() if at < now - self._keep_s}
            gone = sorted(old) if may_expire(now, (at for at in made.values() if at < math.inf)) else []
        try:
            for name in gone:
                self._path(name).unlink(missing_ok=True)
            if gone:
                fsio.sync_directory(self._dir)
        except OSError as err:
            raise DeviceFault(f"Quarantine: {err.strerror}.") from err
        return gone

    def _idents(self) -> list[str]:
        """Oldest first: an identifier begins with its time."""
        return sorted(path.stem for path in self._dir.glob("*.skq") if _ID.fullmatch(path.stem))

    def _path(self, ident: str) -> Path:
        return self._dir / f"{ident}.skq"

    def _open(self, ident: str) -> BinaryIO:
        if not _ID.fullmatch(ident):
            raise RejectedInput(f"{ident!r} is not a quarantine identifier.", "See `sekisho quarantine list`.")
        try:
            return self._path(ident).open("rb")
        except OSError as err:
            raise RejectedInput(f"No quarantine entry {ident}.", "See `sekisho quarantine list`.") from err

    def _make_room(self, length: int) -> None:
        self.purge()
        sizes: dict[str, int] = {}
        for name in self._idents():
            with contextlib.suppress(FileNotFoundError):  # purged by its owner just now
                sizes[name] = self._path(name).stat().st_size
        used = sum(sizes.values())
        for name, size in sizes.items():
            if used + length <= self._max_bytes:
                return
            used -= size
            self._path(name).unlink(missing_ok=True)

    def _write(self, entry: Entry, chunks: Iterator[bytes], secret: bytes) -> None:
        nonce = secrets.token_bytes(8)
        header = msgspec.json.encode({"entry": entry, "nonce": nonce.hex()}) + b"\n"
        key = AESGCM(secret)
        path = self._path(entry.id)
        tmp = self._dir / f".{entry.id}.{secrets.token_hex(4)}.tmp"
        try:
            with os.fdopen(os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                with contextlib.suppress(FileNotFoundError):  # noted by root, the entry stays the daemon's
                    owner = path.stat()
                    os.fchown(out.fileno(), owner.st_uid, owner.st_gid)
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
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise
        fsio.sync_directory(self._dir)


def _bounded(entry: Entry) -> Entry:
    """Names come from strangers, and a header that is too long cannot be read again."""
    short = {
        name: getattr(entry, name)[:TEXT_CAP] for name in ("at", "sha256", "file_name", "app", "url", "src", "dst")
    }
    return msgspec.structs.replace(entry, rules=[rule[:RULE_CAP] for rule in entry.rules[:RULES_CAP]], **short)


def _made_at(ident: str) -> float:
    """Unix time at which the entry was made; never, when a clock not yet set wrote it: size alone ends its stay."""
    try:
        at = calendar.timegm(time.strptime(ident[:15], "%Y%m%dT%H%M%S"))
    except ValueError:
        return math.inf
    return at if at > SOUND_CLOCK else math.inf


def _nonce(prefix: bytes, index: int) -> bytes:
    return prefix + _LENGTH.pack(index)


def _seal(write: Callable[[bytes], int], key: AESGCM, nonce: bytes, index: int, plain: bytes, bound: bytes) -> None:
    sealed = key.encrypt(_nonce(nonce, index), plain, bound)
    write(_LENGTH.pack(len(sealed)) + sealed)


class _Header(msgspec.Struct):
    entry: Entry
    nonce: str


def _header(line: bytes, ident: str) -> tuple[Entry, bytes, bytes]:
    try:
        header = msgspec.json.decode(line, type=_Header)
        nonce = bytes.fromhex(header.nonce)
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise RejectedInput(f"Quarantine entry {ident} is damaged: its header cannot be read.") from err
    if header.entry.id != ident or len(nonce) != 8:
        raise RejectedInput(f"Quarantine entry {ident} is damaged: its header is another's.")
    return header.entry, nonce, line


def _chunks_of(fd: int, length: int) -> Iterator[bytes]:
    at = 0
    while at < length:
        chunk = os.pread(fd, min(CHUNK, length - at), at)
        if not chunk:
            return
        at += len(chunk)
        yield chunk
