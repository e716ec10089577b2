"""Root's side: takes the page's one wish away, checks it, carries it out and says what became of it. Runs and ends.

Started by sekisho-portal_errands.path when a wish appears. Only the page's user (and root) can wish, in the closed
words of `wishes`; nothing of it reaches a shell or any program. A restart is a file that the service manager waits for
(sekisho-portal_restart.path); new settings are noticed by whom they concern. A wish is taken away before it is carried
out: power that fails in between loses it, and never repeats it.
"""

from __future__ import annotations

import argparse
import logging
import os
import pwd
import stat
import sys
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput, SekishoError
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings, load
from sekisho.portal_agent.wishes import (
    CAP_BYTES,
    Enrol,
    Outcome,
    Restart,
    Wish,
    Word,
    outcome_file,
    restart_file,
    wish_file,
)

PAGE_USER: Final = "sekisho-page"

log = logging.getLogger(__name__)


def take(settings: Settings) -> Wish | None:
    """The wish, which is gone from now on; None when there is none.

    Raises:
        RejectedInput: it is not from the page, or no wish.

    """
    path = wish_file(settings)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as err:
        path.unlink(missing_ok=True)
        raise RejectedInput(f"The wish cannot be read: {err.strerror}.") from err
    with os.fdopen(fd, "rb") as source:
        about = os.fstat(fd)
        path.unlink(missing_ok=True)
        if not stat.S_ISREG(about.st_mode) or about.st_uid not in _page_uids() or about.st_size > CAP_BYTES:
            raise RejectedInput("The wish is not the page's.")
        try:
            wish: Wish = msgspec.json.decode(source.read(CAP_BYTES), type=Wish)
            return wish
        except msgspec.MsgspecError as err:
            raise RejectedInput(f"The wish is not understood: {err}.") from err


def carry_out(path: Path, settings: Settings, wish: Wish) -> str:
    """Do it; a word for the owner about it.

    Raises:
        RejectedInput, PeerError, DeviceFault: as whoever does it; nothing was changed.

    """
    match wish:
        case Restart():
            _mark(restart_file(settings))
            return ""
        case Enrol():
            from sekisho.telemetry.enrolment import box

            return box.enrol(path, wish.centre.rstrip("/"), wish.code).box


def _mark(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        write_atomic(path, b"", 0o644)
    except OSError as err:
        raise DeviceFault(f"Cannot write {path}: {err.strerror}.") from err


def _page_uids() -> set[int]:
    try:
        return {0, pwd.getpwnam(PAGE_USER).pw_uid}
    except KeyError:
        return {0}


def _word(err: SekishoError) -> Word:
    return "refused" if isinstance(err, RejectedInput) else "unreachable" if isinstance(err, PeerError) else "fault"


def main(argv: list[str] | None = None) -> int:
    """One wish, if there is one; 2 when it was refused, 3 when it failed."""
    parser = argparse.ArgumentParser(prog="sekisho.portal_agent.errands")
    parser.add_argument("--settings", type=Path, default=Path("/etc/sekisho/box.toml"))
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    what = "wish"
    try:
        settings = load(args.settings)
    except SekishoError as err:
        log.error("%s", err)
        return 2
    try:
        wish = take(settings)
        if wish is None:
            return 0
        what = str(wish.__struct_config__.tag)
        log.info("the page asks for: %s", what)
        told = Outcome(what, utc.now(), "done", carry_out(args.settings, settings, wish))
    except SekishoError as err:
        log.error("%s: %s", what, err)
        told = Outcome(what, utc.now(), _word(err), str(err)[:500])
    try:
        settings.errands_run.mkdir(mode=0o755, exist_ok=True)
        write_atomic(outcome_file(settings), msgspec.json.encode(told), 0o644)
    except OSError as err:
        log.error("what became of it cannot be written: %s", err)
        return 3
    return {"done": 0, "refused": 2}.get(told.word, 3)


if __name__ == "__main__":
    sys.exit(main())
