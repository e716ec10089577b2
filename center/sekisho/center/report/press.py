"""A page becomes a PDF in a process of its own: bounded in time, memory and size, and with nothing it could fetch.

What is pressed is a whole page of ours, style and pictures inside. The process knows no address: every fetch is
refused before it begins, whatever a stranger's string looks like.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any, Final, NoReturn

from sekisho.appliance.core.errors import DeviceFault, PeerError

PAGE_CAP: Final = 2 << 20
PDF_CAP: Final = 4 << 20
TIME_S: Final = 12.0
MEMORY: Final = 1 << 30
WAIT_S: Final = 2.0
"""How long a press waits for one that is free."""

_presses = threading.BoundedSemaphore(2)


class Busy(PeerError):
    """Every press is at work; trying again in a moment helps."""


def pressed(page: str) -> bytes:
    """The page as a PDF. Blocks for a second or so.

    Raises:
        Busy: other pages are being pressed.
        DeviceFault: it could not be made: too large, too slow, or the library failed.

    """
    body = page.encode("utf-8", "replace")
    if len(body) > PAGE_CAP:
        raise DeviceFault("The page is too large for a PDF.")
    if not _presses.acquire(timeout=WAIT_S):
        raise Busy("Other reports are being made.", "Please try again in a moment.")
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", __name__],
            input=body,
            capture_output=True,
            timeout=TIME_S,
            check=False,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired as err:
        raise DeviceFault(f"The PDF was not made within {TIME_S:.0f} seconds.") from err
    finally:
        _presses.release()
    if done.returncode or not done.stdout.startswith(b"%PDF-") or len(done.stdout) > PDF_CAP:
        raise DeviceFault(f"The PDF could not be made: {done.stderr[-300:].decode('utf-8', 'replace')}")
    return done.stdout


def _work() -> None:
    """The process: a page on its input, the PDF on its output."""
    for what, limit in ((resource.RLIMIT_CPU, int(TIME_S)), (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
        with suppress(OSError, ValueError):  # a unit may forbid it; its own limits hold then
            resource.setrlimit(what, (limit, limit))
    page = sys.stdin.buffer.read(PAGE_CAP + 1)
    import weasyprint  # here alone: it is large, and the portal shall not carry it
    from weasyprint.urls import URLFetcher

    class Refusing(URLFetcher):  # type: ignore[misc]  # the library has no types
        def fetch(self, url: str, headers: Any = None) -> NoReturn:
            raise ValueError("nothing is fetched")

    made = weasyprint.HTML(string=page.decode(), url_fetcher=Refusing()).write_pdf()
    sys.stdout.buffer.write(made)


if __name__ == "__main__":
    _work()
