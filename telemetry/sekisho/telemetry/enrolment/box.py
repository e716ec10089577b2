"""The box's side as its owner and its daemon use it: enrol with a code, renew when it is due.

Run as `python -I -m sekisho.telemetry.enrolment.box --settings FILE` it renews now. The daemon starts it so: once
in two months a cryptography library is needed for a second, which is no reason to keep it in memory.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sekisho.appliance.core import settings
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.telemetry.enrolment import code as codes
from sekisho.telemetry.enrolment import getting, settings_file
from sekisho.telemetry.enrolment.files import IdentityFiles
from sekisho.telemetry.enrolment.https import Centre, Refused
from sekisho.telemetry.enrolment.wire import Grant
from sekisho.telemetry.rotation import fingerprint

NOT_DUE: Final = 1
REFUSED: Final = 2
FAULT: Final = 3


def enrol(path: Path, centre: str, code: str) -> Grant:
    """Enrol the box with the settings file `path`, which is made from the defaults when it is not there.

    Raises:
        RejectedInput: the code, the address or the settings file will not do, or the centre refuses the code.
        PeerError: the centre cannot be reached, or it is not the one the code is for. The code is still good.
        DeviceFault: something cannot be written.

    """
    parsed = codes.parse(code)
    text = path.read_text() if path.exists() else settings.DEFAULTS.format(box="new-box")
    files = IdentityFiles(settings.parse(text, str(path)).state / "telemetry" / "identity")
    link: settings_file.Values = {
        "host": "placeholder",
        "port": 8883,
        "hosts": [],
        "ca": str(files.ca),
        "cert": str(files.identity),
        "key": str(files.identity),
        "centre": centre,
    }
    # Whether it can be written, while nothing is used up yet.
    settings_file.enrolled(text, "placeholder", "placeholder", link)
    proxy = settings.parse(text).telemetry.proxy
    grant = _by_any_way(centre, proxy, lambda found: getting.enrol(found, parsed, files))
    first, *others = grant.brokers
    link |= {"host": first.host, "port": first.port, "hosts": [other.host for other in others]}
    settings_file.write(path, settings_file.enrolled(text, grant.box, grant.tenant, link))
    return grant


def renew(config: settings.Settings, job: str = "", was: str = "") -> None:
    """Renew the certificate of an enrolled box; for a `job` of operators also before its time, if it still is `was`.

    One at a time: a daemon that was killed leaves the process that it started behind.

    Raises:
        As `getting.renew`.

    """
    link = config.telemetry
    if not link.centre or link.cert != link.key:
        raise RejectedInput("This box was not enrolled with a code; its certificate is renewed by hand.")
    files = IdentityFiles(Path(link.cert).parent)
    with _alone(files.directory):
        if not job or fingerprint(files.identity) == was:
            _by_any_way(link.centre, link.proxy, lambda found: getting.renew(found, files, job))


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    try:
        lock = os.open(directory / "renew.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as err:
        raise DeviceFault(f"{directory}: {err.strerror}.") from err
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who waits too long is ended by who started it
        yield
    finally:
        os.close(lock)


def _by_any_way(url: str, proxy: str, ask: Callable[[Centre], Grant]) -> Grant:
    """Through the proxy if there is one, then directly, as the sender does."""
    if proxy:
        with suppress(PeerError):
            return ask(Centre(url, proxy))
    return ask(Centre(url))


def main(argv: list[str] | None = None) -> int:
    """0 renewed, `NOT_DUE`, `REFUSED` (a person must act), `FAULT` (try again); the reason is on stderr."""
    parser = argparse.ArgumentParser(prog="sekisho.telemetry.enrolment.box")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--job", default="", help="of operators who want the key replaced")
    parser.add_argument("--was", default="", help="SHA-256 of the certificate that the job is about")
    args = parser.parse_args(argv)
    try:
        renew(settings.load(args.settings), args.job, args.was)
    except Refused as err:
        sys.stderr.write(f"{err}\n")
        return NOT_DUE if err.status == 409 else REFUSED
    except RejectedInput as err:
        sys.stderr.write(f"{err}\n")
        return REFUSED
    except (PeerError, DeviceFault) as err:
        sys.stderr.write(f"{err}\n")
        return FAULT
    return 0


if __name__ == "__main__":
    sys.exit(main())
