"""The box's copy of what the centre switched off: taken only when it is signed and newer, kept as it was signed.

`switched.json` is the centre's own message, checked again at every start; its number is the floor below which nothing
is taken, so that a broker that replays an older one changes nothing. From it come the `centre` half of core.muting,
which the inspectors read, and the number of the newest published set, for the signatures daemon. Both are written
again at a start, in case the power went between.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509

from sekisho.appliance.core import muting, switched
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.muting import Muting
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.core.switched import Newest, Switched

COPY: Final = "switched.json"

log = logging.getLogger(__name__)


class SwitchedOff:
    """What is off, as far as this box has been told."""

    def __init__(self, settings: Settings) -> None:
        """Take up what was kept.

        Raises:
            DeviceFault: the directory cannot be written.
            RejectedInput: the CA's certificate cannot be read.

        """
        self._settings = settings
        self._copy = settings.fleet / COPY
        ca = Path(settings.telemetry.ca)
        try:
            self._ca = x509.load_pem_x509_certificate(ca.read_bytes())
        except (OSError, ValueError) as err:
            raise RejectedInput(f"The centre's CA {ca} cannot be used: {err}.") from err
        self.known: Switched | None = self._kept()
        self.refused = 0
        """Messages that were forged, damaged or older than what is here, since the start."""
        if self.known is not None:
            self._publish(self.known)

    def take(self, data: bytes, now: float) -> bool:
        """A message from the broker; whether it is in force now and was not before. `now`: unix seconds.

        Raises:
            DeviceFault: it could not be put in force; to be taken again.

        """
        try:
            message = switched.unseal(data, self._ca, now)
        except RejectedInput as err:
            self.refused += 1
            log.warning("%s", err)
            return False
        floor = self.known.n if self.known else 0
        if message.n < floor:
            self.refused += 1
            log.warning("An older message of what is switched off was refused: number %d of %d.", message.n, floor)
        if message.n <= floor:
            return False
        self._write(self._copy, data)
        self._publish(message)
        self.known = message
        log.info(
            "The centre has switched off %d rules and %d YARA rules (number %d).",
            len(message.sids), len(message.yara), message.n,
        )  # fmt: skip
        return True

    def _publish(self, message: Switched) -> None:
        off = Muting(sids=message.sids, yara=message.yara)
        for path, content in (
            (muting.path_of(self._settings, "centre"), msgspec.json.encode(off)),
            (switched.newest_path(self._settings), msgspec.json.encode(Newest(message.newest))),
        ):
            if not _holds(path, content):
                self._write(path, content)

    def _kept(self) -> Switched | None:
        try:
            return switched.unseal(self._copy.read_bytes(), self._ca, None)
        except FileNotFoundError:
            return None
        except (OSError, RejectedInput) as err:
            log.warning("%s is set aside: %s", self._copy, err)
            return None

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data, 0o640)
        except OSError as err:
            raise DeviceFault(f"Cannot write {path}: {err.strerror}.") from err


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False
