"""A policy in force: brought to the engine with the rule set, and kept true while addresses and hours change.

`choose` runs in the engine's thread and adds the policy to the signatures it is going to load. `run` is a thread of
its own: it fills the lists of the running engine through its command socket and hands packet rules to the kernel, when
a device gets an address, a schedule turns, an exception ends, or the engine was started or reloaded. What the customer
decided at the centre (`ordered`) is laid over the file. A policy that is refused changes nothing; what was in force
stays, and an event says why.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from sekisho.policy.ordered import Document, Ordered
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


@dataclass(frozen=True)
class _Made:
    """A policy, and what of the centre's is in it."""

    plan: Plan
    document: Document


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
        self._last: _Made | None = None
        self._orders = Ordered(settings, report)
        self._pending: _Made | None = None
        """Given to the engine, and not seen in force yet."""
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
        found = self._plan()
        if found is None:
            return replace(base, rejection=f"{base.rejection} {self.refused}".strip())
        made = found.plan
        state = made.state(self.roster(), self._now(), self._zone(made))
        for name, entries in (*build.old_lists(made, state), *state.sets.items()):
            self._told.setdefault(name, set()).update(entries)
        build.write(made, state)
        signatures, count = self._signatures(base, made)
        self._plans[made.directory / build.RULES] = made
        self._last = self._pending = found
        return RuleSet(
            f"{base.id}+{made.directory.name}", signatures, count, f"{base.rejection} {self.refused}".strip(),
            made.directory / build.RULES,
        )  # fmt: skip

    def _plan(self) -> _Made | None:
        """The policy in the file with the centre's over it; where that is refused the one in force, or the last ever.

        The newest document of the centre's is refused alone where the file goes with the one before.
        """
        tries = self._orders.tries()
        for document in tries:
            try:
                made = self._make(self._file, document)
            except RejectedInput as err:
                self.refused = str(err)
                continue
            if document is not tries[0]:
                log.warning("the centre's settings are refused: %s", self.refused)
                self._orders.refuse(tries[0], "cannot_be_made")
            self.refused = ""
            return made
        if len(tries) > 1:
            self._orders.refuse(tries[0], "own_policy")
        if self._last is not None:
            return self._last
        if not self._good.exists():
            return None
        try:
            return self._make(self._good, tries[-1])
        except RejectedInput as err:
            self.refused += f" The last good policy is refused as well: {err}"
            return None

    def _make(self, file: Path, document: Document) -> _Made:
        detect = self._settings.inspection.mode == "detect"
        base, parent = self._file.parent, self._settings.policies
        return _Made(build.plan(file, parent, base=base, detect=detect, overlay=document.overlay), document)

    def run(self, stop: threading.Event, engine: Engine) -> None:
        """Keep the policy true until `stop`."""
        while not stop.wait(LOOK_S):
            try:
                if self._orders.waits():
                    engine.request_reload()
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
        pending = self._pending  # before the engine's phase: it is set while that is not "running"
        if engine.state.phase != "running":
            return
        proven = engine.proven
        if pending is not None:
            self._judge(pending, proven, engine)
        made = self._plans.get(proven.policy) if proven is not None and proven.policy is not None else None
        if made is None:
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
        if fresh and (last := self._last) is not None and made is last.plan:
            self._settle(last)
        self._turn, self._stamp, self._next = turn, stamp, state.next_change

    def _judge(self, pending: _Made, proven: RuleSet | None, engine: Engine) -> None:
        """See whether the engine loaded what it was given; what the centre added is the likeliest cause if not."""
        if self._pending is pending:
            self._pending = None
        if proven is not None and proven.policy == pending.plan.directory / build.RULES:
            return
        if pending.document.number and pending is self._last:
            self._orders.refuse(pending.document, "engine")
            if proven is None:
                engine.request_reload()

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

    def _settle(self, last: _Made) -> None:
        """The newest policy is in force: forget the others."""
        made = last.plan
        self._plans = {made.directory / build.RULES: made}
        build.prune(self._settings.policies, {made.directory})
        write_atomic(self._good, made.text.encode())
        entries = len(made.compiled.book.lines)
        self._report(Health(at=utc.text(self._now()), part="policy", state="in_force", rules=entries))
        self._orders.settle(last.document, made.overruled)

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
