"""The fleet's bad files in memory that the daemon writes and every scan worker reads: none need be started anew.

Layout: 8 bytes change number, 8 bytes count, then sorted 32-byte hashes, little endian. The daemon writes the count
0 first and the true one last: a worker that looks meanwhile finds less for a moment, never something that is not there.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
from pathlib import Path
from typing import Final

from sekisho.appliance.core.fsio import stamp
from sekisho.appliance.core.known import HASH, MAX_FILES
from sekisho.inspect.hashes import contains

_HEAD: Final = struct.Struct("<QQ")
_SIZE: Final = _HEAD.size + MAX_FILES * HASH

log = logging.getLogger(__name__)


class Published:
    """The daemon's end: follows the file that telemetry writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._number = 0
        self.fd = os.memfd_create("fleet", os.MFD_CLOEXEC)
        """For the workers, who map it to read."""
        os.ftruncate(self.fd, _SIZE)
        self._map = mmap.mmap(self.fd, _SIZE)

    def refresh(self) -> bool:
        """Take over the file where it has changed; a file that cannot be read or is none leaves the last list."""
        seen = stamp(self._path)
        if seen == self._stamp:
            return False
        first, self._stamp = self._stamp is None, seen
        try:
            with self._path.open("rb") as source:
                hashes = source.read(MAX_FILES * HASH + 1)
        except FileNotFoundError:
            hashes = b""
        except OSError as err:
            log.error("the fleet's list %s cannot be read: %s", self._path, err.strerror)
            return False
        if len(hashes) % HASH or len(hashes) > MAX_FILES * HASH:
            log.error("the fleet's list %s is damaged; the last one stays", self._path)
            return False
        if first and not hashes:
            return False
        self._number += 1
        self._map[: _HEAD.size] = _HEAD.pack(self._number, 0)
        self._map[_HEAD.size : _HEAD.size + len(hashes)] = hashes
        self._map[: _HEAD.size] = _HEAD.pack(self._number, len(hashes) // HASH)
        return True

    def close(self) -> None:
        self._map.close()
        os.close(self.fd)


class Listed:
    """A worker's end."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _SIZE, prot=mmap.PROT_READ)

    @property
    def number(self) -> int:
        """Changes with the list."""
        return int(_HEAD.unpack_from(self._map)[0])

    def __contains__(self, digest: bytes) -> bool:
        count = min(_HEAD.unpack_from(self._map)[1], MAX_FILES)
        if not count:
            return False
        return contains(self._map[_HEAD.size : _HEAD.size + count * HASH], digest)
