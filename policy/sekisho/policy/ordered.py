"""The centre's settings on their way into force on this box: which document is tried, which one holds, what is told.

Telemetry has checked the signature before it wrote the file, and nobody else may write there. A document that is
refused is remembered and not tried again; the last good one is kept in a file of its own, for a start with a newer one
that is no good. Each outcome is told as `Applied`; one that is told twice (a restart) is the same fact again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from sekisho.appliance.core import envelope, fsio, orders, utc
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.orders import Orders
from sekisho.appliance.core.settings import Settings
from sekisho.policy import overlay
from sekisho.policy.overlay import EMPTY, Overlay
from sekisho.telemetry.events import Applied, Event

Why = Literal["damaged", "not_understood", "cannot_be_made", "engine", "own_policy"]
FINAL: Final = frozenset({"not_understood", "cannot_be_made", "engine"})
"""Refusals that no second try of the same document changes."""

TOLD: Final = 4

log = logging.getLogger(__name__)


class _Memory(msgspec.Struct, frozen=True):
    """What outlives a restart."""

    good: Orders | None = None
    refused: int = 0
    """The newest document that is not to be tried again."""


@dataclass(frozen=True)
class Document:
    """Settings that can be tried; number 0: none were ever made."""

    number: int = 0
    overlay: Overlay = EMPTY
    orders: Orders | None = None


class Ordered:
    """The engine's thread asks what to try; the policy's thread, which looks at what came of it, settles."""

    def __init__(self, settings: Settings, report: Callable[[Event], None]) -> None:
        self._settings = settings
        self._file = settings.orders
        self._memory_file = settings.policies / "orders.json"
        self._identity = (settings.tenant, settings.box)
        self._report = report
        self._memory = self._remembered()
        self._writing = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._tried = 0
        self._told: dict[int, Applied] = {}
        """The last word about each of the newest documents."""

    def waits(self) -> bool:
        """Whether there is a document that was never tried."""
        stamp = fsio.stamp(self._file)
        if self._stamp in (None, stamp):
            return False
        self._stamp = stamp
        try:
            newest = received(self._settings)
        except RejectedInput:
            return True
        return (newest.n if newest else 0) != self._tried

    def tries(self) -> list[Document]:
        """The documents to be tried in turn: the newest, and the last good one where that is another."""
        self._stamp = fsio.stamp(self._file)
        good = self._good()
        try:
            newest = received(self._settings)
        except RejectedInput as err:
            log.warning("%s", err)
            self.refuse(Document(), "damaged")
            return [good]
        self._tried = newest.n if newest else 0
        if newest is None:
            return [Document()]
        if newest.n in (self._memory.refused, good.number):
            return [good]
        try:
            return [Document(newest.n, overlay.parse(bytes(newest.policy)), newest), good]
        except RejectedInput as err:
            log.warning("%s", err)
            self.refuse(Document(newest.n), "not_understood")
            return [good]

    def refuse(self, document: Document, why: Why) -> None:
        """Note that it is not to be, and tell it; where that cannot be noted it is tried again after a restart."""
        if why in FINAL:
            try:
                self._remember(refused=document.number)
            except DeviceFault as err:
                log.warning("%s", err)
        self._tell(Applied(at=utc.now(), number=document.number, state="refused", why=why))

    def settle(self, document: Document, overruled: int) -> None:
        """Note that it is in force, and tell it.

        Raises:
            DeviceFault: it could not be noted.

        """
        if document.number != (self._memory.good.n if self._memory.good else 0):
            self._remember(good=document.orders)
        if document.number:
            self._tell(Applied(at=utc.now(), number=document.number, state="in_force", overruled=overruled))

    def _tell(self, fact: Applied) -> None:
        told = self._told.pop(fact.number, None)
        self._told = {fact.number: fact, **dict(list(self._told.items())[:TOLD])}
        if told is None or msgspec.structs.replace(told, at=fact.at) != fact:
            self._report(fact)

    def _good(self) -> Document:
        kept = self._memory.good
        if kept is None or (kept.tenant, kept.box) != self._identity:
            return Document()
        try:
            return Document(kept.n, overlay.parse(bytes(kept.policy)), kept)
        except RejectedInput as err:  # of another version of this program
            log.warning("%s", err)
            return Document()

    def _remembered(self) -> _Memory:
        try:
            return msgspec.json.decode(self._memory_file.read_bytes(), type=_Memory)
        except FileNotFoundError:
            return _Memory()
        except (OSError, msgspec.MsgspecError, RecursionError) as err:
            log.warning("%s is passed over: %s", self._memory_file, err)
            return _Memory()

    def _remember(self, **what: Any) -> None:
        with self._writing:
            memory = msgspec.structs.replace(self._memory, **what)
            try:
                self._memory_file.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(self._memory_file, msgspec.json.encode(memory))
            except OSError as err:
                raise DeviceFault(f"{self._memory_file} cannot be written: {err.strerror}.") from err
            self._memory = memory


def received(settings: Settings) -> Orders | None:
    """The newest document that telemetry has kept for this box; None where there is none.

    Raises:
        RejectedInput: its file is damaged.

    """
    try:
        with settings.orders.open("rb") as source:
            found = orders.unchecked(source.read(envelope.MESSAGE_CAP + 1))
    except FileNotFoundError:
        return None
    except OSError as err:
        raise RejectedInput(f"{settings.orders} cannot be read: {err.strerror}.") from err
    return found if (found.tenant, found.box) == (settings.tenant, settings.box) else None
