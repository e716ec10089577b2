"""The engine's counter (core.desk): operators' jobs ask here for another engine in the place of the one that works.

A question names the engine that is to be replaced. Where another one works by now that was done, by whom or whatever,
and nothing is begun: so a question that is repeated, or comes late, replaces no engine twice.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Protocol

import msgspec

from sekisho.appliance.account import EngineState
from sekisho.appliance.core.boot import boot_id
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.settings import Settings

USERS: Final = ("sekisho-jobs",)


class Show(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="show"):
    """How it is; `number`: of the question whose outcome is wanted."""

    number: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Renew(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="renew"):
    """Put another engine in the place of `engine`, as `Told.engine` named it."""

    number: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    engine: Annotated[str, msgspec.Meta(max_length=100)]
    may_restart: bool = False
    """By a restart, which inspects nothing for some seconds, where there is no room for two engines."""


class Told(msgspec.Struct, frozen=True):
    """The answer to both."""

    engine: str
    """One engine process, like no other of this box; empty: none runs."""
    well: bool
    """It runs with its rules, and stopped what it must when it was last tried."""
    busy: bool = False
    """It is being renewed, loads rules, or is only starting: nothing is begun now."""
    asked: bool = False
    """The question `number` is the last that was begun here; `over`: it has its outcome."""
    over: bool = False
    why: str = ""
    """Why it did not come about; empty where it did."""
    scarce: bool = False
    """For there is no room for two engines at once."""


class Engine(Protocol):
    """`engine.Engine`, as far as it is asked here."""

    @property
    def state(self) -> EngineState: ...

    def request_renew(self, *, may_restart: bool = False) -> None: ...


def socket_of(settings: Settings) -> Path:
    return settings.run / "appliance" / "engine.sock"


class Counter:
    """Answers one question; called on the desk's threads. What it began is forgotten with the daemon."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._number = ""
        self._answered = 0

    def answer(self, question: bytes) -> Iterator[bytes]:
        """One frame.

        Raises:
            RejectedInput: no question.

        """
        try:
            asked = msgspec.json.decode(question, type=Show | Renew)
        except msgspec.MsgspecError as err:
            raise RejectedInput(f"The question is not understood: {err}.") from err
        with self._lock:
            found = self._told(asked.number)
            if isinstance(asked, Renew) and asked.engine == found.engine and not found.busy and not found.asked:
                self._number, self._answered = asked.number, self._engine.state.renewals
                self._engine.request_renew(may_restart=asked.may_restart)
                found = self._told(asked.number)
            yield msgspec.json.encode(found)

    def _told(self, number: str) -> Told:
        state = self._engine.state
        begun = bool(self._number) and state.renewals <= self._answered
        mine = bool(number) and number == self._number
        well = state.phase == "running" and state.canary == "caught" and not state.renewing
        over = mine and not begun
        return Told(
            engine=engine_of(state.pid), well=well, busy=begun or state.renewing or state.phase != "running",
            asked=mine, over=over, why=state.renewal[:300] if over else "", scarce=over and state.scarce,
        )  # fmt: skip


def engine_of(pid: int) -> str:
    """The boot, the process, and when in that boot it began (proc(5), `starttime`); empty where it does not run."""
    boot = boot_id()
    with contextlib.suppress(OSError, IndexError, ValueError):
        began = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return f"{boot} {pid} {began}" if boot else ""
    return ""
