"""What is known of the connection to the centre, for the owner's eyes and for the next start: one small file."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from sekisho.appliance.core.fsio import write_atomic
from sekisho.telemetry.ways import Way

_CAP_BYTES = 256 << 10

log = logging.getLogger(__name__)


class Trial(msgspec.Struct, frozen=True):
    """How one way failed last, and since when it has failed like that."""

    way: str
    reason: str
    since: str


class LinkStatus(msgspec.Struct, frozen=True):
    """The connection as it is."""

    way: str = ""
    """The one in use; empty = not connected."""
    since: str = ""
    answered: str = ""
    """When the centre itself, not its broker, first answered over this connection; empty = not yet."""
    worked: str = ""
    """The one that worked last."""
    tried: list[Trial] = []


class Link:
    """Keeps the file; rewrites it only when something changed (flash wear)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._status = LinkStatus(worked=read(path).worked)

    @property
    def worked(self) -> str:
        return self._status.worked

    def up(self, way: Way, now_utc: str) -> None:
        tried = [trial for trial in self._status.tried if trial.way != str(way)]
        self._write(LinkStatus(str(way), now_utc, "", str(way), tried))

    def answered(self, now_utc: str) -> None:
        """Note that the centre answers; the first time of a connection counts."""
        if self._status.way and not self._status.answered:
            self._write(msgspec.structs.replace(self._status, answered=now_utc))

    def down(self, now_utc: str) -> None:
        self._write(msgspec.structs.replace(self._status, way="", since=now_utc, answered=""))

    def failed(self, way: Way, reason: str, now_utc: str) -> bool:
        """Note why a way failed; returns whether that is news."""
        if any((trial.way, trial.reason) == (str(way), reason) for trial in self._status.tried):
            return False
        others = [trial for trial in self._status.tried if trial.way != str(way)]
        self._write(msgspec.structs.replace(self._status, tried=[*others, Trial(str(way), reason, now_utc)]))
        return True

    def _write(self, status: LinkStatus) -> None:
        self._status = status
        try:
            write_atomic(self._path, msgspec.json.encode(status))
        except OSError as err:  # a full disk: the connection matters more than the word about it
            log.debug("%s: %s", self._path, err)


def read(path: Path) -> LinkStatus:
    """What the file says; nothing of it is known when it is absent or damaged."""
    try:
        with path.open("rb") as source:
            return msgspec.json.decode(source.read(_CAP_BYTES), type=LinkStatus)
    except (OSError, msgspec.DecodeError):
        return LinkStatus()
