"""`sekisho firmware ...`: releases of the box's own software, at the centre and at the box."""

from __future__ import annotations

import argparse

from sekisho.firmware.build import commands as build_commands
from sekisho.firmware.keeper import commands as keeper_commands


def register(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `firmware` group."""
    group = sub.add_parser("firmware", help="releases: build, sign, show, take")
    verbs = group.add_subparsers(dest="verb", required=True)
    build_commands.register(verbs)
    keeper_commands.register(verbs)
