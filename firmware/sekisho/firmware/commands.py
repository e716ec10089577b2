"""`sekisho firmware ...`: releases of the box's own software, at the centre and at the box."""

from __future__ import annotations

import argparse
import sys

from sekisho.firmware import units
from sekisho.firmware.build import commands as build_commands
from sekisho.firmware.keeper import commands as keeper_commands


def register(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `firmware` group."""
    group = sub.add_parser("firmware", help="releases: build, sign, show, take")
    verbs = group.add_subparsers(dest="verb", required=True)
    build_commands.register(verbs)
    keeper_commands.register(verbs)
    set_up = verbs.add_parser("set-up", help="make this Debian machine a box: users, units, settings")
    set_up.add_argument("--box", required=True, metavar="NAME", help="its name at the monitoring centre")
    set_up.set_defaults(func=_set_up)


def _set_up(args: argparse.Namespace) -> None:
    enabled = units.set_up(args.box)
    sys.stdout.write(f"Started with the machine: {', '.join(enabled)}\n")
    sys.stdout.write("Look through /etc/sekisho/box.toml, run `sekisho box check`, then restart the machine.\n")
