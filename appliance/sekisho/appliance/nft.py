"""Runs the nft program for the rooms of this folder that load tables: one text, one transaction."""

from __future__ import annotations

import hashlib
import subprocess
from typing import Final

from sekisho.appliance.core.errors import DeviceFault

TOOL_TIMEOUT_S: Final = 20


def load(text: str, what: str) -> None:
    """Load `text`, all of it or nothing.

    Raises:
        DeviceFault: nft or the kernel refused it, named by `what`; what was in force stays in force.

    """
    run(["-f", "-"], what, text)


def load_anew(family: str, table: str, text: str, what: str, *, meaning: str = "", force: bool = False) -> None:
    """Load `text`, which replaces a table that hooks into the packets' way, unless just that is loaded.

    When the kernel takes a hook away it drops every packet that waits in any queue, so a daemon that starts again must
    not replace what is there by the same. `meaning`: what tells two texts apart, where not all of them does. `force`:
    load it all the same.

    Raises:
        DeviceFault: as `load`.

    """
    name = "plan_" + hashlib.sha256((meaning or text).encode()).hexdigest()[:12]
    if force or not _loaded(family, table, name):
        load(f"{text}\nadd counter {family} {table} {name}\n", what)


def _loaded(family: str, table: str, counter: str) -> bool:
    try:
        run(["list", "counter", family, table, counter], counter)
    except DeviceFault:
        return False
    return True


def run(arguments: list[str], what: str, text: str = "") -> str:
    """What nft prints.

    Raises:
        DeviceFault: as `load`.

    """
    try:
        done = subprocess.run(
            ["nft", *arguments], input=text, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise DeviceFault(f"{what} could not be loaded: {err}.") from err
    if done.returncode != 0:
        raise DeviceFault(f"{what} was refused: {done.stderr.strip()[-300:]}.")
    return done.stdout


def present(family: str, table: str) -> bool:
    """Whether a table of this name is loaded."""
    try:
        argv = ["nft", "list", "chains", family]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and f"table {family} {table} {{" in done.stdout
