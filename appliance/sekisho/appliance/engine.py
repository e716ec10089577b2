"""The engine's life: start, adopt, restart when it dies, end.

Owns the Suricata process and the size of its log files; what it works with is inforce.py's, and how another is put in
its place while packets pass renewal.py's. Runs in one thread of the daemon; the `request_` calls are for others, and
`account` says what the engine is to have (watch.py looks at that, every few seconds).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from sekisho.appliance import berth, control, logs, renewal, store
from sekisho.appliance.account import Account, EngineState
from sekisho.appliance.berth import Binary
from sekisho.appliance.core import latency, utc
from sekisho.appliance.core.errors import DeviceFault, PeerError, SekishoError
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.inforce import InForce
from sekisho.appliance.leading import Lead
from sekisho.appliance.post import Post
from sekisho.appliance.proof import Prover
from sekisho.appliance.rendering import Load, RuleSet
from sekisho.telemetry.events import Event, Health

__all__ = ["Account", "Engine", "EngineState", "RuleSet"]

FIRST_BACK_OFF_S: Final = 0.2
MAX_BACK_OFF_S: Final = 30.0
GOOD_RUN_S: Final = 60.0
LOOK_S: Final = 0.2

log = logging.getLogger(__name__)


class Engine:
    """Suricata under care."""

    def __init__(
        self,
        settings: Settings,
        choose: Callable[[], RuleSet],
        report: Callable[[Event], None],
        lead: Lead | None = None,
    ) -> None:
        self.state = EngineState()
        self._settings = settings
        self._report = report
        self._dir = settings.control_socket.parent
        self._lead = lead or Lead(settings)
        self._posts = {each.name: Post(settings, each) for each in self._lead.berths}
        self._rules = InForce(settings, self.state, self._post, choose, report)
        self._reload = threading.Event()
        self._repair = threading.Event()
        self._restart = threading.Event()
        self._renew = threading.Event()
        self._may_restart = False
        """Where there is no room for two engines the renewal may be a restart."""
        self._planned = False
        self._first = True
        self._other = False
        """The engine was found with another configuration than it is to have."""
        self._former: Binary | None = None
        """The program to be the engine instead of this release's, which did not last."""
        self._renewed_from: Binary | None = None
        self._renewed_at = 0.0
        self.leaves = False
        """When `run` ends a successor of this daemon is to have the engine."""

    @property
    def _post(self) -> Post:
        """Where the packets are led to."""
        return self._posts[self._lead.now.name]

    @property
    def prover(self) -> Prover:
        return self._rules.post.prover

    @property
    def sent_before(self) -> int | None:
        """Canaries flown before this engine was started; None where it was found running."""
        return self._rules.post.sent_before

    @property
    def account(self) -> Account:
        """What the engine is to have, and what became of the loads so far."""
        return self._rules.account

    @property
    def proven(self) -> RuleSet | None:
        """The set that was last seen to load whole; None before the first."""
        proven = self._rules.proven
        return proven.wanted if proven is not None else None

    def request_reload(self) -> None:
        """Choose the rule set anew and load it live."""
        self._reload.set()

    def request_repair(self) -> None:
        """Load what should be in force once more; where that does not help, start another engine with it."""
        self._repair.set()

    def request_renew(self, *, may_restart: bool = False) -> None:
        """Put another engine, of the program of this release, in the place of the one that works."""
        self._may_restart = may_restart
        self._renew.set()

    def request_restart(self) -> None:
        """End the engine (it hangs); it is started again at once."""
        self._restart.set()

    def run(self, stop: threading.Event) -> None:
        """Keep the engine alive until `stop`, then end it, unless a successor of this daemon is to have it."""
        back_off = FIRST_BACK_OFF_S
        self._prepare()
        while not stop.is_set():
            try:
                started = time.monotonic()
                self._start(stop)
                if stop.is_set():
                    break
                self._attend(stop)
                if time.monotonic() - started > GOOD_RUN_S:
                    back_off = FIRST_BACK_OFF_S
            except SekishoError as err:
                log.error("engine: %s", err)
                self._health("failed", str(err))
                self._post.kill()
            if stop.is_set():
                break
            self._gone()
            stop.wait(back_off)
            back_off = min(back_off * 2, MAX_BACK_OFF_S)
        if self.leaves:
            self._health("left", "")
            return
        for post in self._posts.values():
            post.stop()
        self._gone()
        self._health("stopped", "")

    def _gone(self) -> None:
        self.state.phase, self.state.pid = "stopped", 0
        self._rules.gone()

    def _prepare(self) -> None:
        for path in (self._dir, self._settings.eve.parent, self._settings.files_socket.parent):
            path.mkdir(parents=True, exist_ok=True)
        if warning := store.mount(self._settings.filestore, self._settings.inspection.memory_mb):
            log.warning("%s", warning)

    def _start(self, stop: threading.Event) -> None:
        self.state.phase = "starting"
        load, new = self._rules.first()
        self._rules.post = self._post
        first, self._first = self._first, False
        adopted = first and self._adopt(load)
        if first and (left := self._posts[self._lead.other.name]).try_adopt():
            renewal.retire(left)  # our predecessor was killed while it put one in the place of the other
        if adopted:
            return
        program = self._program()
        self._post.launch(load, program)
        self._restart.clear()  # these were meant for the former one
        self._repair.clear()
        self.state.starts += 1
        self._is_engine(self._post)
        if not self._post.answers(lambda: not stop.is_set()):
            return
        self._rules.begun(load, new=new)
        self.state.phase = "running"
        latency.short_slices(self.state.pid, "W-NFQ")
        self._health("started", "")

    def _program(self) -> Binary:
        return self._former or berth.binary()

    def _is_engine(self, post: Post) -> None:
        """Everybody who asks is led to this one."""
        try:
            post.berth.lead_commands(self._settings)
        except DeviceFault as err:  # it inspects all the same, and the link is tried again
            log.error("%s", err)
        self.state.pid = post.process.pid if post.process is not None else 0
        program = berth.program_of(self.state.pid)
        self.state.binary = str(program.path) if program is not None else ""

    def _adopt(self, load: Load) -> bool:
        """Go on with the engine of a killed predecessor; with other rules than it left they are loaded live.

        Where it is another program than it is to be, or has another configuration, or cannot be given the rules for a
        fault of this machine, it goes on until it is renewed.
        """
        post = self._post
        if not post.try_adopt() or post.process is None:
            return False
        other = same = faulty = False
        try:
            left, same = post.loader.left(load), self._program().runs_as(post.process.pid)
            other = left == "other" or (left == "rules" and not same)
            well = other or self._rules.found(load)
        except PeerError as err:
            log.warning("the engine found running is replaced: %s", err)
            well = False
        except SekishoError as err:  # another would fare no better
            log.error("the engine found running keeps what it has: %s", err)
            well = faulty = True
        if not well:
            post.stop()
            return False
        self._other = other or faulty
        self._is_engine(post)
        self.state.phase = "running"
        self._health("adopted", "")
        if self._other or not same:
            self.request_renew(may_restart=other)
        return True

    def _attend(self, stop: threading.Event) -> None:
        """Watch a running engine; returns when it has ended or is to end."""
        while self._post.alive(LOOK_S):
            if stop.is_set():
                return
            if self._restart.is_set():
                self._restart.clear()
                log.error("the engine hangs, or has let go of its queues, and is restarted")
                self._post.kill()
                break
            if self._renew.is_set():
                self._renew.clear()
                self._former = None
                self._renewal(stop)
            elif self._reload.is_set() or self._rules.waits():
                self._reload.clear()
                self._rules.reload()
            elif self._repair.is_set():
                self._repair.clear()
                self._rules.mend()
            elif self._rules.post.loader.muting_changed():
                self._rules.mute()
            self._tidy()
            self._roll_logs()
        if stop.is_set() or self._planned:
            self._planned = False
            return
        self._health("died", "")
        if self._renewed_from is not None and time.monotonic() - self._renewed_at < GOOD_RUN_S:
            self._former, self._renewed_from = self._renewed_from, None
            self._say_renewal(
                "The new engine died soon after it had been put in place. The former program is used again."
            )

    def _tidy(self) -> None:
        """What a change of engines could not do at once."""
        if berth.led(self._settings) != self._post.berth.name:
            with suppress(DeviceFault):
                self._post.berth.lead_commands(self._settings)
        left = self._posts[self._lead.other.name]
        if left.alive() and not self._lead.unsure:
            renewal.retire(left)

    def _renewal(self, stop: threading.Event) -> None:
        """Put another engine in the place of this one; if that does not come about this one goes on."""
        old, new = self._post, self._posts[self._lead.other.name]
        began, former = time.monotonic(), berth.program_of(self.state.pid)
        self.state.renewing = True
        try:
            load, _ = self._rules.first()
            proof = renewal.renew(old, new, load, self._program(), self._lead, lambda: not stop.is_set())
        except SekishoError as err:
            if not stop.is_set():
                self._not_renewed(old, err)
        else:
            self._is_engine(new)
            self._rules.moved(new, load, proof)
            self._restart.clear()  # these were meant for the former one
            self._repair.clear()
            self._other = False
            self._renewed_at, self._renewed_from = time.monotonic(), former
            self.state.renewal = ""
            self._health(
                "renewed", f"Another engine was started, proven and put in place in {self._renewed_at - began:.1f} s."
            )
            renewal.retire(old)
        finally:
            self.state.renewing = False
            self.state.renewals += 1

    def _not_renewed(self, old: Post, err: SekishoError) -> None:
        if isinstance(err, renewal.Scarce) and self._may_restart:
            self._say_renewal(f"{err} The engine was restarted instead, and inspected nothing meanwhile.")
            self._planned = True
            old.stop()
            return
        self._say_renewal(f"{err} The former engine goes on.")
        if self._other and old.alive():
            try:
                self._rules.given(self._rules.first()[0])
            except SekishoError as given_err:
                log.error("the former engine keeps what it has: %s", given_err)
                self._health("rules_refused", str(given_err))

    def _say_renewal(self, why: str) -> None:
        self.state.renewal = why
        log.error("renewal: %s", why)
        self._health("renew_refused", why)

    def _roll_logs(self) -> None:
        eve = logs.set_aside(self._settings.eve, keep_unread=True)
        files = logs.set_aside(self._settings.files_log, keep_unread=False)
        if eve or files:
            control.ask(self._post.berth.socket, "reopen-log-files")
        if eve == "dropped":
            self._health("events_dropped", f"{logs.ROLL_BYTES >> 20} MB or more of unread events made room.")

    def _health(self, state: str, detail: str) -> None:
        log.info("engine %s %s", state, detail)
        rules = self.state.rules_loaded
        self._report(Health(at=utc.now(), part="engine", state=state, detail=detail[:500], rules=rules))
