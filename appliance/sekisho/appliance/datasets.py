"""The engine's lists (Suricata's datasets), as its list files and its command socket spell them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Set
from typing import Any, Literal

KIND = Literal["string", "ip", "sha256"]


def render(kind: KIND, entries: Iterable[bytes]) -> bytes:
    """A list file: strings in base64, everything else as it is."""
    return b"".join(_word(kind, entry) + b"\n" for entry in entries)


def parse(kind: KIND, data: bytes) -> list[bytes]:
    """The entries of a list file.

    Raises:
        ValueError: it is no such file.

    """
    return [base64.b64decode(line) if kind == "string" else line for line in data.splitlines()]


def changes(name: str, kind: KIND, before: Set[bytes], now: Set[bytes], *, fresh: bool) -> list[dict[str, Any]]:
    """What brings a list of the running engine (control.ask_all) from `before` to `now`.

    `fresh`: the engine was (re)loaded and may hold either; what it should hold is told whole.
    """
    steps = (("dataset-add", now if fresh else now - before), ("dataset-remove", before - now))
    return [
        {"command": command, "arguments": {"setname": name, "settype": kind, "datavalue": _word(kind, entry).decode()}}
        for command, entries in steps
        for entry in sorted(entries)
    ]


def _word(kind: KIND, entry: bytes) -> bytes:
    return base64.b64encode(entry) if kind == "string" else entry
