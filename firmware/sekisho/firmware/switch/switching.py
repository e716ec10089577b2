"""Moves the link to a release's programs and renews the daemons one after the other, each well before the next.

May be called again at any point of an earlier call that was killed: what runs the release already and is well is left
alone. The release to go back to is remembered beside the link until `settle` finds that the new one can stay: until
then a start of the machine goes back to it (sekisho-former.service), and who judges the trial, the firmware daemon, and
root's errand, which takes back, run from it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance import handover, status
from sekisho.appliance.core.errors import DeviceFault, RejectedInput, SekishoError
from sekisho.appliance.core.fsio import sync_directory, write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.firmware import wishes
from sekisho.firmware.keeper.facts import GivenUp
from sekisho.firmware.keeper.here import given_up_file
from sekisho.firmware.switch import healthy
from sekisho.firmware.switch.services import Running, Services, Systemd
from sekisho.inspect import succession

ORDER: Final = ("signatures", "portal_agent", "jobs", "telemetry", "appliance", "inspect")
"""Those that touch no traffic first. The gate last: where memory is short it is restarted, which costs inspection, so
no release pays for that which fails in another daemon. The daemon that asks for the switch is not among them: it
judges, and `settle` renews it."""
KEEPER: Final = "firmware"
READY_S: Final = 120.0
WELL_S: Final = {"appliance": 300.0}
"""Until a daemon that is ready is well: the appliance loads all rules into a second engine meanwhile."""
OTHERS_WELL_S: Final = 60.0
ILL_S: Final = 20.0
"""What says that waiting is no use must say it so long: an engine may be about to be started anew instead."""
STEADY_S: Final = 1.5
"""It must stay well so long, in the same process."""
KEEPER_STEADY_S: Final = 15.0
"""The firmware daemon longer: nobody else would take it back."""
DEATHS_CAP: Final = 2
"""A daemon that ended more often in a trial is not fit, however well it looks now."""
LOOK_S: Final = 0.1
LOADS: Final = "import sekisho.firmware.daemon, sekisho.firmware.errands"
"""What a release must bring that works, or it could be neither left nor followed by another."""
LOADS_S: Final = 120.0

log = logging.getLogger(__name__)


def switch(to: Path, settings: Settings, services: Services | None = None, *, back: bool = False) -> float:
    """Have every daemon of the box run release `to`; seconds in which no traffic passed (0 where the box fails open).

    `back`: what runs now must not stay. No daemon that fails keeps the others from `to`, and nothing returns.

    Raises:
        RejectedInput: there is no such release, or it could not be left again; nothing was touched.
        DeviceFault: a daemon did not become well with it, and everything runs the former release again; or it does
            not, which the message says.

    """
    services = services or Systemd()
    if not (to / "venv" / "bin" / "python").exists():
        raise RejectedInput(f"{to} is no release that can run.", "It is fetched and staged again.")
    link = Path(settings.firmware.link)
    stopped = _stopped(settings)
    if back:
        _take_back(link, to, settings, services)
        return max(0.0, _stopped(settings) - stopped)
    _prove_that_it_loads(to)
    _forget(settings)
    former = _remember(link, to / "venv")
    try:
        if former is not None:
            _point(_caretaker(settings), former)
        _point(link, to / "venv")
        _renew_all(to, settings, services)
    except SekishoError as err:
        if former is None or former == to / "venv":
            raise DeviceFault(f"{err} There is no former release to go back to.") from err
        log.error("going back to %s: %s", former, err)
        try:
            _take_back(link, former.parent, settings, services)
        except SekishoError as worse:
            raise DeviceFault(f"{err} Going back did not succeed either: {worse}") from err
        raise DeviceFault(f"{err} Everything runs the former programs again.") from err
    return max(0.0, _stopped(settings) - stopped)


def settle(settings: Settings, services: Services | None = None) -> None:
    """Have the release in use stay: every daemon has held, and its own firmware daemon is renewed, and works.

    Raises:
        RejectedInput: it cannot stay. Where its firmware daemon does not work, everything runs the former release
            again already, and why is on the disk for the former's (`keeper.here`).
        DeviceFault: going back did not succeed either.

    """
    services = services or Systemd()
    link = Path(settings.firmware.link)
    if not _memory(link).is_symlink():
        return  # it stays already
    release, former = link.readlink().parent, _memory(link).readlink().parent
    for name in ORDER:
        _prove_that_it_held(name, settings, services, release)
    try:
        _caretaker(settings).unlink(missing_ok=True)
        _renew(KEEPER, release, settings, services)
    except SekishoError as err:
        log.error("going back to %s: %s", former, err)
        if _answers(services):  # else it is the machine that goes off, not the release that fails
            _note(settings, GivenUp(release.name, str(err)))
        try:
            _take_back(link, former, settings, services)
        finally:
            if services.look(KEEPER) is not None:
                services.restart(KEEPER, READY_S)
        raise RejectedInput(f"{err} Everything runs the former programs again.") from err
    _memory(link).unlink(missing_ok=True)


def _answers(services: Services) -> bool:
    try:
        services.look(KEEPER)
    except DeviceFault:
        return False
    return True


def _prove_that_it_held(name: str, settings: Settings, services: Services, release: Path) -> None:
    found = services.look(name)
    if found is None:
        return
    if found.deaths > DEATHS_CAP:
        raise RejectedInput(f"{name} ended {found.deaths} times since the change.")
    try:
        _become_well(name, settings, services, release, 0.0)  # how steady it was, its deaths tell
    except DeviceFault as err:
        raise RejectedInput(str(err)) from err


def _prove_that_it_loads(to: Path) -> None:
    try:
        argv = [str(to / "venv" / "bin" / "python"), "-I", "-c", LOADS]
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=LOADS_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise DeviceFault(f"The programs of {to} cannot be tried: {err}.") from err
    if done.returncode:
        raise RejectedInput(f"The firmware daemon of {to} cannot be started: {done.stderr.strip()[-300:]}.")


def _take_back(link: Path, to: Path, settings: Settings, services: Services) -> None:
    """From the first step on nothing names what is left; what does not become well keeps no other daemon in it."""
    _point(link, to / "venv")
    _memory(link).unlink(missing_ok=True)
    _caretaker(settings).unlink(missing_ok=True)
    failed = []
    for name in ORDER:
        try:
            _renew(name, to, settings, services, at_all_costs=True)
        except SekishoError as err:
            log.error("%s", err)
            failed.append(str(err))
    if failed:
        raise DeviceFault(" ".join(failed))


def _renew_all(release: Path, settings: Settings, services: Services) -> None:
    for name in ORDER:
        _renew(name, release, settings, services)


def _renew(name: str, release: Path, settings: Settings, services: Services, *, at_all_costs: bool = False) -> None:
    """`at_all_costs`: what runs now must not stay, and a successor that does not come about becomes a restart."""
    found = services.look(name)
    if found is None:
        return
    if not _is_well(name, found, settings, services, release):
        if name == "appliance":
            handover.ask(settings)
        if name != "inspect" or not found.ready or not _succeeded(found, settings, services, at_all_costs=at_all_costs):
            services.restart(name, READY_S)
    _become_well(name, settings, services, release, KEEPER_STEADY_S if name == KEEPER else STEADY_S)


def _succeeded(found: Running, settings: Settings, services: Services, *, at_all_costs: bool) -> bool:
    """Whether another inspect is at work in the place of `found`, without a gap; False: only a restart brings it there.

    Raises:
        DeviceFault: the successor did not become ready, and `found` goes on.

    """
    name, tries = "inspect", succession.said(settings).tries
    try:
        services.succeed(name)
    except DeviceFault as err:
        if not at_all_costs:
            raise
        log.warning("%s is restarted: %s", name, err)
        return False
    deadline = time.monotonic() + READY_S
    while True:
        now, said = services.look(name), succession.said(settings)
        if now is not None and now.ready and now.pid != found.pid:
            return True
        told = said.why if said.tries > tries and said.state in ("refused", "impossible") else ""
        if told or time.monotonic() > deadline:
            if at_all_costs or said.state == "impossible":
                log.warning("%s is restarted: %s", name, told)
                return False
            raise DeviceFault(f"{name} found no successor: {told or 'nothing was heard of one'}")
        time.sleep(LOOK_S)


def _is_well(name: str, found: Running, settings: Settings, services: Services, release: Path) -> bool:
    if not found.ready or found.release != (release.name if _is_named(release) else ""):
        return False
    try:
        return not _trouble(name, settings, services, release)
    except healthy.Ill:
        return False


def _become_well(name: str, settings: Settings, services: Services, release: Path, steady_s: float) -> None:
    deadline = time.monotonic() + WELL_S.get(name, OTHERS_WELL_S)
    since, pid, ill = 0.0, 0, 0.0
    while True:
        now = time.monotonic()
        try:
            why, ill = _trouble(name, settings, services, release), 0.0
        except healthy.Ill as err:
            why, ill = str(err), ill or now
            if now - ill >= ILL_S:
                raise DeviceFault(f"{name} does not work with release {release.name}: {err}") from err
        found = services.look(name)
        if why or found is None or (pid and found.pid != pid):
            since, pid = 0.0, 0
        elif not pid:
            since, pid = now, found.pid
        elif now - since >= steady_s:
            return
        if now > deadline:
            raise DeviceFault(f"{name} does not work with release {release.name}: {why or 'it does not stay alive'}.")
        time.sleep(LOOK_S)


def _trouble(name: str, settings: Settings, services: Services, release: Path) -> str:
    found = services.look(name)
    if found is None:
        return "it is gone"
    if found.ready and found.release != release.name and _is_named(release):
        return f"it runs {found.release or 'no release'}"
    return healthy.why_not(name, found, settings, release)


def _is_named(release: Path) -> bool:
    """Whether daemons can name it: the programs a system image came with are no release."""
    return release.name.partition("-")[0].isdecimal()


def _memory(link: Path) -> Path:
    return link.with_name(f"{link.name}.former")


def _caretaker(settings: Settings) -> Path:
    """What the firmware daemon runs from during a trial, should it be started; gone with the power."""
    return wishes.errands_run(settings) / "keeper"


def _note(settings: Settings, given_up: GivenUp) -> None:
    path = given_up_file(settings)
    try:
        write_atomic(path, msgspec.json.encode(given_up), 0o644)
    except OSError as err:  # told less exactly then; going back waits for no disk
        log.error("%s: %s", path, err)


def _forget(settings: Settings) -> None:
    """What was said of an earlier trial is not said of this one."""
    path = given_up_file(settings)
    try:
        if path.exists():
            path.unlink()
            sync_directory(path.parent)
    except OSError as err:
        raise DeviceFault(f"Cannot remove {path}: {err.strerror}.") from err


def _remember(link: Path, to: Path) -> Path | None:
    """Where to go back to: what the link names, or, where a killed switch moved it already, what it named before."""
    now = link.readlink() if link.is_symlink() else None
    if now is not None and now != to:
        _point(_memory(link), now)
    try:
        return _memory(link).readlink()
    except OSError:
        return now


def _point(link: Path, to: Path) -> None:
    """One rename, which a power cut finds done or not done."""
    fresh = link.with_name(f".{link.name}.tmp")
    try:
        link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(to)
        fresh.replace(link)
        folder = os.open(link.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as err:
        raise DeviceFault(f"{link} cannot be moved: {err.strerror}.") from err


def _stopped(settings: Settings) -> float:
    """Seconds in which traffic stood still so far: where an inspector is away and the box fails closed."""
    if settings.inspection.fail_mode != "closed":
        return 0.0
    try:
        now = status.try_read(settings)
    except RejectedInput:
        return 0.0
    at = time.monotonic()
    return now.engine_bypass.seconds(at) + now.gate_bypass.seconds(at) if now is not None else 0.0
