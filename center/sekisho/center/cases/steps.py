"""What may follow what in a case: pure decisions, no clock, no database. The only place that changes a case's state.

    open -> scanning -> asked -> dispatched -> closed

The terms (Article 4(1)(3)) let somebody come only after the customer has run a full scan with current definitions, for
devices of the business, within the window: `asked` cannot be reached without these. `closed` is for ever; what happens
afterwards opens another case. Only the centre's people close, so that nobody at the office gives the right to on-site
help away with one press.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, Literal, get_args

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.cases.window import Window

State = Literal["open", "scanning", "asked", "dispatched", "closed"]
Check = Literal["isolated", "ours", "updated", "scanned"]
CHECKS: Final[tuple[Check, ...]] = get_args(Check)
DEMANDED: Final[tuple[Check, ...]] = ("ours", "updated", "scanned")
"""Without these nobody may be asked to come; `isolated` is good advice."""
Finding = Literal["cleaned", "remains", "nothing"]
FINDINGS: Final[tuple[Finding, ...]] = get_args(Finding)
Outcome = Literal["helped", "solved", "no_need", "false_alarm", "over"]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
TEXT_CAP: Final = 1000
WORD_CAP: Final = 120


class Refused(RejectedInput):
    """The case's rules do not allow it; `code` names the sentence that says why."""

    def __init__(self, code: str) -> None:
        super().__init__(f"The case does not allow this: {code}.")
        self.code = code


class Tick(msgspec.Struct, frozen=True):
    """One step of the checklist, done."""

    who: str
    at: str


class Work(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a case stands."""

    state: State = "open"
    checks: dict[Check, Tick] = {}
    finding: Finding | Literal[""] = ""
    """What the full scan found."""
    asked_at: str = ""
    contact: str = ""
    """Whom and where to call."""
    vendor: str = ""
    visit: str = ""
    """The day somebody comes or came, YYYY-MM-DD."""
    used: bool | None = None
    """Whether the visit counts as a use of the insurance; None: nobody has said."""
    outcome: Outcome | Literal[""] = ""

    @property
    def ready(self) -> bool:
        """Whether everything is done that the terms want first."""
        return all(check in self.checks for check in DEMANDED)


class Mark(msgspec.Struct, frozen=True, tag="check"):
    """A step of the checklist is done, or was not."""

    check: Check
    done: bool
    finding: Finding | Literal[""] = ""


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """The customer wants somebody to come."""

    contact: str


class Withdraw(msgspec.Struct, frozen=True, tag="withdraw"):
    """The customer does not any more."""


class Dispatch(msgspec.Struct, frozen=True, tag="dispatch"):
    """The customer has ordered a visit of one of the vendors."""

    vendor: str
    visit: dt.date


class Count(msgspec.Struct, frozen=True, tag="count"):
    """Whether the visit counts as a use of the insurance."""

    used: bool


class Close(msgspec.Struct, frozen=True, tag="close"):
    """The case is over."""

    outcome: Outcome
    why: str


class Note(msgspec.Struct, frozen=True, tag="note"):
    """Somebody writes something down."""

    text: str


Move = Mark | Ask | Withdraw | Dispatch | Count | Close | Note


def step(work: Work, move: Move, who: str, now: dt.datetime, window: Window) -> Work:
    """The case after the move.

    Raises:
        Refused: it is not allowed now; the case stays as it is.

    """
    if work.state == "closed":
        raise Refused("closed")
    match move:
        case Mark():
            return _mark(work, move, who, now)
        case Ask():
            return _ask(work, move, now, window)
        case Withdraw():
            _only(work, "asked")
            return msgspec.structs.replace(work, state="scanning", asked_at="", contact="")
        case Dispatch():
            _only(work, "asked")
            _said(move.vendor)
            return msgspec.structs.replace(work, state="dispatched", vendor=move.vendor, visit=move.visit.isoformat())
        case Count():
            _only(work, "dispatched")
            if move.used and dt.date.fromisoformat(work.visit) > window.last_day:
                raise Refused("late_visit")
            return msgspec.structs.replace(work, used=move.used)
        case Close():
            if work.state == "dispatched" and work.used is None:
                raise Refused("uncounted")
            if move.outcome == "helped" and work.state != "dispatched":
                raise Refused("nobody_came")
            _said(move.why)
            return msgspec.structs.replace(work, state="closed", outcome=move.outcome)
        case Note():
            _said(move.text)
            return work


def _mark(work: Work, move: Mark, who: str, now: dt.datetime) -> Work:
    _only(work, "open", "scanning")
    if move.check == "scanned" and move.done:
        if "updated" not in work.checks:
            raise Refused("update_first")
        if not move.finding:
            raise Refused("no_finding")
    checks = {check: tick for check, tick in work.checks.items() if check != move.check}
    finding = work.finding
    if move.done:
        checks[move.check] = Tick(who, now.astimezone(dt.UTC).isoformat(timespec="seconds"))
        finding = move.finding if move.check == "scanned" else finding
    elif move.check in ("updated", "scanned"):  # a scan counts with the definitions it was made with
        checks.pop("scanned", None)
        finding = ""
    return msgspec.structs.replace(work, state="scanning", checks=checks, finding=finding)


def _ask(work: Work, move: Ask, now: dt.datetime, window: Window) -> Work:
    _only(work, "scanning")
    if not work.ready:
        raise Refused("unready")
    if not window.open(now):
        raise Refused("window_over")
    _said(move.contact)
    at = now.astimezone(dt.UTC).isoformat(timespec="seconds")
    return msgspec.structs.replace(work, state="asked", asked_at=at, contact=move.contact)


def _only(work: Work, *states: State) -> None:
    if work.state not in states:
        raise Refused("not_now")


def _said(text: str) -> None:
    if not text.strip():
        raise Refused("empty")
