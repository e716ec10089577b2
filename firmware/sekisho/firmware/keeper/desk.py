"""What is asked at the daemon's desk: by the box's page, its button, the command, the jobs. And how it answers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Final, Literal

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.firmware.keeper import facts, told, windows
from sekisho.firmware.keeper.journal import IRREVOCABLE, Choice, Ended, Journal, Running, State
from sekisho.policy.overlay import Restart

USERS: Final = ("sekisho-page", "sekisho-jobs", "sekisho-button")
NOW_S: Final = 3600.0
""""Now" holds so long: a box that was switched off in between and comes back later asks again."""
AHEAD_S: Final = 31 * 86_400.0
"""An hour can be chosen, or the question put off, this far ahead."""

_Counter = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
_By = Annotated[str, msgspec.Meta(pattern=r"^(local-page|button|command|job [0-9A-HJKMNP-TV-Z]{26})\Z")]
_Seconds = Annotated[float, msgspec.Meta(ge=0)]
_Mode = Literal["", "ask", "window", "asap"]


class Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="status"):
    """How it is."""


class Refresh(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="refresh"):
    """Ask the channel what is newest."""


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="stage"):
    """Fetch a release and have it ready; 0: the newest. Nothing in use changes."""

    counter: _Counter = 0
    by: _By = "command"
    mode: Literal["ask", "window", "asap"] = "ask"
    deadline: _Seconds = 0
    """Unix seconds: by when it should be in use; it restarts nothing."""
    max_bytes: _Counter = 0
    again: bool = False
    """Also one that was tried here and went back."""


class Activate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="activate"):
    """Use it: now, from `at` on (unix seconds), or in the weekly window. What interrupts is the customer's to choose:
    of a job only `mode` counts then.
    """

    counter: _Counter
    by: _By
    at: _Seconds = 0
    window: bool = False
    mode: _Mode = ""


class Postpone(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="postpone"):
    """Not now; ask again at `until` (unix seconds)."""

    counter: _Counter
    until: _Seconds
    by: _By


class Withdraw(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="withdraw"):
    """Take back what `by` chose about its activation; it stays staged."""

    counter: _Counter
    by: _By


class Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="cancel"):
    """Give it up, until it is too late to."""

    counter: _Counter
    by: _By


class Rollback(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="rollback"):
    """Back to the release before, `to`."""

    to: _Counter
    by: _By


Question = Status | Refresh | Stage | Activate | Postpone | Withdraw | Cancel | Rollback


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """A release on its way."""

    counter: int
    version: str
    state: str
    tier: int
    """0: not known yet."""
    urgent: bool = False
    why: str = ""
    detail: str = ""
    by: str = ""
    chosen_by: str = ""
    """Who chose when it is activated; empty: nobody did."""
    chosen_at: float = 0.0
    chosen_window: bool = False
    postponed: float = 0.0
    deadline: float = 0.0
    staged: float = 0.0
    expected_s: float = 0.0
    """Interruption to be expected, by this box's own; 0: none, or not measured yet."""
    measured: int = 0
    """Interruptions of this tier that were measured."""
    notes_ja: str = ""
    notes_en: str = ""
    rollback: bool = False
    mode: str = "ask"
    took_s: float = -1.0


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to every question: how it is now. Times are unix seconds."""

    running: Running
    previous: Running
    newest: int = 0
    newest_version: str = ""
    way: Way | None = None
    last: Ended | None = None
    refused: dict[int, str] = {}
    grace_until: float = 0.0
    window_at: float = 0.0
    """When the weekly window opens next (now, while it is open); 0: there is none."""
    said: str = ""
    """What the daemon did with the question, or what it said last of itself."""


def shown(journal: Journal, running: Running, window_at: float, said: str) -> Shown:
    """The daemon's account of itself."""
    return Shown(
        running=running, previous=journal.previous, newest=journal.newest, newest_version=journal.newest_version,
        way=_way(journal), last=journal.last, refused=journal.refused, grace_until=journal.grace_until,
        window_at=window_at, said=said[:500],
    )  # fmt: skip


def _way(journal: Journal) -> Way | None:
    found = journal.attempt
    if found is None:
        return None
    known = found.release is not None or found.rollback
    choice = found.choice
    return Way(
        counter=found.counter, version=found.version, state=str(found.state), tier=found.tier if known else 0,
        urgent=found.urgent, why=found.why, detail=found.detail, by=found.by,
        chosen_by=choice.by if choice is not None else "", chosen_at=choice.at if choice is not None else 0.0,
        chosen_window=choice is not None and choice.window, postponed=found.postponed, deadline=found.deadline,
        staged=found.staged, expected_s=told.expected(journal, found.tier),
        measured=sum(one.tier == found.tier for one in journal.history),
        notes_ja=found.release.notes_ja if found.release is not None else "",
        notes_en=found.release.notes_en if found.release is not None else "", rollback=found.rollback,
        mode=found.mode, took_s=found.took_s,
    )  # fmt: skip


class Counter:
    """Answers one question; called on the desk's threads. `journal` and `running` say how it is, `put` passes it on."""

    def __init__(
        self,
        journal: Callable[[], Journal],
        running: Callable[[], Running],
        weekly: Callable[[], tuple[Restart | None, str]],
        put: Callable[[facts.Event], None],
        said: Callable[[], str],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._journal, self._running, self._weekly = journal, running, weekly
        self._put, self._said, self._wall = put, said, wall

    def answer(self, question: bytes) -> Iterator[bytes]:
        """One frame.

        Raises:
            RejectedInput: no question, or it cannot be done as things are; the message says why.

        """
        try:
            asked: Question = msgspec.json.decode(question, type=Question)
        except msgspec.MsgspecError as err:
            raise RejectedInput(f"The question is not understood: {err}.") from err
        said = self._take(asked, self._wall())
        window = windows.next_open(*self._weekly(), self._wall())
        yield msgspec.json.encode(shown(self._journal(), self._running(), window, said or self._said()))

    def _take(self, asked: Question, now: float) -> str:
        match asked:
            case Status():
                return ""
            case Refresh():
                self._put(facts.Looking())
                return "The channel is asked."
            case Stage():
                return self._stage(asked)
            case Rollback(to, by):
                return self._rollback(to, by)
            case Activate():
                self._may(asked.counter)
                self._put(facts.Chosen(asked.counter, self._choice(asked, now), asked.mode))
                return f"Release {asked.counter} is activated {_when(asked)}."
            case Postpone(counter, until, by):
                self._may(counter)
                if not now < until <= now + AHEAD_S:
                    raise RejectedInput("It can be put off for a month at most.", "Choose a time within that.")
                self._put(facts.Postponed(counter, until, by))
                return f"Release {counter} waits."
            case Withdraw(counter, by):
                self._may(counter)
                self._put(facts.Withdrawn(counter, by))
                return f"Release {counter} waits."
            case Cancel(counter, by):
                self._may(counter)
                self._put(facts.Canceled(counter, by))
                return f"Release {counter} is given up."

    def _stage(self, asked: Stage) -> str:
        attempt = self._journal().attempt
        if attempt is not None and attempt.state in IRREVOCABLE and attempt.counter != asked.counter:
            raise RejectedInput(f"Release {attempt.counter} is being tried.", "Ask again in a few minutes.")
        self._put(
            facts.Asked(
                counter=asked.counter, by=asked.by, mode=asked.mode, deadline=asked.deadline,
                max_bytes=asked.max_bytes, again=asked.again,
            )
        )  # fmt: skip
        return f"Release {asked.counter} is fetched." if asked.counter else "The newest release is fetched."

    def _rollback(self, to: int, by: str) -> str:
        found = self._journal()
        if found.attempt is not None and found.attempt.state in IRREVOCABLE:
            raise RejectedInput(f"Release {found.attempt.counter} is being tried.", "Ask again in a few minutes.")
        if found.previous == Running() or found.previous.counter != to:
            raise RejectedInput(f"Release {to} is not on this box; the one before is {found.previous.counter}.")
        self._put(facts.Wanted(to, by))
        return f"Back to release {to}."

    def _may(self, counter: int) -> None:
        attempt = self._journal().attempt
        if attempt is None or attempt.counter != counter:
            raise RejectedInput(f"Release {counter} is not on its way.", "See `sekisho firmware status`.")
        if attempt.state in IRREVOCABLE:
            raise RejectedInput(f"too_late: release {counter} is being tried already.", "The trial decides.")

    def _choice(self, asked: Activate, now: float) -> Choice:
        held = re.match("job ", asked.by) is not None
        if asked.window:
            if self._weekly()[0] is None and not held:  # a job waits until there is one
                raise RejectedInput("There is no weekly window.", "Set one in the portal, or choose an hour.")
            return Choice(by=asked.by, until=0.0, window=True)
        if asked.at > now + AHEAD_S:
            raise RejectedInput("That is more than a month ahead.", "Choose a time within that.")
        at = asked.at if asked.at > now else 0.0
        return Choice(by=asked.by, at=at, until=0.0 if held else (at + windows.MISSED_S if at else now + NOW_S))


def _when(asked: Activate) -> str:
    return "in the weekly window" if asked.window else "at the time chosen" if asked.at else "now"


def staged(found: Shown) -> Way | None:
    """The release that waits for a word."""
    return found.way if found.way is not None and found.way.state in (State.STAGED, State.ARMED) else None
