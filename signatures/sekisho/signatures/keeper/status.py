"""What is in force, in the words of the inspectors that work with it, held against what the keeper thinks."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from sekisho.appliance.core import standing, utc
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.core.standing import Standing
from sekisho.signatures import compiler
from sekisho.signatures.keeper import counter, journal
from sekisho.signatures.keeper.journal import Step
from sekisho.signatures.keeper.told import Freshness, freshness
from sekisho.signatures.model import SetInfo

CHANGING: Final = (Step.SWITCHING, Step.PROVING, Step.ROLLBACK)
"""While these last, the inspectors may still work with the set before."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """`sekisho signatures status --json`. What is said of the set in force is the engine's own word."""

    id: str = ""
    """Of the set the engine works with; of the one on the disk where it does not run."""
    number: int = 0
    """Its published number; 0: it is not of the channel."""
    built: str = ""
    proven: bool = False
    """Whether both inspectors say: loaded whole, and stops what it must."""
    suricata_rules: int = 0
    """Rules the engine says it has loaded; likewise `yara_rules` of the scanner."""
    yara_rules: int = 0
    path: str = ""
    engine: Standing | None = None
    """None: it does not run, or says nothing."""
    scanner: Standing | None = None
    keeper: counter.Shown | None = None
    freshness: Freshness = "unknown"
    checked: str = ""
    wrong: list[str] = []
    """What does not agree, for people."""


def look(settings: Settings) -> Status:
    """As it is now."""
    now = time.monotonic()
    engine, scanner = standing.try_read(settings, "engine"), standing.try_read(settings, "scanner")
    on_disk = compiler.current(settings)
    wanted = engine.set_id if engine is not None else on_disk.id if on_disk is not None else ""
    info = compiler.find(settings, wanted)
    shown = counter.try_read(settings, now)
    checked = shown.checked if shown is not None else journal.load(settings.channel / "keeper.json").checked
    return Status(
        id=wanted,
        number=info.number if info is not None else 0,
        built=info.built or info.built_at if info is not None else "",
        proven=all(one is not None and one.proven and one.set_id == wanted for one in (engine, scanner)),
        suricata_rules=engine.rules if engine is not None else 0,
        yara_rules=scanner.rules if scanner is not None else 0,
        path=info.path if info is not None else "",
        engine=engine,
        scanner=scanner,
        keeper=shown,
        freshness=freshness(checked, utc.now()),
        checked=checked,
        wrong=_wrong(settings, engine, scanner, on_disk, shown),
    )


def _wrong(
    settings: Settings,
    engine: Standing | None,
    scanner: Standing | None,
    on_disk: SetInfo | None,
    shown: counter.Shown | None,
) -> list[str]:
    found = []
    if on_disk is None:
        found.append("No rule set is whole on the disk.")
    for name, one in (("The engine", engine), ("The file scanner", scanner)):
        if one is None:
            found.append(f"{name} does not run, or says nothing.")
        elif not one.proven:
            found.append(
                f"{name} is not proven: {one.rules} of {one.expected} rules, {one.failed} failed,"
                f" canary {one.canary}. {one.why}".strip()
            )
    if shown is not None and shown.step in CHANGING:
        return found
    in_force = on_disk.id if on_disk is not None else ""
    for name, one in (("The engine", engine), ("The file scanner", scanner)):
        if one is not None and in_force and one.set_id != in_force:
            found.append(
                f"{name} works with set {one.set_id[:12] or '(none)'}, on the disk {in_force[:12]} is in force."
            )
    if shown is not None and not compiler.owners(settings):
        thinks = shown.candidate if shown.step == Step.SOAK else shown.set
        if engine is not None and thinks and engine.set_id != thinks:
            found.append(f"The keeper's journal says {thinks[:12]}, the engine works with {engine.set_id[:12]}.")
    return found


def table(status: Status) -> str:
    """For people."""
    shown = status.keeper
    what = f"set {status.number} of the channel" if status.number else "not of the channel"
    rows = [
        ("in force", f"{what}, {'proven' if status.proven else 'NOT PROVEN'}" if status.id else "nothing"),
        ("set", status.id[:16]),
        ("built", status.built),
        ("Suricata rules", f"{status.suricata_rules} (the engine's own count)"),
        ("YARA rules", f"{status.yara_rules} (the scanner's own count)"),
        ("channel", f"{status.freshness}, last asked with success {status.checked or 'never'}"),
        ("where", status.path or "(not installed)"),
    ]
    if shown is None:
        rows.append(("keeper", "does not run"))
    else:
        under_way = f", set {shown.under_way} is on its way" if shown.under_way else ""
        rows.append(("keeper", f"{shown.step}{under_way}"))
        rows += [("", text) for text in (shown.waits, shown.last) if text]
        rows += [("refused", f"set {number}: {why}") for number, why in sorted(shown.refused.items(), reverse=True)[:3]]
        muted = [*map(str, shown.muted), *shown.muted_yara]
        rows += [("muted", ", ".join(muted[:20]) or "none"), ("on trial", f"{shown.on_trial} dropping rules")]
    rows += [("WRONG", text) for text in status.wrong]
    return "".join(f"{name:<16}{value}\n" for name, value in rows)
