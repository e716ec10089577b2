"""What the engine says of files: its datagrams as they come, and its log for those it could not deliver.

files.sock, files.json -> Hearing -> FileSeen -> Effects
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import OrderedDict
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core import marks
from sekisho.appliance.core.journal import newest_lines
from sekisho.appliance.core.settings import Settings
from sekisho.inspect import eve, hold
from sekisho.inspect.effects import Effects
from sekisho.telemetry import events

MAX_HEARD: Final = 65536
HEARD_HANDED: Final = 4096
"""Of those, what a successor is told: the log behind them is read once a second."""
REPLAY_BYTES: Final = 4 << 20
KINDS: Final = {
    "http": marks.HTTP, "http2": marks.HTTP, "smtp": marks.MAIL, "ftp-data": marks.FTPDATA, "smb": marks.SMB,
}  # fmt: skip

log = logging.getLogger(__name__)


class Hearing:
    """One process at a time hears the engine."""

    def __init__(
        self, settings: Settings, files: socket.socket, effects: Effects, log_at: tuple[int, bytes] | None = None
    ) -> None:
        """`files`: where the engine's datagrams arrive; `log_at`: where a predecessor stopped reading the log."""
        self.files = files
        self._settings = settings
        self._effects = effects
        self._log = eve.Follower(settings.files_log, log_at)
        self._late: list[eve.File] = []
        self._heard: OrderedDict[eve.Key, None] = OrderedDict()
        self._unheard: list[eve.File] = []

    def listen(self) -> None:
        """Take every datagram that is there: what the engine said before it let the staged packets go."""
        while True:
            try:
                line = self.files.recv(eve.MAX_LINE + 1)
            except BlockingIOError:
                return
            if (name := eve.parse_name(line)) is not None:
                self._effects.engine.name(name.ends, name.name)
            elif (file := eve.parse(line)) is not None:
                self._file(file)

    def _file(self, file: eve.File) -> None:
        if self._effects.gate is None:
            return
        meta = file.meta
        self._heard[eve.key(file.sha256, meta)] = None
        if len(self._heard) > MAX_HEARD:
            self._heard.popitem(last=False)
        try:
            flow, direction = self._effects.gate.find(
                meta.src, meta.src_port, meta.dst, meta.dst_port, KINDS.get(meta.app, 0)
            )
        except ValueError:
            return
        self._seen(file, flow, direction, late=False)

    def _seen(self, file: eve.File, flow: int, direction: int, *, late: bool) -> None:
        path = str(self._stored_at(file)) if file.stored and file.sha256 else ""
        self._effects.seen(
            hold.FileSeen(flow, direction, file.meta, file.state, file.stored, file.sha256, file.size, path, late)
        )

    def cross_check(self) -> None:
        """A datagram the engine could not deliver (it never waits) is in its log all the same: judge that file late.

        A file that is still in the store a second after its line has not been judged: judging removes it.
        """
        for file in self._unheard:
            if eve.key(file.sha256, file.meta) not in self._heard and self._in_store(file):
                log.warning("a file of %s was not announced; judged late", file.meta.app)
                self._seen(file, 0, 0, late=True)
        self._unheard = [f for f in self._log.files() if eve.key(f.sha256, f.meta) not in self._heard]

    def look_back(self) -> None:
        """Find the files that completed while nobody was at the gate, for `replay`."""
        told = _told(self._settings.journals / "inspect.jsonl")
        self._late = eve.missed(self._settings.files_log, told, cap_bytes=REPLAY_BYTES)

    def replay(self) -> None:
        """Judge them: too late to stop, not too late to say so."""
        for file in self._late:
            if self._in_store(file):
                self._seen(file, 0, 0, late=True)
        self._late = []

    def hand_over(self) -> tuple[list[eve.Key], list[eve.File], int, bytes]:
        """(heard lately, not heard yet, the log's descriptor or -1, the beginning of a line before its place)."""
        open_files = [eve.key(c.sha256, c.meta) for c in self._effects.engine.cases.values() if c.what == "file"]
        return [*list(self._heard)[-HEARD_HANDED:], *open_files], self._unheard, *self._log.hand_over()

    def take_over(self, heard: list[eve.Key], unheard: list[eve.File]) -> None:
        """Go on with what `hand_over` gave."""
        self._heard, self._unheard = OrderedDict.fromkeys(heard), unheard

    def _in_store(self, file: eve.File) -> bool:
        return bool(file.sha256) and file.stored and self._stored_at(file).exists()

    def _stored_at(self, file: eve.File) -> Path:
        return self._settings.filestore / file.sha256[:2] / file.sha256


def _told(journal: Path) -> set[eve.Key]:
    """What the last part of the journal already says, so that a restart does not say it twice."""
    told = set()
    for line in newest_lines(journal, REPLAY_BYTES * 2):
        with contextlib.suppress(msgspec.MsgspecError):
            event = events.decode(line)
            if isinstance(event, events.FileVerdict):
                flow = event.flow
                told.add((event.sha256, flow.src_ip, flow.src_port, flow.dst_ip, flow.dst_port))
    return told
