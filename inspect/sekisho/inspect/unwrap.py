"""Takes the file itself out of a transfer that was stopped: what an owner releases is a file, not headers and chunks.

Run as `python -I -m sekisho.inspect.unwrap APP SHA256 LIMIT` with the transfer on standard input: a child of inspect,
confined like a scan worker, because a stranger wrote what it reads. Of everything a reader could see in the transfer
it gives out what has exactly the hash that was told at the time, after the byte `FOUND`; else nothing.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from sekisho.appliance.core.errors import RejectedInput
from sekisho.inspect.containers.budget import Bytes
from sekisho.inspect.streams import mime, registry
from sekisho.inspect.worker import Mapped, confine

FOUND: Final = b"\x01"
MEMORY_MB: Final = 512
LONGEST_S: Final = 60.0
STEP: Final = 1 << 20
_PARTS: Final = ("pop3", "imap")
"""Of these a single part of a mail is kept, with its own header fields."""


def content(transfer: int, app: str, sha256: str, limit: int) -> Iterator[bytes] | None:
    """The file in the open transfer, chunk by chunk, in a process of its own; None when it cannot be told apart.

    Raises (while it is read):
        RejectedInput: the process ended before its end.

    """
    argv = [sys.executable, "-I", "-m", "sekisho.inspect.unwrap", app, sha256, str(limit)]
    child = subprocess.Popen(
        ["timeout", str(LONGEST_S), *argv], stdin=transfer, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    if child.stdout is not None and child.stdout.read(1) == FOUND:
        return _rest(child, sha256)
    child.communicate()
    return None


def _rest(child: subprocess.Popen[bytes], sha256: str) -> Iterator[bytes]:
    told = hashlib.sha256()
    try:
        while child.stdout is not None and (chunk := child.stdout.read(STEP)):
            told.update(chunk)
            yield chunk
        if told.hexdigest() != sha256:
            raise RejectedInput("The file was cut short.")
    finally:
        child.kill()
        child.communicate()


def find(data: memoryview, app: str, sha256: str, limit: int) -> Bytes | None:
    """What in the transfer has this hash. Reads hostile bytes."""
    for seen in _candidates(data, app, limit):
        if hashlib.sha256(seen).hexdigest() == sha256:
            return seen
    return None


def _candidates(data: memoryview, app: str, limit: int) -> Iterator[Bytes]:
    broken = (ValueError, MemoryError, RecursionError, OverflowError)
    for to_server in (False, True):
        with suppress(*broken):
            for found in registry.splitter(app, to_server=to_server)(data, memoryview(b""), limit=limit):
                yield from found.parts
    if app in _PARTS:
        with suppress(*broken):
            yield from (part.body for part in mime.contents(bytes(data), limit=limit).parts)


def main(argv: list[str]) -> int:
    """0 with the file on standard output, 1 without one."""
    app, sha256, limit = argv[0], argv[1], int(argv[2])
    sample = memoryview(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nx")
    for each in registry.APPS:  # whatever is imported late is imported before the door closes
        find(sample, each, "", limit)
    length = os.fstat(0).st_size
    with Mapped(os.dup(0), length) as data:
        confine(MEMORY_MB)
        seen = find(data, app, sha256, limit)
        if seen is None:
            return 1
        with os.fdopen(1, "wb") as out:
            out.write(FOUND)
            out.write(seen)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
