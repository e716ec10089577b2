"""Whether a set may be tried on this machine now, and the trial: it is built beside the one in force, or refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from sekisho.appliance.core import standing
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.settings import Settings
from sekisho.signatures import compiler, sources
from sekisho.signatures.keeper import news
from sekisho.signatures.keeper.journal import Kept
from sekisho.signatures.keeper.stage import Stage
from sekisho.signatures.model import SetInfo
from sekisho.signatures.published import Manifest
from sekisho.signatures.tester import suricata_version

UNKNOWN_MB: Final = 350
"""What a trial is taken to need where the centre did not measure the set."""
YARA_MB: Final = 96
SPARE_MB: Final = 64
MEMINFO: Final = Path("/proc/meminfo")
_VERSION: Final = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


def waits(settings: Settings, manifest: Manifest, now: float) -> str:
    """Why the trial must not begin now, for people; empty when it may. `now`: monotonic, seconds.

    The trial is a second engine for some seconds, and what is switched to must have somebody who proves it.
    """
    needed = (manifest.memory_mb or UNKNOWN_MB) + YARA_MB + SPARE_MB
    free = _available_mb()
    if free < needed:
        return f"The box has {free} MB of memory free; trying set {manifest.number} needs {needed}."
    names = (("engine", "inspection engine"), ("scanner", "file scanner"))
    away = [name for who, name in names if standing.try_read(settings, who, now) is None]  # type: ignore[arg-type]
    return f"The {' and the '.join(away)} does not run: nobody could prove set {manifest.number}." if away else ""


def unfit(manifest: Manifest) -> str:
    """Why this box's engine is not one the set is made for; empty when it is.

    Raises:
        DeviceFault: Suricata is absent.

    """
    told = suricata_version()
    found = _VERSION.search(told)
    own = _number(found[0]) if found else (0,)
    low, high = manifest.suricata_min, manifest.suricata_below
    if (low and own < _number(low)) or (high and own >= _number(high)):
        return (
            f"Set {manifest.number} needs Suricata from {low or 'any'} to below {high or 'any'}; this is {told[:60]}."
        )
    return ""


def build(settings: Settings, manifest: Manifest, stage: Stage) -> Kept:
    """The set, proven by this machine's engines, on the disk beside the one in force. Blocks for seconds.

    Raises:
        RejectedInput: the engines refuse it, or it misses a sample.
        DeviceFault: the disk does, or Suricata is absent.

    """
    wanted = compiler.Published(number=manifest.number, built=manifest.built, rules=manifest.rules, yara=manifest.yara)
    return kept(compiler.build(settings, stage.sources(manifest.number), wanted), manifest)


def kept(info: SetInfo | None, manifest: Manifest | None = None) -> Kept:
    """What is remembered of a set; of its manifest what it takes to make it again."""
    if info is None:
        return Kept()
    return Kept(
        id=info.id,
        number=info.number,
        built=info.built,
        rules=info.suricata_rules,
        yara=info.yara_rules,
        manifest=_short(manifest) if manifest is not None else None,
    )


def compare(settings: Settings, fresh: Kept, manifest: Manifest, active: Kept, stage: Stage) -> tuple[int, ...]:
    """Write down what is new in `fresh` against `active` (`news.Heading`); returns the rules that go on trial."""
    rules = settings.sets / fresh.id / "suricata.rules"
    before = settings.sets / active.id / "suricata.rules" if active.id else None
    folder = stage.sources(manifest.number)
    heading = news.Heading(
        id=fresh.id,
        news=news.compare(rules, before, folder / "yara", _yara_of(active, stage)),
        baseline=news.baseline(folder),
    )
    news.save(settings.channel / "news.json", heading)
    return news.on_trial(rules, before, set(manifest.new_drops), set(manifest.urgent))


def _yara_of(active: Kept, stage: Stage) -> Path | None:
    """Where the YARA sources of the set in force are."""
    if not active.number:
        return sources.SHIPPED / "yara"
    if active.manifest is None:
        return None
    folder = stage.sources(active.number)
    try:
        return (folder if folder.exists() else stage.unpack(active.manifest)) / "yara"
    except RejectedInput:
        return None


def _short(manifest: Manifest) -> Manifest:
    return Manifest(
        number=manifest.number, built=manifest.built, sha256=manifest.sha256, length=manifest.length,
        path=manifest.path, packed=manifest.packed, deltas=manifest.deltas, rules=manifest.rules, yara=manifest.yara,
        memory_mb=manifest.memory_mb,
    )  # fmt: skip


def _available_mb() -> int:
    for line in MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return 0


def _number(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
