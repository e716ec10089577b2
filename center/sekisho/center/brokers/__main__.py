"""The broker's process: starts the broker this machine runs and follows the registry of boxes."""

from __future__ import annotations

import sys

from sekisho.appliance.core import program
from sekisho.center import settings
from sekisho.center.brokers.keeper import Keeper


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the broker ended or cannot be configured."""
    return program.main("sekisho.center.brokers", lambda path: Keeper(settings.load(path)), argv)


if __name__ == "__main__":
    sys.exit(main())
