"""The thread that keeps the coverage account: reads the kernel's counters every minute, at the turn of the hour, and at
every change of what inspects, and keeps the account on disk.

`state/coverage/now.json` is the running hour with the last reading (rewritten at each reading, so that nothing is
counted twice or lost over a restart or a power cut), `state/coverage/HOUR.json` a full hour, kept for `KEEP_HOURS`.
An event is reported before the account forgets it: a crash just between may repeat it, word for word.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from sekisho.appliance import handed, meter
from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.coverage import Account, Away, Hour, Moment, State
from sekisho.appliance.handed import Alive, Handed, Shed, Sheds
from sekisho.appliance.watchdog import Queue
from sekisho.telemetry.events import Event, Health

READ_S: Final = 60.0
KEEP_HOURS: Final = 48
MAX_STATE_BYTES: Final = 64 << 20
MAX_CHANGES: Final = 64
"""Changes that wait to be read; a box that changes faster is accounted as away at once, and as back later."""

T = TypeVar("T")

log = logging.getLogger(__name__)


def folder_of(settings: Settings) -> Path:
    return settings.state / "coverage"


def moment() -> Moment:
    return Moment(datetime.now(UTC), time.monotonic())


class Change(NamedTuple):
    """What inspects from now on, and how each inspector was last seen at its queue."""

    away: Away
    engine: Alive
    gate: Alive


class Covering:
    """`note` is called by the watchdog's thread, `run` is a thread of the daemon."""

    def __init__(self, settings: Settings, report: Callable[[Event], None]) -> None:
        self._settings = settings
        self._folder = folder_of(settings)
        self._report = report
        self._changes: queue.Queue[Change] = queue.Queue(MAX_CHANGES)
        self._noted: Away | None = None
        self._crossed = 0
        self._alive = (Alive(), Alive())
        self._account: Account | None = None
        self._ill = ""
        self._sheds = (Sheds(), Sheds())
        self.leaves = False
        """When `run` ends a successor of this daemon is to have the engine: inspection does not stop."""

    def note(self, away: Away, queues: Mapping[int, Queue]) -> None:
        """Say what inspects now, and what its queues have taken; never waits."""
        # With its program a queue's count is gone: how it was last seen is told with the change. The frames are those
        # of the look before: none that came after these queues were read is missing in what came since.
        crossed, self._crossed = self._crossed, self._crossed_now()
        engine, gate = handed.taken(queues)
        self._alive = (
            self._alive[0] if away.engine else Alive(engine, crossed),
            self._alive[1] if away.gate else Alive(gate, crossed),
        )
        if away == self._noted:
            return
        try:
            self._changes.put_nowait(Change(away, *self._alive))
        except queue.Full:
            return  # asked again at the next look
        self._noted = away

    def run(self, stop: threading.Event) -> None:
        """Account until `stop`; without counters nothing is said, and that is reported once."""
        change = None
        while change is None and not stop.is_set():
            change = self._next_change(stop)  # the watchdog's first look
        if change is None:
            return
        self._try_read(change.away, change)
        while not stop.is_set():
            away = change.away
            change = self._next_change(stop) or change
            self._try_read(away, change)
        self._try_read(change.away, change, stopped=not self.leaves)

    def _next_change(self, stop: threading.Event) -> Change | None:
        until = time.monotonic() + min(READ_S, _to_the_hour(moment()))
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            try:
                return self._changes.get(timeout=min(left, 0.2))
            except queue.Empty:
                continue
        return None

    def _try_read(self, since: Away, now: Change, *, stopped: bool = False) -> None:
        try:
            self._read(since, now, stopped)
            self._ill = ""
        except (DeviceFault, OSError) as err:
            if str(err) != self._ill:
                self._ill = str(err)
                log.warning("%s", err)
                self._report(Health(at=utc.now(), part="coverage", state="failed", detail=str(err)[:200]))

    def _read(self, since: Away, now: Change, stopped: bool) -> None:
        bridge = self._settings.bridge
        meter.install(bridge.lan, bridge.wan, meter.own_addresses(bridge.name, bridge.lan, bridge.wan))
        reading, at = meter.read(), moment()
        if self._account is None:
            saved = load_state(self._folder)
            away = now.away
            begun = Account.begin(reading, at, away) if saved is None else Account.resume(saved, reading, at, away)
            self._account = begun
        else:
            self._account.read(reading, at, since, now.away, self._shed(since, now))
        self._keep(self._account, stopped)

    def _shed(self, since: Away, now: Change) -> Shed:
        engine, gate = handed.read()
        crossed = self._crossed_now()
        by_engine, engine_left = _follow(self._sheds[0], engine, since.engine, now.away.engine, now.engine, crossed)
        by_gate, gate_left = _follow(self._sheds[1], gate, since.gate, now.away.gate, now.gate, crossed)
        return Shed(by_engine, by_gate, engine_left, gate_left)

    def _crossed_now(self) -> int:
        return handed.crossed(self._settings.bridge.lan, self._settings.bridge.wan)

    def _keep(self, account: Account, stopped: bool) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        account.state.stopped = stopped
        for hour in account.finished:
            name = hour.hour.replace(":", "")
            write_atomic(self._folder / f"{name}.json", msgspec.json.encode(hour), 0o640)
        self._save(account)
        if account.finished:
            account.finished.clear()
            self._forget_old()
        if account.state.pending:
            for event in account.state.pending:
                self._report(event)
            account.state.pending = []
            self._save(account)

    def _save(self, account: Account) -> None:
        write_atomic(self._folder / "now.json", msgspec.json.encode(account.state), 0o640)

    def _forget_old(self) -> None:
        for path in sorted(self._folder.glob("2*.json"))[:-KEEP_HOURS]:
            path.unlink(missing_ok=True)


def _follow(sheds: Sheds, found: Handed, since: str, now: str, alive: Alive, crossed: int) -> tuple[float, float]:
    """The parts that one inspector's full queue shed, and that came when it had ended."""
    if since:
        sheds.forget()
    elif now.endswith("absent"):
        return sheds.end(found.asked, alive, crossed)
    return sheds.handle(found), 0.0


def _to_the_hour(at: Moment) -> float:
    return 3600.0 - (at.utc.minute * 60 + at.utc.second + at.utc.microsecond / 1e6)


def load_state(folder: Path) -> State | None:
    """The running hour as saved; None when there is none or it is damaged (counting begins anew)."""
    return _try_decode(folder / "now.json", State)


def load_hours(folder: Path, wanted: int) -> list[Hour]:
    """The newest full hours, oldest first."""
    found = [_try_decode(path, Hour) for path in sorted(folder.glob("2*.json"))[-wanted:]] if wanted else []
    return [hour for hour in found if hour is not None]


def _try_decode(path: Path, kind: type[T]) -> T | None:
    try:
        with path.open("rb") as source:
            data = source.read(MAX_STATE_BYTES + 1)
        return msgspec.json.decode(data, type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as err:
        log.warning("%s is not usable: %s", path, err)
        return None
