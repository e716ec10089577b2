"""A bundle from the channel, block by block, resumable after a cut, a kill and a power cut, at its own pace.

`SHA256.part` grows from the front; each block of it is compared with the signed list as soon as it is whole, put on
the disk and noted in `SHA256.note`, and never looked at again. What a resumed download hashes anew is the unfinished
block alone, and what a power cut made of that block is found out by its hash. So a line that is cut every few seconds
for days is good enough, and a server that sends something else is found out after one block.

When to try again, and for how long altogether, is the keeper's.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.appliance.core.fsio import sync_directory, write_atomic
from sekisho.firmware.published import BLOCK, Release
from sekisho.signatures.keeper.download import room
from sekisho.signatures.trust import ChannelDown, Limits, Source

LIMITS: Final = Limits(gap_s=60.0, rate=2048, window_s=600.0)
"""How long a server may be silent, and how slow for ten minutes."""
SPENT: Final = 1.2
"""Times its length that a bundle may cost on the line."""
SPENT_MORE: Final = BLOCK
"""A power cut may cost one."""
LATER_S: Final = 24 * 3600.0
"""After this the line's cost is counted anew."""
_READ_BYTES: Final = 256 << 10

Progress = Callable[[int, int], None]
"""Called with bytes that are here and bytes in all."""


class Costly(PeerError):
    """The line was used up for this bundle; it is left until somebody allows more, or the next day."""


class Stopped(PeerError):
    """Whoever asked for the download no longer wants it."""


class _Note(msgspec.Struct):
    done: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Blocks from the front that are right and on the disk."""
    etag: str = ""
    spent: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Bytes that came over the line for this bundle, in all attempts; likewise `since`, unix seconds."""
    since: float = 0.0


def fetch(
    source: Source,
    release: Release,
    folder: Path,
    progress: Progress,
    cancelled: Callable[[], bool],
    max_bytes: int = 0,
) -> Path:
    """The whole bundle below `folder`, each block and all of it as signed.

    `max_bytes` may be spent on the line; 0: `SPENT` times the bundle.

    Raises:
        Stopped: `cancelled` said so; what arrived stays for the next time.
        Costly: the line's budget is used up.
        PeerError: cut, stalled, slow, or not what was signed; try again later.
        RejectedInput: the server refuses for good (4xx), or its file is longer than what was signed.
        DeviceFault: the disk is full or refuses.

    """
    done = folder / release.sha256
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in folder.iterdir():
            if bundle_of(path) != release.sha256:
                path.unlink()
        if done.exists() and _sha256(done) == release.sha256:
            return done
        part = done.with_suffix(".part")
        room(folder, release.length - (part.stat().st_size if part.exists() else 0), "a new release")
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "r+b", buffering=0) as out:
            budget = max_bytes or int(release.length * SPENT) + SPENT_MORE
            _Download(release, out, done.with_suffix(".note"), budget).run(source, progress, cancelled)
        if _sha256(part) != release.sha256:  # the list and the whole were signed together
            part.unlink()
            done.with_suffix(".note").unlink(missing_ok=True)
            raise RejectedInput("The release does not fit its own list of blocks.")
        part.rename(done)
        done.with_suffix(".note").unlink(missing_ok=True)
        sync_directory(folder)
    except OSError as err:
        raise DeviceFault(
            f"Cannot write the download to {folder}: {err.strerror or err}.", "Free space on the data partition."
        ) from err
    return done


def bundle_of(path: Path) -> str:
    """SHA-256 of the bundle that this file of a download is, or belongs to."""
    return path.name.lstrip(".").split(".")[0]


class _Download:
    def __init__(self, release: Release, out: BinaryIO, noted: Path, budget: int) -> None:
        self._release, self._out, self._noted, self._budget = release, out, noted, budget
        self._note = _read_note(noted)
        size = os.fstat(out.fileno()).st_size
        self._note.done = min(self._note.done, size // BLOCK if size < release.length else len(release.blocks))
        begin = self._note.done * BLOCK
        self._at = max(begin, min(size, begin + BLOCK - 1, release.length))
        out.truncate(self._at)
        self._digest = hashlib.sha256()
        out.seek(begin)
        while chunk := out.read(_READ_BYTES):
            self._digest.update(chunk)
        self._mended = self._at != begin
        """The unfinished block has bytes of an earlier attempt, which a power cut may have damaged."""

    def run(self, source: Source, progress: Progress, cancelled: Callable[[], bool]) -> None:
        if self._at == self._release.length and self._note.done < len(self._release.blocks):
            self._finish_block()
        while self._at < self._release.length:
            self._once(source, progress, cancelled)

    def _once(self, source: Source, progress: Progress, cancelled: Callable[[], bool]) -> None:
        """One answer of the server, to its end or until a block that an earlier attempt began is found damaged."""
        release, note = self._release, self._note
        if note.spent >= self._budget:
            raise Costly("The release cost more of the line than it may; it is left for a day.")
        folder, _, name = release.path.rpartition("/")
        url = f"{source.targets}{folder}/{release.sha256}.{name}"
        try:
            with source.read(url, release.length, start=self._at, etag=note.etag, bulk=True) as reply:
                if note.etag != reply.etag:  # without it a download that is killed now would begin anew
                    note.etag = reply.etag
                    self._save()
                skip = self._at - reply.start  # a server that cannot begin in the middle; what is here is right
                for chunk in reply.chunks:
                    note.spent += len(chunk)
                    if cancelled():
                        raise Stopped("The download was stopped.")
                    if note.spent > self._budget:
                        raise Costly("The release costs more of the line than it may; it is left for a day.")
                    fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                    if not self._take(fresh):
                        return
                    progress(self._at, release.length)
        except ChannelDown as err:
            if 400 <= err.status < 500 and err.status not in (408, 429):
                raise RejectedInput(f"The channel does not give this release: {err}") from err
            raise
        finally:
            self._save()
        if self._at != release.length:
            raise PeerError("The server's file is shorter than the one that was signed.")

    def _take(self, chunk: bytes) -> bool:
        while chunk:
            end = min((self._note.done + 1) * BLOCK, self._release.length)
            now, chunk = chunk[: end - self._at], chunk[end - self._at :]
            self._write(now)
            self._digest.update(now)
            self._at += len(now)
            if self._at == end and not self._finish_block():
                return False
        return True

    def _finish_block(self) -> bool:
        """Compare the block that is now whole. False: it was mended, is damaged, and is begun anew."""
        begin = self._note.done * BLOCK
        right = self._digest.hexdigest() == self._release.blocks[self._note.done]
        self._digest = hashlib.sha256()
        if not right:
            self._out.truncate(begin)
            self._out.seek(begin)
            self._at = begin
            if not self._mended:
                raise PeerError("The server's file is not the one that was signed.")
            self._mended = False
            return False
        os.fdatasync(self._out.fileno())
        self._note.done += 1
        self._mended = False
        self._save()
        return True

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._out.write(view) :]

    def _save(self) -> None:
        write_atomic(self._noted, msgspec.json.encode(self._note))


def _read_note(path: Path) -> _Note:
    try:
        note = msgspec.json.decode(path.read_bytes(), type=_Note)
    except (OSError, msgspec.MsgspecError):
        note = _Note()
    if abs(time.time() - note.since) > LATER_S:
        note.spent, note.since = 0, time.time()
    return note


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
