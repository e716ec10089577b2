"""What the engine is given to work with, and what became of it: load, prove, take back, keep the last proven set.

An "OK" from Suricata proves nothing: after every start and load its own counts and a canary through each queue say what
is in force (proof.py), and a set that is not in force whole is taken back. All calls come from the engine's thread;
`account` may be read by others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from sekisho.appliance.account import Account, EngineState
from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput, SekishoError
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.loading import Hangs
from sekisho.appliance.post import Post
from sekisho.appliance.proof import Proof
from sekisho.appliance.rendering import Load, RuleSet
from sekisho.telemetry.events import Event, Health

log = logging.getLogger(__name__)


class InForce:
    """The rules of one engine."""

    def __init__(
        self,
        settings: Settings,
        state: EngineState,
        post: Post,
        choose: Callable[[], RuleSet],
        report: Callable[[Event], None],
    ) -> None:
        self.account = Account()
        self.post = post
        """The engine that works."""
        self.proven: Load | None = None
        """What was last seen to load whole; None before the first."""
        self.pending: tuple[Load, bool] | None = None
        """What the engine hangs over, and whether it is another set than before."""
        self._asked = False
        """Somebody waits for the end of a reload."""
        self._settings = settings
        self._state = state
        self._choose = choose
        self._report = report
        self._refused = ("", "")
        """The set that was refused since the last success, and why."""
        self._seen: Proof | None = None
        self._link = ""

    def waits(self) -> bool:
        """Whether another set was put in the place of the one that was chosen last."""
        return self._current_link() != self._link

    def gone(self) -> None:
        """There is no engine now."""
        self.account = replace(self.account, load=None, proof=None, changing=False)
        self.answered()

    def begun(self, load: Load, *, new: bool) -> None:
        """An engine has started with `load`.

        Raises:
            PeerError: it does not answer.

        """
        if self._prove(load, new=new):
            return
        self._health("rules_refused", self._refuse(load))
        if self.proven is not None and self.proven != load:
            self._load(self.proven)
        else:
            self._tell(load, self._seen)

    def found(self, load: Load) -> bool:
        """Whether an engine that runs already has `load` in force, or takes it live.

        Raises:
            PeerError: it does not answer.
            DeviceFault: the configuration cannot be written.

        """
        left = self.post.loader.left(load)
        return (left == "same" and self._prove(load, new=True)) or (left == "rules" and self._load(load, new=True))

    def given(self, load: Load) -> None:
        """Give an engine found with another configuration these rules at least; that stays to be seen in its file.

        Raises:
            PeerError: it does not answer.
            DeviceFault: it does not take them; so it goes on, and the account says what it should have.

        """
        try:
            if not self._load(load, new=True):
                raise DeviceFault(self._refuse(load))
        except SekishoError:
            self._tell(load, None)
            raise
        finally:
            self.post.loader.differs()

    def reload(self) -> None:
        """Choose the set anew and load it live.

        Raises:
            PeerError: the engine ended, or does not answer.
            DeviceFault: neither it nor the set before loads.

        """
        self._reload_live(self._chosen, new=True)

    def first(self) -> tuple[Load, bool]:
        """What to start with, and whether it is new: after a crash what was proven is loaded again at once."""
        if self.proven is not None:
            try:
                return self.post.loader.prepare(self.proven.wanted), False
            except RejectedInput as err:
                log.error("the last proven set is gone: %s", err)
        return self.post.loader.prepare(self._chosen()), True

    def wanted(self) -> tuple[Load, bool]:
        """What an engine is to start with that is put in the place of this one, and whether it is new."""
        return self.pending or self.first()

    def _reload_live(self, choose: Callable[[], RuleSet], *, new: bool) -> None:
        self._state.phase = "reloading"
        self._asked = True
        try:
            self._change(choose, new=new)
        except Hangs:  # what comes of it is seen in another engine
            raise
        except BaseException:
            self.answered()
            raise
        else:
            self.answered()
        finally:
            self._state.phase = "running"

    def answered(self) -> None:
        """What was asked for has come to its end, so or so."""
        self._state.reloads += self._asked
        self._asked, self.pending = False, None

    def _change(self, choose: Callable[[], RuleSet], *, new: bool) -> None:
        set_id = ""
        try:
            wanted = choose()
            set_id = wanted.set_id
            load = self.post.loader.prepare(wanted)
        except SekishoError as err:  # what runs is not touched for it
            self._refused = (set_id, str(err))
            self._state.refused = str(err)
            self._tell(self.account.load, self.account.proof)
            self._health("reload_refused", str(err))
            return
        try:
            if self._load(load, new=new):
                self._health("reloaded", "")
                return
        except Hangs:
            raise
        except PeerError as err:
            self._refuse(load, f"the engine ended or hung while it loaded it. {err}")
            raise
        except DeviceFault as err:  # its files cannot be written: what runs was not asked
            self._health("reload_refused", self._refuse(load, str(err)))
            self._tell(self.account.load, self.account.proof)
            return
        self._take_back(load, self._refuse(load))

    def mute(self) -> None:
        """Other rules are muted or on trial: the same set once more, live, unless it has none of them."""
        if self.proven is None:
            return
        wanted = self.proven.wanted
        try:
            load = self.post.loader.prepare(wanted)
        except SekishoError as err:
            log.error("the muted rules stay as they were: %s", err)
            return
        if load != self.proven:
            self._reload_live(lambda: wanted, new=False)

    def mend(self) -> None:
        """The engine lost its rules: give them to it again, or to another engine."""
        if self.proven is None:
            return
        try:
            load = self.post.loader.prepare(self.proven.wanted)
        except SekishoError as err:  # another engine would have no more to load
            log.error("the engine cannot be given its rules: %s", err)
            return
        if not self._load(load) or self.account.proof is None or not self.account.proof.whole(load):
            raise DeviceFault("The engine does not take its rules again. Another is started.")
        self._health("reloaded", "")

    def _take_back(self, load: Load, detail: str) -> None:
        if self.proven is None:  # it had no set whole before, and goes on as it did: another engine would not either
            self._tell(load, self._seen)
        elif not self._load(self.proven):
            raise DeviceFault(f"{detail} The earlier set does not load either.")
        self._health("reload_refused", detail)

    def _load(self, load: Load, *, new: bool = False) -> bool:
        sure = self._caught()
        self.account = replace(self.account, changing=True)
        if not load.file.exists():
            load = self.post.loader.prepare(load.wanted)
        try:
            self.post.loader.reload(load)
        except Hangs:
            self.pending = load, new
            self.account = replace(self.account, changing=False)  # it is looked at on: it has what it had
            raise
        return self._prove(load, new=new, sure=sure)

    def _caught(self) -> bool:
        """Whether canaries are caught now: only then does one that gets through speak against the next load."""
        load = self.account.load
        return load is not None and self.post.prover.look(load).canary == "caught"

    def _prove(self, load: Load, *, new: bool = False, sure: bool = False) -> bool:
        proof = self.post.prover.prove(load)
        self._state.rules_loaded, self._state.rules_failed = proof.loaded, proof.failed
        self._state.rules_expected, self._state.set_id = load.expected, load.wanted.id
        self._seen = proof
        if not proof.counts(load) or (sure and proof.canary == "missed"):
            return False
        self._is_in_force(load, proof, new=new)
        return True

    def moved(self, post: Post, load: Load, proof: Proof, *, new: bool) -> None:
        """Another engine works now, with `load`, proven; `new`: another set than before."""
        self.post = post
        self._is_in_force(load, proof, new=new)

    def refuse(self, load: Load, why: str) -> None:
        """Another engine did not work with `load`, and does with the one in force."""
        self._health("reload_refused", self._refuse(load, why))
        self._tell(self.account.load, self.account.proof)

    def _is_in_force(self, load: Load, proof: Proof, *, new: bool) -> None:
        self._state.rules_loaded, self._state.rules_failed = proof.loaded, proof.failed
        self._state.rules_expected, self._state.set_id = load.expected, load.wanted.id
        self.proven = load
        if new:
            self._refused = ("", load.wanted.rejection)
        self._state.refused = self._refused[1]
        self._tell(load, proof)
        self.post.loader.prune(load)

    def _tell(self, load: Load | None, proof: Proof | None) -> None:
        """A load has ended, so or so."""
        refused, why = self._refused
        self.account = Account(load, proof, loads=self.account.loads + 1, refused=refused, why=why)

    def _refuse(self, load: Load, why: str = "") -> str:
        state = self._state
        if not why:
            why = f"{state.rules_loaded} of {state.rules_expected} rules loaded, {state.rules_failed} failed."
            if state.rules_loaded == state.rules_expected and not state.rules_failed:
                why = "its rules were counted, but a packet that they must stop got through."
        detail = f"Rule set {load.wanted.id[:12]} was refused: {why}"
        self._refused = (load.set_id, detail)
        self._state.refused = detail
        return detail

    def _chosen(self) -> RuleSet:
        try:
            chosen = self._choose()
        finally:
            self._link = self._current_link()
        if chosen.rejection and chosen.rejection != self._state.refused:
            self._health("rules_refused", chosen.rejection)
        return chosen

    def _current_link(self) -> str:
        try:
            return str((self._settings.sets / "current").readlink())
        except OSError:
            return ""

    def _health(self, state: str, detail: str) -> None:
        log.info("engine %s %s", state, detail)
        rules = self._state.rules_loaded
        self._report(Health(at=utc.now(), part="engine", state=state, detail=detail[:500], rules=rules))
