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
from sekisho.appliance.loading import Hangs
from sekisho.appliance.post import Post
from sekisho.appliance.proof import Proof, Prover
from sekisho.appliance.rendering import Load, RuleSet
from sekisho.appliance.turning import Turning
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
        self._deaf = False
        """The engine inspects, and takes no orders any more."""
        self._spare: Binary | None = None
        """The program that worked last, of those that are not this release's."""
        self._own_failed = False
        """Of the two programs this release's failed last, in a renewal, at its start or soon after."""
        self._began = 0.0
        """When this daemon put the engine to work; 0: it found it."""
        self._renewed = False
        """It was put in the place of another."""
        self.leaves = False
        """When `run` ends a successor of this daemon is to have the engine."""

    @property
    def _post(self) -> Post:
        """Where the packets are led to."""
        return self._posts[self._lead.now.name]

    @property
    def prover(self) -> Prover:
        return self._rules.post.prover

    def turning(self) -> Turning:
        """What tells, from now on, whether the engine comes to load."""
        return Turning(self._rules.post.berth)

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
        try:
            self._post.launch(load, program)
            self._settled()
            self.state.starts += 1
            self._is_engine(self._post)
            if not self._post.answers(lambda: not stop.is_set()):
                return
            self._rules.begun(load, new=new)
        except SekishoError:
            self._blame(program)
            raise
        self.state.phase = "running"
        latency.short_slices(self.state.pid, "W-NFQ")
        self._worked(began=time.monotonic())
        again = f"This release's program failed. {program.path} is used again, which worked before."
        self._health("started", again if program == self._spare else "")

    def _settled(self) -> None:
        """What was asked for was meant for the former engine."""
        self._restart.clear()
        self._repair.clear()
        self._deaf = False

    def _program(self) -> Binary:
        """The release's, or the one that worked before it where the release's failed and that one did not since."""
        spare = self._spare if self._spare is not None and self._spare.path.is_file() else None
        if spare is not None and self._own_failed:
            return spare
        try:
            return berth.binary()
        except DeviceFault:
            if spare is None:
                raise
            return spare

    def _blame(self, program: Binary | None) -> None:
        """It failed: the next turn is the other's."""
        self._own_failed = program != self._spare

    def _worked(self, *, began: float, renewed: bool = False) -> None:
        """The engine that is in place now was proven, or was at work when it was found."""
        self._began, self._renewed = began, renewed
        program = self._post.program
        with suppress(DeviceFault):
            own = berth.binary()
            if program == own or own.runs_as(self.state.pid):
                return
        if program is not None:
            self._spare = program

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
        except PeerError as err:  # it may inspect all the same
            log.error("the engine found running takes no orders: %s", err)
            well = faulty = self._deaf = True
        except SekishoError as err:  # another would fare no better
            log.error("the engine found running keeps what it has: %s", err)
            well = faulty = True
        if not well:
            post.stop()
            return False
        self._other = other or faulty
        self._is_engine(post)
        self.state.phase = "running"
        self._worked(began=0.0)
        self._health("adopted", "")
        if self._other or not same:
            self.request_renew(may_restart=other or self._deaf)
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
            try:
                self._turn(stop)
            except Hangs as err:
                if not self._post.alive():
                    break
                self._deaf = True
                self._health("hangs", f"{err} Another is put in its place.")
                self._renewal(stop)
        if stop.is_set() or self._planned:
            self._planned = False
            return
        self._health("died", "")
        if self._began and time.monotonic() - self._began < GOOD_RUN_S:
            self._blame(self._post.program)
            if self._renewed and self._own_failed and self._spare is not None:
                self._say_renewal(
                    "The new engine died soon after it had been put in place. The former program is used again."
                )

    def _turn(self, stop: threading.Event) -> None:
        """Do one thing that was asked for, or that has come about.

        Raises:
            Hangs: the engine goes on, and takes no orders any more; so for PeerError, and it may have ended.
            DeviceFault: it goes on without its rules.

        """
        if self._renew.is_set():
            self._renew.clear()
            self._own_failed = False
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
        began = time.monotonic()
        self.state.renewing = True
        try:
            self._put_in_place(new, stop)
        except SekishoError as err:
            if not stop.is_set():
                self._not_renewed(old, new, err)
        else:
            self._settled()
            self._worked(began=time.monotonic(), renewed=True)
            self._other = False
            self.state.renewal, self.state.scarce = "", False
            took = self._began - began
            self._health("renewed", f"Another engine was started, proven and put in place in {took:.1f} s.")
            renewal.retire(old)
        finally:
            self.state.renewing = False
            self.state.renewals += 1
            self._rules.answered()

    def _put_in_place(self, new: Post, stop: threading.Event) -> None:
        """With what was to be loaded, or where that fails, with what was proven.

        Raises:
            SekishoError: as `renewal.renew`.

        """
        load, fresh = self._rules.wanted()
        why = ""

        def renewed(load: Load) -> Proof:
            return renewal.renew(self._post, new, load, self._program(), self._lead, lambda: not stop.is_set())

        try:
            proof = renewed(load)
        except SekishoError as err:
            if not fresh or self._rules.proven is None or isinstance(err, renewal.Scarce) or stop.is_set():
                raise
            why, refused = str(err), load
            load, fresh = self._rules.first()
            proof = renewed(load)
        self._is_engine(new)
        self._rules.moved(new, load, proof, new=fresh)
        if why:
            self._rules.refuse(refused, why)

    def _not_renewed(self, old: Post, new: Post, err: SekishoError) -> None:
        self.state.scarce = scarce = isinstance(err, renewal.Scarce)
        if not scarce:
            self._blame(new.program)
        if self._deaf or (scarce and self._may_restart):
            self._say_renewal(f"{err} The engine was restarted instead, and inspected nothing meanwhile.")
            self._planned = True
            if self._rules.pending:
                self.request_reload()
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
            try:
                control.ask(self._post.berth.socket, "reopen-log-files")
            except PeerError as err:
                raise Hangs(f"It does not begin new files for its events. {err}") from err
        if eve == "dropped":
            self._health("events_dropped", f"{logs.ROLL_BYTES >> 20} MB or more of unread events made room.")

    def _health(self, state: str, detail: str) -> None:
        log.info("engine %s %s", state, detail)
        rules = self.state.rules_loaded
        self._report(Health(at=utc.now(), part="engine", state=state, detail=detail[:500], rules=rules))
