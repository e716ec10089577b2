"""What the supervisor is told about one program, and what it tells about it. Plain data, JSON on disk."""

from __future__ import annotations

from typing import Literal

import msgspec

from sekisho.lab.layout import Where

State = Literal["starting", "ready", "dead", "stopped"]


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One program of the lab."""

    name: str
    place: Where
    argv: list[str]
    ports: list[int] = []
    """Ready when it listens on all of these TCP ports; with none, when it says READY=1 (sd_notify)."""


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything one supervisor runs."""

    lab: str
    programs: list[Program]
    stopped: list[str] = []
    """Those that wait for `start`."""


class Running(msgspec.Struct, frozen=True):
    """One program as it is now."""

    name: str
    place: Where
    state: State
    pid: int = 0
    starts: int = 0
    """How often it was started; more than 1 says that it died and came back."""
    said: str = ""
    """Its own status line (sd_notify STATUS=)."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client asks of the supervisor: one JSON line."""

    do: Literal["status", "start", "stop"]
    name: str = ""


class Reply(msgspec.Struct, frozen=True):
    """The supervisor's answer: one JSON line."""

    programs: list[Running] = []
    error: str = ""
