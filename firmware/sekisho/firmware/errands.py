"""Root's side: takes the firmware daemon's one wish away, checks it, carries it out, says what became of it, and ends.

Started by sekisho-firmware_errands.path when a wish appears. Only that daemon's user (and root) can wish, in the closed
words of `wishes`. It is not believed: a release is what its keyholders signed, verified here from root's own root of
trust (`proof`); its bundle is held against that by `stage`, an image against RAUC's own key. A restart is a file that
the service manager waits for, as the page's is.
"""

from __future__ import annotations

import argparse
import logging
import os
import pwd
import stat
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput, SekishoError
from sekisho.appliance.core.fsio import open_plain, sync_directory, write_atomic
from sekisho.appliance.core.settings import Settings, load
from sekisho.firmware import wishes
from sekisho.firmware.keeper import here
from sekisho.firmware.published import BUNDLE_CAP, Release
from sekisho.firmware.switch.services import Services
from sekisho.firmware.wishes import CAP_BYTES, Numbered, Outcome

USER: Final = "sekisho-firmware"
SLOTS: Final = Path("/var/lib/sekisho-slots")
"""Each slot's own links (firmware/image/rootfs/usr/lib/sekisho/programs)."""

log = logging.getLogger(__name__)


def take(settings: Settings) -> Numbered | None:
    """The wish, which is gone from now on; None when there is none.

    Raises:
        RejectedInput: it is not from the daemon, or no wish.

    """
    path = wishes.wish_file(settings)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as err:
        _away(path)
        raise RejectedInput(f"The wish cannot be read: {err.strerror}.") from err
    about = os.fstat(fd)
    _away(path)
    if stat.S_ISDIR(about.st_mode):
        os.close(fd)
        raise RejectedInput("The wish is a directory.")
    with os.fdopen(fd, "rb") as source:
        if not stat.S_ISREG(about.st_mode) or about.st_uid not in _uids() or about.st_size > CAP_BYTES:
            raise RejectedInput("The wish is not the firmware daemon's.")
        try:
            return msgspec.json.decode(source.read(CAP_BYTES), type=Numbered)
        except msgspec.MsgspecError as err:
            raise RejectedInput(f"The wish is not understood: {err}.") from err


def _away(path: Path) -> None:
    """From where a wish is looked for, whatever it is; what stayed would have the errand started for ever."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        path.rename(path.with_name(f".refused-{time.monotonic_ns()}"))


def carry_out(settings: Settings, wish: wishes.Wish, services: Services | None = None) -> tuple[str, float]:
    """Do it; where it lies now, and seconds without traffic. `services`: who runs the daemons; None: systemd.

    Raises:
        RejectedInput, PeerError, DeviceFault: as whoever does it; nothing was changed, or it was taken back.

    """
    match wish:
        case wishes.Stage(name):
            from sekisho.firmware.stage import stage, staged

            if name not in {one.path.name for one in staged(_releases(settings))}:  # root staged that, whoever asks
                release = _accepted(settings, name)
                stage(_bundle(settings, release), release, _releases(settings))
            return name, 0.0
        case wishes.Install(name):
            from sekisho.firmware.rauc import Slots
            from sekisho.firmware.stage import compare

            slots, release = Slots(), _accepted(settings, name)
            bundle = _bundle(settings, release)
            compare(bundle, release)
            slots.install(bundle)
            return slots.inactive(), 0.0
        case wishes.Switch(to, back):
            from sekisho.firmware.switch import switch

            return to, switch(_remembered(settings, to), settings, services, back=back)
        case wishes.Settle():
            from sekisho.firmware.switch import settle

            settle(settings, services)
            return "", 0.0
        case wishes.Mark(what):
            return "", _mark(what)
        case wishes.Anew():
            _appear(settings.errands_run / "restart")
            return "", 0.0
        case wishes.Remove(keep):
            _tidy(settings, {*keep, here.running(settings).place.release})
            return "", 0.0


def _remembered(settings: Settings, to: str) -> Path:
    """Where release `to` is; for none, where the programs are that the system came with, noted when they are left."""
    link, releases = Path(settings.firmware.link), _releases(settings)
    system = link.with_name(f"{link.name}.system")
    now = link.resolve().parent
    if to and link.is_symlink() and now.parent != releases.resolve():
        fresh = system.with_name(f".{system.name}")
        try:
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(now)
            fresh.replace(system)
            sync_directory(system.parent)
        except OSError as err:
            raise DeviceFault(f"Cannot write {system}: {err.strerror}.") from err
    if to:
        return releases / to
    if system.is_symlink():
        return system.resolve()
    return here.IMAGE.parent


def _mark(what: str) -> float:
    from sekisho.firmware.rauc import Slots

    slots = Slots()
    if what == "other":
        slots.activate_other()
    elif what == "booted":
        slots.activate_booted()
    else:
        slots.mark_good()
    return 0.0


def _tidy(settings: Settings, keep: set[str]) -> None:
    from sekisho.firmware import stage

    spared = keep | _named(Path(settings.firmware.link))
    for one in stage.staged(_releases(settings)):
        if one.path.name not in spared:
            stage.remove(one.release, _releases(settings))


def _named(link: Path) -> set[str]:
    """Releases that something would run from: this system, its way back, the other slot's next start."""
    links = [link, *(link.with_name(f"{link.name}.{way}") for way in ("former", "system")), *SLOTS.glob("*/venv*")]
    return {one.readlink().parent.name for one in links if one.is_symlink()}


def _releases(settings: Settings) -> Path:
    return Path(settings.firmware.releases)


def _accepted(settings: Settings, name: str) -> Release:
    from sekisho.firmware import proof
    from sekisho.firmware.source import hardware_of

    return proof.accept(settings, hardware_of(settings), name)


def _bundle(settings: Settings, release: Release) -> Path:
    """What the daemon downloaded, and may change at any moment.

    `stage` hashes the very bytes it unpacks. Of an image the file is compared first, which finds that it is another; a
    change after that is RAUC's to find: it opens the file once, and has the kernel check each block that is read of it
    against what was signed (dm-verity; the system's settings allow it no other form of bundle).
    """
    path = settings.firmware_state / "download" / release.sha256
    try:
        open_plain(path, BUNDLE_CAP).close()
    except OSError as err:
        raise DeviceFault(f"The bundle is not on this box ({err.strerror}).", "It is fetched again.") from err
    return path


def _appear(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        write_atomic(path, b"", 0o644)
    except OSError as err:
        raise DeviceFault(f"Cannot write {path}: {err.strerror}.") from err


def _uids() -> set[int]:
    try:
        return {0, pwd.getpwnam(USER).pw_uid}
    except KeyError:
        return {0}


def done(settings: Settings, asked: Numbered, services: Services | None = None) -> Outcome:
    """Carry it out and say what became of it, whatever that is."""
    try:
        said, took_s = carry_out(settings, asked.wish, services)
        return Outcome(asked.number, "done", said, took_s)
    except SekishoError as err:
        log.error("%s: %s", asked.wish.__struct_config__.tag, err)
        word = "refused" if isinstance(err, RejectedInput) else "unreachable" if isinstance(err, PeerError) else "fault"
        return Outcome(asked.number, word, str(err)[:500])  # type: ignore[arg-type]  # one of its words
    except Exception as err:  # the boundary: what a release makes a library raise is a fault, told as one
        log.exception("%s failed", asked.wish.__struct_config__.tag)
        return Outcome(asked.number, "fault", f"{type(err).__name__}: {err}"[:500])


def main(argv: list[str] | None = None, services: Services | None = None) -> int:
    """One wish, if there is one; 2 when it was refused, 3 when it failed."""
    parser = argparse.ArgumentParser(prog="sekisho.firmware.errands")
    parser.add_argument("--settings", type=Path, default=Path("/etc/sekisho/box.toml"))
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = load(args.settings)
        asked = take(settings)
    except SekishoError as err:
        log.error("%s", err)
        return 2
    if asked is None or wishes.outcome(settings, asked.number) is not None:
        return 0  # asked for again while it was being carried out
    log.info("the firmware daemon asks for: %s", asked.wish.__struct_config__.tag)
    told = done(settings, asked, services)
    path = wishes.outcome_file(settings)
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        write_atomic(path, msgspec.json.encode(told), 0o644)
    except OSError as err:
        log.error("what became of it cannot be written: %s", err)
        return 3
    return {"done": 0, "refused": 2}.get(told.word, 3)


if __name__ == "__main__":
    sys.exit(main())
