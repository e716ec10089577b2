"""The CA's process: the only one that can read the CA's key."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.center import settings
from sekisho.center.ca.signer import Signer


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings or the CA are refused, 3 when something cannot be opened."""
    parser = argparse.ArgumentParser(prog="sekisho.center.ca")
    parser.add_argument("--settings", type=Path, required=True)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    log = logging.getLogger("sekisho.center.ca")
    try:
        signer = Signer(settings.load(args.settings))
    except RejectedInput as err:
        log.error("%s", err)
        return 2
    except DeviceFault as err:
        log.error("%s", err)
        return 3
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: signer.stop())
    signer.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
