"""A conversation with the hold engine, event by event: what went in, what must come out."""

from __future__ import annotations

from types import TracebackType

from sekisho.appliance.core import marks
from sekisho.inspect.gate import TO_CLIENT, Ends, Kind, Note
from sekisho.inspect.hold import Command, Event, HoldEngine, Meta, NoteRaised, Report, Scan
from sekisho.telemetry.events import Outcome

SHA = "ab" * 32
FLOW = 7
ENDS = Ends("10.0.0.10", 4000, "203.0.113.9", 80, marks.HTTP)
BLOCKING = frozenset(
    "unparsable encrypted too_large timeout damaged worker_lost memory not_stored depth bomb range".split()
)


class Playbook:
    """`with Playbook(engine) as play: play(event, *commands)`; says which step differs, and where none was made."""

    def __init__(self, engine: HoldEngine) -> None:
        self.engine = engine
        self.now = 100.0
        self._steps = 0

    def __call__(self, event: Event, *wanted: Command, after_s: float = 0.0) -> None:
        self.now += after_s
        self._compare(str(event), self.engine.handle(event, self.now), wanted)

    def due(self, *wanted: Command, after_s: float = 0.0) -> None:
        """Time passes and the engine is asked what is due."""
        self.now += after_s
        self._compare(f"due after {after_s} s", self.engine.due(self.now), wanted)

    def _compare(self, what: str, got: list[Command], wanted: tuple[Command, ...]) -> None:
        self._steps += 1
        if got != list(wanted):
            lines = [f"step {self._steps}: {what}", "wanted:", *map(str, wanted), "got:", *map(str, got)]
            raise AssertionError("\n  ".join(lines))

    def __enter__(self) -> Playbook:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            assert self._steps, "nothing was played"
            assert not self.engine.cases, f"left undecided: {self.engine.cases}"
            assert not self.engine.undecided, f"cut, and never said how it ended: {self.engine.undecided}"
            assert not self.engine.waiting, f"announced, and never judged: {self.engine.waiting}"


def bare(app: str = "http") -> Meta:
    """Who sends, without names."""
    return Meta("203.0.113.9", 80, "10.0.0.10", 4000, app)


def note(
    kind: Kind, length: int = 50, ends: Ends | None = ENDS, *,
    way: int = TO_CLIENT, base: int = 0, ended: bool = False, joined: bool = False,
) -> NoteRaised:  # fmt: skip
    """What the gate says about the one flow."""
    return NoteRaised(Note(kind, FLOW, way, length, base, ended, joined), ends)


def stream(
    token: int, length: int = 50, *, way: int = TO_CLIENT, app: str = "http", mend: bool = False, full: int = 0
) -> Scan:
    """A look at what is in the spool."""
    return Scan(token, "stream", FLOW, way, length=length, app=app, mend=mend, full=full, looked=full)


def report(
    token: int, outcome: Outcome, reason: str = "", rules: tuple[str, ...] = (), *,
    meta: Meta | None = None, sha: str = SHA, size: int = 10, ms: float = 0.0, inner: str = "",
) -> Report:  # fmt: skip
    """The one outcome of a file."""
    return Report(token, bare() if meta is None else meta, outcome, reason, rules, sha, size, ms, inner=inner)
