"""A pure machine and the disk: what it decides is saved before it is told, and told before it is acted on.

    commands of the machine ─► save its journal ─► tell its events ─► act
                                 (one file)        (JournalWriter)

Killed anywhere, the next process finds the journal as it was before a step or after it; an event that was told and not
yet noted as told is found in the file it was written to; an act may be repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from sekisho.appliance.core.errors import DeviceFault, SekishoError
from sekisho.appliance.core.journal import JournalWriter, newest_lines

log = logging.getLogger(__name__)

_Command = TypeVar("_Command")


class _Journal(Protocol):
    @property
    def untold(self) -> tuple[msgspec.Struct, ...]:
        """Events that are decided and perhaps not yet told."""


class Machine(Protocol):
    """What has a journal, replaced as a whole by each step."""

    @property
    def journal(self) -> _Journal: ...

    def spoken(self, event: Any) -> None:
        """It was told: the journal needs it no more."""


class WriteAhead(Generic[_Command]):
    """Carries out what a machine commands. Of one thread."""

    def __init__(
        self,
        machine: Machine,
        path: Path,
        save: Callable[[Path, Any], None],
        writer: JournalWriter,
        act: Callable[[_Command], None],
        *,
        decode: Callable[[bytes], object],
        urgent: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take up where the last process ended; nothing is done yet.

        Args:
            machine: with the journal as it was loaded from `path`.
            path: of the journal; named where it cannot be written.
            save: durable at return, or OSError.
            writer: of what is told.
            act: one command; may be called again for what was done already.
            decode: a line of what was told; msgspec's errors for what is none.
            urgent: whether what is commanded now may not wait for a disk that refuses (going back).

        """
        self._machine, self._path, self._write, self._act = machine, path, save, act
        self._writer, self._urgent = writer, urgent
        self._saved = machine.journal
        self._pending: list[_Command] = []
        told = []
        for line in newest_lines(writer.path):
            with suppress(msgspec.MsgspecError):
                told.append(decode(line))
        for event in machine.journal.untold:
            if event in told:
                machine.spoken(event)

    def take(self, commands: Iterable[_Command]) -> None:
        """What the machine wants done now; then as `settle`."""
        self._pending += commands
        self.settle()

    def settle(self) -> None:
        """Save, tell, act: in this order, each only when the one before is done.

        Raises:
            DeviceFault: the disk refuses; what waits is done by a later call.

        """
        try:
            self._save()
            self._tell()
        except DeviceFault:
            if self._urgent():
                self._carry_out()
            raise
        self._carry_out()

    def _save(self) -> None:
        found = self._machine.journal
        if found is self._saved:
            return
        try:
            if found != self._saved:
                self._write(self._path, found)
        except OSError as err:
            raise DeviceFault(
                f"Cannot write {self._path}: {err.strerror}.", "Free space on the data partition."
            ) from err
        self._saved = found

    def _tell(self) -> None:
        if not self._machine.journal.untold:
            return
        for event in self._machine.journal.untold:
            line = msgspec.json.encode(event)
            self._writer.append(line)
            log.info("%s", line.decode())
            self._machine.spoken(event)
        self._save()

    def _carry_out(self) -> None:
        while self._pending:
            self._act(self._pending.pop(0))


class unimportant(suppress):
    """Around what is only tidiness, or is done again at the next start: its failure stops nothing."""

    def __init__(self) -> None:
        super().__init__(SekishoError, OSError)
