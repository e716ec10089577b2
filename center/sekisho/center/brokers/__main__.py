"""The broker's process: starts the broker this machine runs and follows the registry of boxes."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.center import settings
from sekisho.center.brokers.keeper import Keeper


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the broker ended or cannot be configured."""
    parser = argparse.ArgumentParser(prog="sekisho.center.brokers")
    parser.add_argument("--settings", type=Path, required=True)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    log = logging.getLogger("sekisho.center.brokers")
    try:
        keeper = Keeper(settings.load(args.settings))
    except RejectedInput as err:
        log.error("%s", err)
        return 2
    except DeviceFault as err:
        log.error("%s", err)
        return 3
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: keeper.stop())
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main())
