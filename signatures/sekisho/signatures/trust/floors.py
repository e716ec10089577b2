"""What this box has once believed, and so never goes below again: versions, the set's number, the time.

python-tuf remembers by its cached metadata, which a power cut may empty; with it went its protection against an old
state that is offered again. The floors are kept beside it, in two copies that are each replaced as a whole and
synced; a copy carries its own checksum, and the one with the larger serial counts.

Floors are lowered in one case: those who may say so (root's, or targets' keyholders) took a key away from a role.
What a thief signed with it may have been fast-forwarded (TUF 1.0.34, section 5.3.11); the reset is remembered.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final

import msgspec

from sekisho.signatures.trust.disk import Disk
from sekisho.signatures.trust.faults import ChannelUnfit, disk_fault

COPIES: Final = ("floors.a", "floors.b")
VERSION_CAP: Final = 1 << 53
"""No honest version is this large, and JSON readers disagree about larger numbers."""
ROLES_CAP: Final = 256
_BYTES_CAP: Final = 256 << 10
_RESETS_KEPT: Final = 8

_Version = Annotated[int, msgspec.Meta(ge=0, lt=VERSION_CAP)]


class Reset(msgspec.Struct, frozen=True):
    """Floors were taken back because a role's key was."""

    root: int
    """Version of root that said so; for a delegation, of targets."""
    role: str
    was: dict[str, int]


class Floors(msgspec.Struct, frozen=True, kw_only=True):
    serial: int = 0
    root: _Version = 0
    timestamp: _Version = 0
    snapshot: _Version = 0
    roles: dict[str, _Version] = {}
    """`targets` and every delegated role, as a snapshot once told."""
    number: _Version = 0
    """The largest set number a manifest told."""
    counters: dict[str, _Version] = {}
    """Likewise of what other delegations list: the largest counter a release of `fw` told."""
    time: float = 0.0
    """Unix seconds: the newest time that a verified timestamp says it was signed at. No clock ever raises it."""
    keys: dict[str, list[str]] = {}
    """Ids of the keys that could sign for timestamp, snapshot and delegations when these floors were reached."""
    resets: list[Reset] = []


class _Sealed(msgspec.Struct):
    sha256: str
    floors: msgspec.Raw


class Kept:
    """The floors on the disk."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        """Read them.

        Raises:
            ChannelUnfit: both copies are damaged (`floors_lost`) or the disk cannot be read.

        """
        self._directory = directory
        self._disk = disk
        found = [self._copy(name) for name in COPIES]
        whole = [copy for copy in found if isinstance(copy, Floors)]
        if not whole and any(copy is not None for copy in found):
            raise ChannelUnfit(
                "floors_lost",
                f"What this box remembers of earlier updates is damaged ({directory / COPIES[0]}).",
                "The rules in force go on working. Have the storage looked at; then remove both floors files.",
            )
        self.now = max(whole, key=lambda copy: copy.serial, default=Floors())

    def save(self, changed: Floors) -> None:
        """Put floors in force; they are on the disk at return. The same ones again cost no write.

        Raises:
            ChannelUnfit: the disk is full or failing; the earlier floors hold.

        """
        changed = msgspec.structs.replace(changed, resets=changed.resets[-_RESETS_KEPT:])
        if msgspec.structs.replace(changed, serial=self.now.serial) == self.now:
            return
        changed = msgspec.structs.replace(changed, serial=self.now.serial + 1)
        body = msgspec.json.encode(changed)
        data = msgspec.json.encode(_Sealed(hashlib.sha256(body).hexdigest(), msgspec.Raw(body)))
        try:
            for name in COPIES:
                self._disk.replace(self._directory / name, data)
        except OSError as err:
            raise disk_fault(err, "What was learnt about updates") from err
        self.now = changed

    def _copy(self, name: str) -> Floors | bool | None:
        """None: not there; False: damaged."""
        try:
            sealed = msgspec.json.decode(self._disk.read(self._directory / name, _BYTES_CAP), type=_Sealed)
            if hashlib.sha256(bytes(sealed.floors)).hexdigest() != sealed.sha256:
                return False
            return msgspec.json.decode(sealed.floors, type=Floors)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, ValueError):
            return False
