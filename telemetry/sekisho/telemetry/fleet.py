"""The box's copy of the fleet's list of bad files: taken only when it is signed and newer, kept as it was signed.

`all.json` and `change.json` are the centre's own messages, checked again at every start; their numbers are the floor
below which nothing is taken, so that a broker that replays an older list changes nothing. `bad.bin` is what inspect
reads: sorted 32-byte hashes, empty when the list is over, the tenant or the owner takes no part.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from cryptography import x509

from sekisho.appliance.core import fleet
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fleet import All, Away, Change, Message
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.known import HASH

BAD: Final = "bad.bin"
_FILES: Final[dict[type, str]] = {All: "all.json", Change: "change.json", Away: "away.json"}

log = logging.getLogger(__name__)


class FleetList:
    """What the fleet knows, as far as this box has been told."""

    def __init__(self, directory: Path, ca: Path, box: str, now: float) -> None:
        """Take up what was kept.

        Raises:
            DeviceFault: the directory cannot be written.
            RejectedInput: the CA's certificate cannot be read.

        """
        self._dir = directory
        self._box = box
        try:
            self._ca = x509.load_pem_x509_certificate(ca.read_bytes())
        except (OSError, ValueError) as err:
            raise RejectedInput(f"The centre's CA {ca} cannot be used: {err}.") from err
        self._all: All | None = None
        self._change: Change | None = None
        self._away: Away | None = None
        self.refused = 0
        """Messages that were forged, damaged or older than what is here, since the start."""
        for name in _FILES.values():
            self._restore(directory / name, now)
        self.publish(now)

    def take(self, data: bytes, now: float) -> bool:
        """A message from the broker; whether what is in force may have changed. `now`: unix seconds.

        Raises:
            DeviceFault: it could not be kept; the list in force stays.

        """
        try:
            message = fleet.unseal(data, self._ca, now)
            if not self._is_newer(message):
                return False
        except RejectedInput as err:
            self.refused += 1
            log.warning("%s", err)
            return False
        self._write(_FILES[type(message)], data)
        self._set(message)
        self.publish(now)
        return True

    def back(self, now: float) -> None:
        """The centre has taken back that this box's tenant takes no part."""
        if self._away is not None:
            self._away = None
            (self._dir / _FILES[Away]).unlink(missing_ok=True)
            self.publish(now)

    def publish(self, now: float) -> None:
        """Write what inspect is to refuse, where it differs from what is there.

        Raises:
            DeviceFault: it could not be written.

        """
        content = b"".join(sorted(self._files(now)))
        path = self._dir / BAD
        try:
            if path.read_bytes() == content:
                return
        except FileNotFoundError:
            pass
        except OSError as err:
            raise DeviceFault(f"Cannot read {path}: {err.strerror}.") from err
        self._write(BAD, content)

    def _files(self, now: float) -> set[bytes]:
        whole, change = self._all, self._change
        if whole is None or self._away is not None:
            return set()
        newest: All | Change = whole
        files = {whole.files[at : at + HASH] for at in range(0, len(whole.files), HASH)}
        if change is not None and change.base == whole.n:
            newest = change
            files = (files | set(map(bytes.fromhex, change.add))) - set(map(bytes.fromhex, change.remove))
        return files if now < newest.until else set()

    def _is_newer(self, message: Message) -> bool:
        """Whether it says something that is not known yet.

        Raises:
            RejectedInput: it is for another box, or a list that was overtaken long ago.

        """
        match message:
            case All():
                floor = self._all.n if self._all else 0
            case Change():
                floor = self._change.n if self._change else 0
                if self._all is not None and message.base < self._all.n:
                    raise RejectedInput("A change to an older list of the fleet's bad files was refused.")
            case Away():
                floor = self._away.n if self._away else 0
                if message.box != self._box:
                    raise RejectedInput("A message about another box was refused.")
        if message.n < floor:
            raise RejectedInput("An older list of the fleet's bad files was refused.")
        return message.n > floor

    def _set(self, message: Message) -> None:
        match message:
            case All():
                self._all = message
            case Change():
                self._change = message
            case Away():
                self._away = message

    def _restore(self, path: Path, now: float) -> None:
        try:
            self._set(fleet.unseal(path.read_bytes(), self._ca, now))
        except FileNotFoundError:
            return
        except (OSError, RejectedInput) as err:
            log.warning("%s is set aside: %s", path, err)

    def _write(self, name: str, data: bytes) -> None:
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            write_atomic(self._dir / name, data, 0o640)
        except OSError as err:
            raise DeviceFault(f"Cannot write {self._dir / name}: {err.strerror}.") from err


def forget(directory: Path) -> None:
    """Nothing the fleet knows is used here any more.

    Raises:
        DeviceFault: it could not be removed.

    """
    try:
        for name in (BAD, *_FILES.values()):
            (directory / name).unlink(missing_ok=True)
    except OSError as err:
        raise DeviceFault(f"Cannot remove the fleet's list in {directory}: {err.strerror}.") from err
