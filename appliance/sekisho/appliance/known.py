"""Has the engine refuse files that inspect has found malicious, by their hash, when they come again.

Two ways, since the engine knows a file's hash in two places. Small files (`SMALL`) are looked up in a list of the
running engine by what it has gathered of them: told within `LOOK_S` of their discovery, nothing is reloaded. Larger
ones are looked up when they close, in a list that the engine reads with its rules: at its next reload or start. Until
then, and for whatever closes with its connection, the gate's own memory stops them.

The rules mark (REFUSE and the function's number), drop nothing and report nothing: the gate cuts and tells, and without
a gate the last line (refusal.py) withholds the packet. Costs nothing while nothing is known: hashing begins only for a
response of a length that a known file has, or whose length says nothing.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from sekisho.appliance import control, datasets
from sekisho.appliance.core import known, marks
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.appliance.core.fsio import stamp, write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.engine import EngineState, RuleSet
from sekisho.policy.model import FUNCTIONS

LOOK_S: Final = 0.2
COMMANDS_S: Final = 10.0
SMALL: Final = range(128, 30 << 10)
"""Bytes of a file that the engine gathers whole before it lets go of its beginning (its window for bodies is 32 KiB).
Shorter ones would also be the beginning of something else."""
KNOWN_FILE: Final = FUNCTIONS["known_file"]
"""The function's number in the mark."""
HASHES, LENGTHS, SWITCH, LARGE = "sk.known.hash", "sk.known.length", "sk.known.on", "large.sha256"
ON: Final = frozenset(string for byte in range(0x30, 0x5B) if (string := bytes([byte])).isalnum())
"""What a status code or a method begins with: the switch's content while any small file is known."""
NO_FILE: Final = b"0" * 64
"""Stands in the list that comes with the rules: the engine refuses a rule whose list is empty."""
_UNSAFE: Final = re.compile(r'[\s,;"]')

log = logging.getLogger(__name__)

Lists = dict[str, frozenset[bytes]]


class Engine(Protocol):
    """What of the engine's care this module looks at."""

    state: EngineState


class KnownFiles:
    """The rules, their lists, and the thread that keeps the running engine's lists true."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dir = settings.state / "known"
        self._told: Lists = {name: _parse(self._dir / f"{name}.lst") for name in (HASHES, LENGTHS, SWITCH)}
        self._seen: tuple[object, ...] = ()
        self._writing = threading.Lock()
        """The engine's thread and that of this module write the same files."""

    def choose(self, base: RuleSet) -> RuleSet:
        """The rule set with the rules about known files; without them where nothing is to be stopped.

        Raises:
            DeviceFault: their files cannot be written.

        """
        if self._settings.inspection.mode == "detect":
            return base
        if _UNSAFE.search(str(self._dir)):
            log.warning("no rule can name %s: known files are left to the gate", self._dir)
            return base
        path = self._dir / "known.rules"
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            self._write(self._files())
            write_atomic(path, "".join(f"{line}\n" for line in rules(self._dir)).encode(), 0o644)
        except OSError as err:
            raise DeviceFault(f"The rules about known files cannot be written to {self._dir}: {err.strerror}.") from err
        return replace(base, known=path)

    def run(self, stop: threading.Event, engine: Engine) -> None:
        """Keep the engine's lists true until `stop`."""
        while not stop.wait(LOOK_S):
            try:
                self.turn(engine)
            except (PeerError, OSError) as err:
                log.warning("known files: %s", err)
                self._seen = ()
                stop.wait(1.0)

    def turn(self, engine: Engine) -> None:
        """One look: when another list or another engine is there, tell it.

        Raises:
            PeerError: the engine does not answer.
            OSError: a list could not be written.

        """
        state = engine.state
        if self._settings.inspection.mode == "detect" or state.phase != "running":
            return
        seen = (state.starts, state.reloads, state.pid, stamp(self._settings.known_files), self._set_id())
        if seen == self._seen:
            return
        files = self._files()
        wanted = lists(files)
        fresh = seen[:3] != self._seen[:3]
        requests = []
        for name, now in wanted.items():
            requests += datasets.changes(name, _kind(name), self._told[name], now, fresh=fresh)
        self._write(files)
        if requests:
            control.ask_all(self._settings.control_socket, requests, COMMANDS_S)
        self._told, self._seen = wanted, seen

    def _files(self) -> list[known.KnownFile]:
        try:
            return known.read(self._settings.known_files, self._set_id())
        except RejectedInput as err:
            log.warning("%s", err)
            return []

    def _write(self, files: list[known.KnownFile]) -> None:
        """What the engine reads at its next reload or start."""
        contents = {f"{name}.lst": datasets.render(_kind(name), sorted(e)) for name, e in lists(files).items()}
        large = [NO_FILE, *(file.sha256.encode() for file in files if file.size >= SMALL.stop)]
        for name, data in (contents | {LARGE: datasets.render("sha256", large)}).items():
            path = self._dir / name
            with self._writing:
                if not path.exists() or path.read_bytes() != data:
                    write_atomic(path, data, 0o644)

    def _set_id(self) -> str:
        try:
            return (self._settings.sets / "current").readlink().name
        except OSError:
            return ""


def lists(files: Iterable[known.KnownFile]) -> Lists:
    """What the engine's changing lists hold for these files."""
    small = [file for file in files if file.size in SMALL]
    return {
        HASHES: frozenset(file.sha256.encode() for file in small),
        LENGTHS: frozenset(str(file.size).encode() for file in small),
        SWITCH: ON if small else frozenset(),
    }


def rules(directory: Path) -> list[str]:
    """The engine's rules, which read their lists in `directory`; its name has nothing of `_UNSAFE`."""

    def listed(name: str) -> str:
        return f"dataset:isset,{name},type {_kind(name)},load {directory / name}.lst,memcap 64mb,hashsize 4096; "

    found = f"file.data; to_sha256; {listed(HASHES)}"
    no_length = 'http.header_names; content:!"|0d 0a|Content-Length|0d 0a|"; nocase; '
    switched = f'http.stat_code; pcrexform:"(?s)^(.)"; {listed(SWITCH)}'
    # A file that comes as it is has its length; a packed one or one without a length may be any.
    bodies = [
        ("http1", f"flow:to_client; http.content_len; {listed(LENGTHS)}{found}"),
        ("http1", f'flow:to_client; {switched}http.header_names; content:"Encoding|0d 0a|"; nocase; {found}'),
        ("http1", f"flow:to_client; {switched}{no_length}{found}"),
        ("http1", f'flow:to_server; http.method; pcrexform:"(?s)^(.)"; {listed(SWITCH)}{found}'),
        # The engine asks these once for a small file, at its end.
        *((protocol, found) for protocol in ("http2", "smtp")),
        *((protocol, f"filesha256:{directory / LARGE}; ") for protocol in ("http", "smtp")),
    ]
    # By FTP and SMB a file ends for the engine when its connection or the file is closed, after its last byte, which
    # the gate has looked at by then: left to the gate.
    mark = f"{marks.REFUSE | KNOWN_FILE << marks.WHY_SHIFT:#x}/{marks.REFUSE | marks.WHY:#x}"
    return [
        f'alert {protocol} any any -> any any (msg:"sekisho known file"; {body}nfq_set_mark:{mark}; noalert; '
        f"sid:{sid}; rev:1;)"
        for sid, (protocol, body) in enumerate(bodies, 9000040)
    ]


def _kind(name: str) -> datasets.KIND:
    return "sha256" if name == HASHES else "string"


def _parse(path: Path) -> frozenset[bytes]:
    """A list as an earlier life of this daemon left it: the engine that still runs may hold it."""
    try:
        return frozenset(datasets.parse(_kind(path.stem), path.read_bytes()))
    except (OSError, ValueError):
        return frozenset()
