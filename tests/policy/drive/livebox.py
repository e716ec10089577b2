"""A box's policy between its files and an engine that loads whatever it is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sekisho.appliance.core.settings import Inspection, Paths, Settings
from sekisho.appliance.core.settings import Policy as PolicyFile
from sekisho.appliance.engine import EngineState, RuleSet
from sekisho.policy.live import Live
from sekisho.policy.model import Netfilter
from sekisho.telemetry.events import Event


@dataclass
class Loaded:
    """An engine that has loaded whatever it was given."""

    proven: RuleSet | None = None
    state: EngineState = field(default_factory=lambda: EngineState(phase="running"))

    def request_reload(self) -> None:
        raise AssertionError("nothing here needs a reload")


class Box:
    def __init__(self, root: Path, mode: str = "block") -> None:
        (root / "signatures.rules").write_text('alert tcp any any -> any any (msg:"a"; sid:5; rev:1;)\n')
        self.file = root / "policy.toml"
        self.base = RuleSet("set", root / "signatures.rules", 1)
        paths = Paths(run=str(root / "run"), state=str(root / "state"))
        inspection = Inspection(mode=mode)  # type: ignore[arg-type]
        self.settings = Settings(box="b", paths=paths, inspection=inspection, policy=PolicyFile(file=str(self.file)))
        self.restart()

    def restart(self) -> None:
        self.events: list[Event] = []
        self.enforced: list[Netfilter] = []
        self.engine = Loaded()
        self.live = Live(self.settings, self.events.append, self.enforced.append)

    def load(self) -> RuleSet:
        chosen = self.live.choose(self.base)
        self.engine.proven = chosen
        self.engine.state.reloads += 1
        self.live.turn(self.engine)
        return chosen

    def rules(self, chosen: RuleSet) -> str:
        return chosen.policy.read_text() if chosen.policy else ""
