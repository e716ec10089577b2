"""Verified metadata on the disk, under python-tuf's names: what a refresh begins with, so that it fetches little.

A file that a power cut emptied or tore is no more than a missing one: all of it is verified again at every refresh,
from the root that came with the box, and what counts is in the floors.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sekisho.signatures.trust.disk import Disk
from sekisho.signatures.trust.faults import disk_fault

_HISTORY: Final = "root_history"
_NEWEST: Final = "root.json"
_CAP: Final = 5_000_000
_FILES_CAP: Final = 1024


class Store:
    """`directory`/ROLE.json, and `root_history`/VERSION.root.json; `root.json` is the newest, for people."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk
        self._laid: dict[str, bytes] = {}

    def lay_out(self, scratch: Path) -> None:
        """Copy what can be read."""
        self._laid = {}
        (scratch / _HISTORY).mkdir()
        for name in self._names():
            try:
                data = self._disk.read(self._directory / name, _CAP)
            except OSError:
                continue
            if name != _NEWEST:  # python-tuf makes it a link, from the history
                (scratch / name).write_bytes(data)
            self._laid[name] = data

    def fresh(self, scratch: Path) -> dict[str, bytes]:
        """What python-tuf has put there since: verified, not yet kept."""
        found = {path.name: path.read_bytes() for path in scratch.glob("*.json")}
        found |= {f"{_HISTORY}/{path.name}": path.read_bytes() for path in (scratch / _HISTORY).glob("*.root.json")}
        return {name: data for name, data in found.items() if self._laid.get(name) != data}

    def keep(self, files: dict[str, bytes]) -> None:
        """Put them on the disk, safe at return.

        Raises:
            ChannelUnfit: the disk is full or failing.

        """
        try:
            if any("/" in name for name in files):
                self._disk.make_directory(self._directory / _HISTORY)
                self._disk.sync_directory(self._directory)
            # Roots first, the oldest before the newer.
            for name in sorted(files, key=lambda name: ("/" not in name, len(name), name)):
                self._disk.replace(self._directory / name, files[name])
                self._laid[name] = files[name]
        except OSError as err:
            raise disk_fault(err, "What the channel says") from err

    def drop(self, roles: Iterable[str], scratch: Path) -> None:
        """Forget these roles, here and in `scratch`; safe at return.

        Raises:
            ChannelUnfit: the disk is failing.

        """
        try:
            for role in roles:
                (scratch / f"{role}.json").unlink(missing_ok=True)
                self._disk.unlink(self._directory / f"{role}.json")
                self._laid.pop(f"{role}.json", None)
            self._disk.sync_directory(self._directory)
        except OSError as err:
            raise disk_fault(err, "What the channel says") from err

    def _names(self) -> list[str]:
        history = [f"{_HISTORY}/{name}" for name in self._disk.names(self._directory / _HISTORY)]
        found = self._disk.names(self._directory) + history
        return [name for name in found if name.endswith(".json") and not name.startswith(".")][:_FILES_CAP]
