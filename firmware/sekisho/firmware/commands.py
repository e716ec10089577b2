"""`sekisho firmware ...`: releases of the box's own software, at the centre and at the box."""

from __future__ import annotations

import argparse

from sekisho.firmware.build import commands as build_commands


def register(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `firmware` group."""
    group = sub.add_parser("firmware", help="releases: build, sign, show, take")
    build_commands.register(group.add_subparsers(dest="verb", required=True))
