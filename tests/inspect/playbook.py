"""A conversation with the hold engine, event by event: what went in, what must come out."""

from __future__ import annotations

from types import TracebackType

from sekisho.inspect.hold import Command, Event, HoldEngine


class Playbook:
    """`with Playbook(engine) as play: play(event, *commands)`; says which step differs, and where none was made."""

    def __init__(self, engine: HoldEngine) -> None:
        self.engine = engine
        self.now = 100.0
        self._steps = 0

    def __call__(self, event: Event, *wanted: Command, after_s: float = 0.0) -> None:
        self.now += after_s
        self._steps += 1
        got = self.engine.handle(event, self.now)
        if got != list(wanted):
            lines = [f"step {self._steps}: {event}", "wanted:", *map(str, wanted), "got:", *map(str, got)]
            raise AssertionError("\n  ".join(lines))

    def __enter__(self) -> Playbook:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            assert self._steps, "nothing was played"
            assert not self.engine.cases, f"left undecided: {self.engine.cases}"
            assert not self.engine.undecided, f"cut, and never said how it ended: {self.engine.undecided}"
