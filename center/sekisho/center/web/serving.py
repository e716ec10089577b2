"""The process of a web service: its settings, its application, HTTPS until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from litestar import Litestar

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.center import settings
from sekisho.center.settings import CenterSettings
from sekisho.center.web.server import listen, make_server


def serve(
    section: Literal["web", "portal", "api"],
    create: Callable[[CenterSettings], Litestar],
    argv: list[str] | None = None,
) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the address or the database cannot be used."""
    parser = argparse.ArgumentParser(prog=f"sekisho.center.{section}")
    parser.add_argument("--settings", type=Path, required=True)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    log = logging.getLogger(f"sekisho.center.{section}")
    try:
        config = settings.load(args.settings)
        served = {"web": config.web, "portal": config.portal, "api": config.api}[section]
        if served is None:
            raise RejectedInput(f"{args.settings}: the section [{section}] is missing.")
        server = make_server(create(config), served)
        listener = listen(served)
    except RejectedInput as err:
        log.error("%s", err)
        return 2
    except DeviceFault as err:
        log.error("%s", err)
        return 3
    server.run(sockets=[listener])
    return 0 if server.started else 3
