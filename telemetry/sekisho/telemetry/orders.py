"""The box's copy of what the customer decided at the centre: taken only when it is signed, for this box, and newer.

One file, `orders.json`: the centre's own message, replaced by one rename, so a kill or a power cut leaves the old or
the new one whole. It is checked again at every start and its number is the floor: a broker that replays an older one
changes nothing. What it says is not read here; the appliance reads it, puts it in force and reports what came of it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cryptography import x509

from sekisho.appliance.core import orders
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import write_atomic

log = logging.getLogger(__name__)


class OrdersFile:
    """The newest document, as far as this box has been told."""

    def __init__(self, path: Path, ca: Path, tenant: str, box: str) -> None:
        """Take up what was kept.

        Raises:
            RejectedInput: the CA's certificate cannot be read.

        """
        self._path, self._tenant, self._box = path, tenant, box
        try:
            self._ca = x509.load_pem_x509_certificate(ca.read_bytes())
        except (OSError, ValueError) as err:
            raise RejectedInput(f"The centre's CA {ca} cannot be used: {err}.") from err
        self.number = self._kept()
        """Of the document that is here; 0: none."""
        self.refused = 0
        """Messages that were forged, damaged, another box's, or older than what is here, since the start."""

    def take(self, data: bytes, now: float) -> bool:
        """A message from the broker; whether it is a new document. `now`: unix seconds.

        Raises:
            DeviceFault: it could not be kept; what was here stays.

        """
        try:
            number = self._judged(data, now)
        except RejectedInput as err:
            self.refused += 1
            log.warning("%s", err)
            return False
        if number == self.number == self._kept():
            return False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            write_atomic(self._path, data, 0o640)
        except OSError as err:
            raise DeviceFault(f"Cannot write {self._path}: {err.strerror}.") from err
        self.number = number
        return True

    def _judged(self, data: bytes, now: float | None) -> int:
        found = orders.unseal(data, self._ca, now)
        if (found.tenant, found.box) != (self._tenant, self._box):
            raise RejectedInput("The centre's settings for another box were refused.")
        if now is not None and found.n < self.number:
            raise RejectedInput("Older settings of the centre were refused.")
        return found.n

    def _kept(self) -> int:
        try:
            return self._judged(self._path.read_bytes(), None)
        except FileNotFoundError:
            return 0
        except (OSError, RejectedInput) as err:
            log.warning("%s is no floor for what comes: %s", self._path, err)
            return 0
