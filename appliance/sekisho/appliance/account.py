"""What the engine's care says of itself to the other parts of the daemon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from sekisho.appliance.proof import Proof
from sekisho.appliance.rendering import Load


class EngineState(msgspec.Struct):
    """What `sekisho box status` shows of the engine."""

    phase: Literal["stopped", "starting", "running", "reloading"] = "stopped"
    pid: int = 0
    set_id: str = ""
    rules_expected: int = 0
    rules_loaded: int = 0
    rules_failed: int = 0
    starts: int = 0
    reloads: int = 0
    """Reloads answered so far, proven or refused: a requester waits for this to move."""
    refused: str = ""
    """Why the newest set is not in force; empty when it is."""
    binary: str = ""
    """The program that is the engine, by its path."""
    renewing: bool = False
    """Another engine is being started beside it."""
    renewals: int = 0
    """Renewals answered so far, done or not: a requester waits for this to move."""
    renewal: str = ""
    """Why the last renewal did not come about; empty when it did."""
    scarce: bool = False
    """For there was no room for two engines at once."""
    canary: Literal["caught", "missed", "untried"] = "untried"
    """Whether what the rules must stop was stopped when it was last tried, some seconds ago."""


@dataclass(frozen=True)
class Account:
    """What the engine should have in force now, and what became of the loads so far; replaced, never changed."""

    load: Load | None = None
    """None while no engine runs."""
    proof: Proof | None = None
    """Of that load, when it was made."""
    changing: bool = False
    """Another load is under way: what is in force may be either."""
    loads: int = 0
    refused: str = ""
    """Identifier of the set that was refused since the last success, and why."""
    why: str = ""
