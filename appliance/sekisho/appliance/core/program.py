"""How a daemon begins and ends: one settings file, a log for the journal, SIGTERM, exit codes that say who must act."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from sekisho.appliance.core.errors import RejectedInput, SekishoError


class Daemon(Protocol):
    """What works until it is stopped."""

    def run(self) -> int | None: ...

    def stop(self) -> None: ...


def main(name: str, make: Callable[[Path], Daemon], argv: list[str] | None = None) -> int:
    """Make the daemon from its settings file and run it until SIGTERM or SIGINT; returns the exit code.

    What `run` returns (None: 0); 2 when something that was given to it is refused, 3 when the machine is not fit.
    """
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("--settings", type=Path, required=True)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        daemon = make(args.settings)
    except SekishoError as err:
        logging.getLogger(name).error("%s", err)
        return 2 if isinstance(err, RejectedInput) else 3
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    return daemon.run() or 0
