"""Whether a daemon of the box works, by its own word: the files it writes for everybody, never our guess."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance import status
from sekisho.appliance.core import desk, standing
from sekisho.appliance.core.errors import DeviceFault, RejectedInput, SekishoError
from sekisho.appliance.core.settings import Settings
from sekisho.firmware.keeper.desk import Status
from sekisho.firmware.switch.services import Running

BEAT_S: Final = 15.0
"""The firmware daemon looks once a second, also on a machine that has much to do."""


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
    if name == "firmware":
        return _firmware(running, settings)
    if name == "inspect":
        found = standing.try_read(settings, "scanner")
        return "" if found is not None and found.proven else "its scanners have not found their canary"
    return ""


def _firmware(running: Running, settings: Settings) -> str:
    """It looks and it answers; what it answers may be of a later release's form."""
    if 0 <= running.beat_s < time.monotonic() - BEAT_S:
        return "it stands still"
    try:
        answered = list(desk.ask(settings.firmware_socket, msgspec.json.encode(Status())))
    except SekishoError as err:
        return str(err)
    return "" if answered else "it answers nobody"


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
