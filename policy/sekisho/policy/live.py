"""A policy in force: brought to the engine with the rule set, and kept true while addresses and hours change.

`choose` runs in the engine's thread and adds the policy to the signatures it is going to load. `run` is a thread of
its own: it fills the lists of the running engine through its command socket and hands packet rules to the kernel, when
a device gets an address, a schedule turns, an exception ends, or the engine was started or reloaded. A policy that is
refused changes nothing; what was in force stays, and an event says why.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import zoneinfo
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from sekisho.appliance import control, datasets
from sekisho.appliance.core import fsio, utc
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.engine import EngineState, RuleSet
from sekisho.policy import build, rewrite
from sekisho.policy.build import Plan
from sekisho.policy.model import Netfilter
from sekisho.policy.selectors import Roster
from sekisho.policy.state import State
from sekisho.telemetry.events import Event, Health

LOOK_S: Final = 0.2
COMMANDS_S: Final = 10.0
LOCAL_ZONE: Final = Path("/etc/localtime")
CLASSES: Final = Path("/etc/suricata/classification.config")
MAX_ROSTER_BYTES: Final = 16 << 20

log = logging.getLogger(__name__)


_Content = TypeVar("_Content")


class _Known(msgspec.Struct):
    kind: str = ""


class Engine(Protocol):
    """What of the engine's care this module looks at."""

    state: EngineState

    @property
    def proven(self) -> RuleSet | None: ...
    def request_reload(self) -> None: ...


class Live:
    """The policy of one box, from its file to the wire."""

    def __init__(
        self, settings: Settings, report: Callable[[Event], None], enforce: Callable[[Netfilter], None]
    ) -> None:
        self._settings = settings
        self._report = report
        self._enforce = enforce
        self._file = Path(settings.policy.file)
        self._good = settings.policies / "good.toml"
        """The policy that was last in force, for a start with a file that is refused."""
        self._plans: dict[Path, Plan] = {}
        """Those the engine may be using: the newest, and the one before until the newest is proven."""
        self._last: Plan | None = None
        self._told: dict[str, set[bytes]] = {}
        """What each of the engine's changing lists may hold."""
        self._turn: tuple[object, ...] = ()
        self._enforced: Netfilter | None = None
        self._next: dt.datetime | None = None
        self._stamp: tuple[object, ...] = ()
        self.refused = ""
        """Why the policy file is not what is in force; empty when it is."""

    def choose(self, base: RuleSet) -> RuleSet:
        """The signature set with the policy beside it; with the policy in force where the file is refused."""
        made = self._plan()
        if made is None:
            return replace(base, rejection=f"{base.rejection} {self.refused}".strip())
        state = made.state(self.roster(), self._now(), self._zone(made))
        for name, entries in (*build.old_lists(made, state), *state.sets.items()):
            self._told.setdefault(name, set()).update(entries)
        build.write(made, state)
        signatures, count = self._signatures(base, made)
        self._last = self._plans[made.directory / build.RULES] = made
        return RuleSet(
            f"{base.id}+{made.directory.name}", signatures, count, f"{base.rejection} {self.refused}".strip(),
            made.directory / build.RULES,
        )  # fmt: skip

    def _plan(self) -> Plan | None:
        """The policy in the file; where that is refused the one in force, or the last that ever was."""
        detect = self._settings.inspection.mode == "detect"
        try:
            made = build.plan(self._file, self._settings.policies, detect=detect)
            self.refused = ""
            return made
        except RejectedInput as err:
            self.refused = str(err)
        if self._last is not None or not self._good.exists():
            return self._last
        try:
            return build.plan(self._good, self._settings.policies, base=self._file.parent, detect=detect)
        except RejectedInput as err:
            self.refused += f" The last good policy is refused as well: {err}"
            return None

    def run(self, stop: threading.Event, engine: Engine) -> None:
        """Keep the policy true until `stop`."""
        while not stop.wait(LOOK_S):
            try:
                self.turn(engine)
            except (PeerError, DeviceFault, OSError) as err:
                log.warning("policy: %s", err)
                self._turn = ()  # everything is told again
                stop.wait(1.0)

    def turn(self, engine: Engine) -> None:
        """One look.

        Raises:
            PeerError: the engine does not answer.
            DeviceFault: the kernel refused the packet rules.
            OSError: a list could not be written.

        """
        proven = engine.proven
        made = self._plans.get(proven.policy) if proven is not None and proven.policy is not None else None
        if made is None or engine.state.phase != "running":
            return
        turn = (made.directory, engine.state.starts, engine.state.reloads, engine.state.pid)
        now = self._now()
        fresh = turn != self._turn
        stamp = self._look()
        if not fresh and stamp == self._stamp and (self._next is None or now < self._next):
            return
        state = made.state(self.roster(), now, self._zone(made))
        self._fill(made, state, fresh)
        if fresh or state.netfilter != self._enforced:
            self._enforce(state.netfilter)
            self._enforced = state.netfilter
        if fresh and made is self._last:
            self._settle(made)
        self._turn, self._stamp, self._next = turn, stamp, state.next_change

    def roster(self) -> Roster:
        """The devices as the inventory's two files know them; unreadable ones are empty."""
        by_ip = _read(self._settings.inventory, dict[str, str]) or {}
        known = _read(self._settings.state / "inventory.json", dict[str, _Known]) or {}
        return Roster(by_ip, {mac: device.kind for mac, device in known.items() if device.kind})

    def _fill(self, made: Plan, state: State, fresh: bool) -> None:
        """Bring the engine's lists from what they hold to what is true; after a (re)load it may hold either."""
        requests = []
        for name, entries in state.sets.items():
            before = self._told.get(name, set())
            now = set(entries)
            requests += datasets.changes(name, made.compiled.sets.kinds[name], before, now, fresh=fresh)
            if now != before:
                build.rewrite_list(made, name, entries)
        if requests:
            control.ask_all(self._settings.control_socket, requests, COMMANDS_S)
        self._told = {name: set(entries) for name, entries in state.sets.items()}

    def _settle(self, made: Plan) -> None:
        """The newest policy is in force: forget the others."""
        self._plans = {made.directory / build.RULES: made}
        build.prune(self._settings.policies, {made.directory})
        write_atomic(self._good, made.text.encode())
        entries = len(made.compiled.book.lines)
        self._report(Health(at=utc.text(self._now()), part="policy", state="in_force", rules=entries))

    def _signatures(self, base: RuleSet, made: Plan) -> tuple[Path, int]:
        """The signature file under the policy, and how many rules it makes; the set's own where nothing changes."""
        exceptions = made.compiled.signature_exceptions
        if not made.policy.signatures and not exceptions:
            return base.file, base.rules
        try:
            classes = CLASSES.read_text() if CLASSES.exists() else ""
            lines = base.file.read_text().splitlines()
            changed = rewrite.rewrite(
                lines, made.policy.signatures, exceptions, rewrite.priorities(classes), made.compiled.book.number
            )
            path = made.directory / f"signatures-{base.id[:16]}.rules"
            write_atomic(path, "".join(f"{line}\n" for line in changed).encode(), 0o644)
        except OSError as err:
            raise DeviceFault(f"The signatures cannot be rewritten: {err}.") from err
        return path, base.rules + len(changed) - len(lines)

    def _zone(self, made: Plan) -> dt.tzinfo:
        if made.policy.zone:
            return zoneinfo.ZoneInfo(made.policy.zone)
        try:
            with LOCAL_ZONE.open("rb") as source:
                return zoneinfo.ZoneInfo.from_file(source)
        except (OSError, ValueError):
            return dt.UTC

    @staticmethod
    def _now() -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    def _look(self) -> tuple[object, ...]:
        return tuple(fsio.stamp(path) for path in (self._settings.inventory, self._settings.state / "inventory.json"))


def _read(path: Path, kind: type[_Content]) -> _Content | None:
    try:
        if path.stat().st_size <= MAX_ROSTER_BYTES:
            return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        log.debug("%s is not usable", path)
    return None
