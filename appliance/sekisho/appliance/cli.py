"""`sekisho`: the one command line program. Each room brings its group; one that is not installed is absent.

Exit codes: 0 as asked, 1 the thing asked about is not as it should be, 2 wrong use or refused input,
3 a fault of this machine or of the other side.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Final

from sekisho.appliance.core.errors import RejectedInput, SekishoError

ROOMS: Final = {
    "box": "appliance",
    "policy": "policy",
    "quarantine": "inspect",
    "signatures": "signatures",
    "firmware": "firmware",
    "telemetry": "telemetry",
    "local-page": "portal_agent",
    "center": "center",
    "lab": "lab",
    "bench": "bench",
}
"""Command group -> the room whose `commands` module offers it."""


def build_parser(group: str = "") -> argparse.ArgumentParser:
    """The parser with all groups, or with just the one that is going to be used (the others are not imported)."""
    parser = argparse.ArgumentParser(prog="sekisho", description="The checkpoint on the road: UTM box and centre. 関所")
    sub = parser.add_subparsers(dest="group", required=True, metavar="GROUP")
    for name, room in ROOMS.items():
        if group in ROOMS and name != group:
            continue
        try:
            commands = importlib.import_module(f"sekisho.{room}.commands")
        except ModuleNotFoundError as err:
            if group == name:
                parser.error(f"{name} is not part of this installation ({err.name} is missing)")
            continue
        commands.register(sub)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser(argv[0] if argv else "").parse_args(argv)
    try:
        return int(args.func(args) or 0)
    except SekishoError as err:
        print(f"sekisho: {err}", file=sys.stderr)
        return 2 if isinstance(err, RejectedInput) else 3
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
