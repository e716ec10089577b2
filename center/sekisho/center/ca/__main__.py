"""The CA's process: the only one that can read the CA's key."""

from __future__ import annotations

import sys

from sekisho.appliance.core import program
from sekisho.center import settings
from sekisho.center.ca.signer import Signer


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings or the CA are refused, 3 when something cannot be opened."""
    return program.main("sekisho.center.ca", lambda path: Signer(settings.load(path)), argv)


if __name__ == "__main__":
    sys.exit(main())
