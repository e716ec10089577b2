"""Whether a daemon of the box works, by its own word: the files it writes for everybody, never our guess."""

from __future__ import annotations

from pathlib import Path

from sekisho.appliance import status
from sekisho.appliance.core import standing
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.settings import Settings
from sekisho.firmware.switch.services import Running


class Ill(DeviceFault):
    """It will not become healthy by waiting; the message says why."""


def why_not(name: str, running: Running, settings: Settings, release: Path) -> str:
    """What is still missing of the health of `name`, run from `release`; empty when it is well.

    Raises:
        Ill: waiting is no use.

    """
    if not running.ready:
        return "it is not ready"
    if name == "appliance":
        return _appliance(running, settings, release)
    if name == "inspect":
        found = standing.try_read(settings, "scanner")
        return "" if found is not None and found.proven else "its scanners have not found their canary"
    return ""


def _appliance(running: Running, settings: Settings, release: Path) -> str:
    try:
        now = status.try_read(settings)
    except RejectedInput as err:
        return str(err)
    if now is None or not now.fresh or now.pid != running.pid:
        return "it has not said how it is"
    own = release / "engine" / "bin" / "suricata"
    fits = not own.is_file() or Path(now.engine.binary) == own.resolve()
    # Where there was no room for two engines it says why and starts one anew: then that one counts, not the words.
    if now.engine.renewal and now.engine.phase == "running" and not (fits and now.engine.starts):
        raise Ill(now.engine.renewal)
    if now.engine.renewing or not fits:
        return "its engine is not renewed yet"
    if now.engine.phase != "running" or now.engine_bypass.reason:
        return f"the engine is {now.engine.phase} {now.engine_bypass.reason}".strip()
    found = standing.try_read(settings, "engine")
    return "" if found is not None and found.proven else "the engine's rules are not proven"
