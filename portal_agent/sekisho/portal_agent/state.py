"""Is the office protected now, in one word, and the few facts behind it. Reads what the other daemons publish."""

from __future__ import annotations

import datetime as dt
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from sekisho.appliance import covering, status
from sekisho.appliance.core import standing, utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.core.standing import Standing
from sekisho.appliance.status import Status
from sekisho.signatures.keeper import counter, told
from sekisho.signatures.keeper.journal import Step

Word = Literal["protected", "watching", "partly", "starting", "open", "closed", "silent"]
Grade = Literal["fresh", "aging", "stale", "unknown", "own", "silent"]
"""`own`: no rules come from the centre; `silent`: the daemon that fetches them does not run."""
OLD_RULES_D: Final = 14
HOT_C: Final = 85.0
FULL: Final = 0.9
_CAP_BYTES: Final = 1 << 20
_THERMAL: Final = Path("/sys/class/thermal")
_MEMORY: Final = Path("/proc/meminfo")


class _Set(msgspec.Struct):
    built_at: str = ""
    suricata_rules: int = 0
    yara_rules: int = 0


class Updates(msgspec.Struct, frozen=True):
    """How fresh the rules are, as the daemon that fetches them says."""

    grade: Grade
    number: int = 0
    """Published number of the set the engine works with; 0: not known, or not of the centre."""
    checked: str = ""
    """When it was last learned which set is newest, local time; empty: never."""
    refused: int = 0
    """Number of a newer set that was refused or taken back; 0: none."""
    soaking: bool = False


class Facts(msgspec.Struct, frozen=True):
    """What the page's first screen tells; nothing here is about a person."""

    word: Word
    reason: str
    """The inspectors' word for what is wrong; empty while all is well."""
    engine: bool
    """Traffic passes the inspection engine."""
    gate: bool
    """Files wait for their verdict."""
    rules: int
    """Loaded by the engine, as it counts them; likewise `file_rules` by the scan workers, 0: not known."""
    file_rules: int
    rules_refused: bool
    rules_age_d: int | None
    updates: Updates
    off_today_s: float | None
    """Since midnight, as far as it was counted."""
    temperature_c: float | None
    disk: float
    """Share that is used."""
    memory: float | None

    @property
    def troubles(self) -> list[str]:
        """Keys of what else should be looked at."""
        found = {
            "rules_old": (self.rules_age_d is not None and self.rules_age_d > OLD_RULES_D)
            or self.updates.grade == "stale",
            "rules_refused": self.rules_refused or self.updates.refused > 0,
            "hot": (self.temperature_c or 0) >= HOT_C,
            "disk_full": self.disk >= FULL,
        }
        return [key for key, true in found.items() if true]


def facts(settings: Settings, now: dt.datetime) -> Facts:
    """As it is at `now` (local time)."""
    try:
        seen = status.try_read(settings)
    except RejectedInput:
        seen = None
    word = judge(seen, settings)
    live = seen if seen is not None and seen.fresh else None
    rules = _rules(settings)
    engine, scanner = (standing.try_read(settings, who) for who in ("engine", "scanner"))
    return Facts(
        word=word,
        reason=(live.engine_bypass.reason or live.gate_bypass.reason) if live else "",
        engine=bool(live and live.engine.phase in ("running", "reloading") and not live.engine_bypass.reason),
        gate=bool(live and not live.gate_bypass.reason),
        rules=engine.rules if engine else live.engine.rules_loaded if live else 0,
        file_rules=scanner.rules if scanner else 0,
        rules_refused=bool((live and live.engine.refused) or (engine and engine.refused)),
        rules_age_d=_age_d(rules.built_at, now) if rules else None,
        updates=_updates(settings, engine, now),
        off_today_s=_off_today(settings, now),
        temperature_c=_temperature(),
        disk=_disk(settings.state),
        memory=_memory(),
    )


def judge(seen: Status | None, settings: Settings) -> Word:
    """The one word. Only what was seen within the last seconds counts as well."""
    if seen is None or not seen.fresh:
        return "silent"
    if seen.engine_bypass.reason and seen.gate_bypass.reason:
        whole: Word = "closed" if seen.fail_mode == "closed" else "open"
        return "starting" if seen.engine.phase == "starting" and whole == "open" else whole
    if seen.engine_bypass.reason or seen.gate_bypass.reason:
        return "closed" if seen.fail_mode == "closed" else "partly"
    if seen.engine.phase not in ("running", "reloading"):
        return "starting"
    if not seen.engine.rules_loaded or seen.engine.rules_failed:
        return "partly"
    if any(_lacks(standing.try_read(settings, who)) for who in ("engine", "scanner")):
        return "partly"
    return "watching" if settings.inspection.mode == "detect" else "protected"


def _lacks(found: Standing | None) -> bool:
    """Whether an inspector says that it works without rules it should have; one that says nothing is judged above."""
    return found is not None and bool(found.set_id) and (found.rules < found.expected or found.failed > 0)


def _rules(settings: Settings) -> _Set | None:
    with suppress(OSError, msgspec.MsgspecError), (settings.sets / "current" / "set.json").open("rb") as source:
        return msgspec.json.decode(source.read(_CAP_BYTES), type=_Set)
    return None


def _updates(settings: Settings, engine: Standing | None, now: dt.datetime) -> Updates:
    found = counter.try_read(settings, time.monotonic())
    if found is None:
        return Updates("silent" if settings.signatures.channel else "own")
    number = found.number if engine is not None and engine.set_id and engine.set_id == found.set else 0
    refused = max(found.refused, default=0)
    grade: Grade = told.freshness(found.checked, utc.text(now))
    if not found.checked and not found.number:
        grade = "unknown" if settings.signatures.channel else "own"
    return Updates(
        grade=grade,
        number=number,
        checked=_local(found.checked),
        refused=refused if refused > found.number else 0,
        soaking=found.step == Step.SOAK,
    )


def _local(at: str) -> str:
    with suppress(ValueError):
        return f"{dt.datetime.fromisoformat(at).astimezone():%Y-%m-%d %H:%M}"
    return ""


def _age_d(built_at: str, now: dt.datetime) -> int | None:
    with suppress(ValueError, TypeError):
        days = (now - dt.datetime.fromisoformat(built_at)).days
        return days if days >= 0 else None
    return None


def _off_today(settings: Settings, now: dt.datetime) -> float | None:
    folder = covering.folder_of(settings)
    state = covering.load_state(folder)
    if state is None:
        return None
    hours = [*covering.load_hours(folder, covering.KEEP_HOURS), state.hour]
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    with suppress(ValueError):
        return sum(h.off_seconds for h in hours if dt.datetime.fromisoformat(h.hour) >= midnight)
    return None


def _temperature() -> float | None:
    found = []
    for zone in _THERMAL.glob("thermal_zone*/temp"):
        with suppress(OSError, ValueError):
            found.append(int(zone.read_text()) / 1000)
    return max((c for c in found if -40 < c < 150), default=None)


def _disk(folder: Path) -> float:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return 0.0
    return usage.used / (usage.used + usage.free) if usage.total else 0.0


def _memory() -> float | None:
    with suppress(OSError, ValueError, KeyError, ZeroDivisionError):
        lines = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
        total, free = (int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
        return 1 - free / total
    return None
