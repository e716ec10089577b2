"""The web service's process: settings, application, HTTPS until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.center import settings
from sekisho.center.web.app import create_app
from sekisho.center.web.server import listen, make_server


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the address cannot be taken."""
    parser = argparse.ArgumentParser(prog="sekisho.center.web")
    parser.add_argument("--settings", type=Path, required=True)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    log = logging.getLogger("sekisho.center.web")
    try:
        config = settings.load(args.settings)
        if config.web is None:
            raise RejectedInput(f"{args.settings}: the section [web] is missing.")
        server = make_server(create_app(config), config.web)
        listener = listen(config.web)
    except RejectedInput as err:
        log.error("%s", err)
        return 2
    except DeviceFault as err:
        log.error("%s", err)
        return 3
    server.run(sockets=[listener])
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())
