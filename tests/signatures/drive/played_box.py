"""A box without its inspectors: what they would say of themselves is written in their place."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sekisho.appliance.core import standing
from sekisho.appliance.core.settings import Paths, Settings, Signatures
from sekisho.appliance.core.standing import Standing
from sekisho.signatures.model import SetInfo
from sekisho.telemetry import events


def settings_of(root: Path, trusted: bytes, channel: str = "", soak_minutes: float = 0.0) -> Settings:
    """A box's settings below `root`, with whom it believes."""
    anchor = root / "updates-root.json"
    anchor.parent.mkdir(parents=True, exist_ok=True)
    anchor.write_bytes(trusted)
    return Settings(
        box="b",
        signatures=Signatures(channel=channel, root=str(anchor), soak_minutes=soak_minutes),
        paths=Paths(run=str(root / "run"), state=str(root / "state")),
    )


@dataclass
class Inspectors:
    """Follow `current` as appliance and inspect do, and say so; `refusing` ids they take back."""

    settings: Settings
    refusing: set[str] = field(default_factory=set)
    mute: bool = False
    """They do not run."""
    stuck: bool = False
    """They run, and what they say of themselves proves nothing."""
    in_force: str = ""

    def turn(self, at: float | None = None) -> None:
        """One look at the link, and a word."""
        now = time.monotonic() if at is None else at
        link = self.settings.sets / "current"
        wanted = link.readlink().name if link.is_symlink() else ""
        refused = wanted if wanted in self.refusing else ""
        self.in_force = self.in_force if refused else wanted
        if self.mute:
            return
        info = self._info()
        for who, count in (("engine", info.suricata_rules), ("scanner", info.yara_rules)):
            said = Standing(
                at=now, set_id=self.in_force, rules=count, expected=count, canary_at=now,
                canary="missed" if self.stuck else "caught",
                refused=refused, why="2 rules failed" if refused else "",
            )  # fmt: skip
            standing.write(self.settings, who, said)  # type: ignore[arg-type]

    def _info(self) -> SetInfo:
        path = self.settings.sets / self.in_force / "set.json"
        if not self.in_force or not path.exists():
            return SetInfo(id="", suricata_rules=1, yara_rules=1, built_at="")
        return msgspec.json.decode(path.read_bytes(), type=SetInfo)

    def live(self, stop: threading.Event) -> None:
        """Until stopped, ten times a second."""
        while not stop.wait(0.1):
            self.turn()


def told(settings: Settings) -> list[events.Signatures]:
    """What telemetry would read."""
    path = settings.journals / "signatures.jsonl"
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with suppress(msgspec.MsgspecError):  # torn by a kill
            found.append(events.decode(line))
    return [event for event in found if isinstance(event, events.Signatures)]
