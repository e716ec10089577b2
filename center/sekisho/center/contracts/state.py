"""How a contract goes from one state to the next; pure. What may follow what is written here and nowhere else.

    active -> ending -> ended -> deleting -> deleted
       ^________|________|

An end that was asked for may be withdrawn until it comes, and a customer may come back until the deletion begins.
What was begun to be deleted is never in force again. Days are the customer's own calendar days.
"""

from __future__ import annotations

import calendar
import datetime as dt
from typing import Final

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.customers import State

NOTICE_MONTHS: Final = 2
"""How long before its end a customer says so (terms, article 12)."""
EXPORT_MONTHS: Final = 3
"""How long after its end the data is there for the customer to take away."""
FURTHEST_DAYS: Final = 3660
REASON_CAP: Final = 500


class Contract(msgspec.Struct, frozen=True):
    """Where one customer's contract stands. Days are ISO dates; empty: not so far."""

    tenant: str
    state: State = "active"
    asked_on: str = ""
    asked_by: str = ""
    reason: str = ""
    ends_on: str = ""
    """The last day in force."""
    ended_on: str = ""
    """The first day without the service."""
    kept_until: str = ""
    """The last day on which the data is there."""


def months_after(day: dt.date, months: int) -> dt.date:
    """The same day of a later month, or that month's last day where it has no such day."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return dt.date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def earliest(today: dt.date) -> dt.date:
    """The first day a customer may name as the last one."""
    return months_after(today, NOTICE_MONTHS)


def ask_end(contract: Contract, by: str, last: dt.date, reason: str, today: dt.date, *, early: bool) -> Contract:
    """The customer wants it to end after `last`. `early`: the centre's staff may agree to a shorter notice.

    Raises:
        RejectedInput: it is not in force, or the day is too near or absurdly far.

    """
    _need(contract, "active", "ending")
    if last < (today if early else earliest(today)) or last > today + dt.timedelta(days=FURTHEST_DAYS):
        raise RejectedInput("The contract cannot end on this day.")
    return msgspec.structs.replace(
        contract, state="ending", asked_on=str(today), asked_by=by, reason=reason[:REASON_CAP], ends_on=str(last)
    )


def withdraw(contract: Contract) -> Contract:
    """It goes on after all.

    Raises:
        RejectedInput: nobody has asked for its end, or it has come.

    """
    _need(contract, "ending")
    return Contract(contract.tenant)


def end(contract: Contract, today: dt.date) -> Contract:
    """The day has come.

    Raises:
        RejectedInput: it has not, or there is no such contract.

    """
    _need(contract, "ending")
    if today <= dt.date.fromisoformat(contract.ends_on):
        raise RejectedInput(f"The contract is in force until {contract.ends_on}.")
    kept = months_after(today, EXPORT_MONTHS)
    return msgspec.structs.replace(contract, state="ended", ended_on=str(today), kept_until=str(kept))


def resume(contract: Contract) -> Contract:
    """The customer comes back before anything is deleted.

    Raises:
        RejectedInput: it has not ended, or the deletion has begun.

    """
    _need(contract, "ended")
    return Contract(contract.tenant)


def begin_deletion(contract: Contract, today: dt.date) -> Contract:
    """The time to take the data away is over.

    Raises:
        RejectedInput: it is not, or the contract has not ended.

    """
    _need(contract, "ended")
    if today <= dt.date.fromisoformat(contract.kept_until):
        raise RejectedInput(f"The data is kept until {contract.kept_until}.")
    return msgspec.structs.replace(contract, state="deleting")


def finish_deletion(contract: Contract) -> Contract:
    """Nothing is left.

    Raises:
        RejectedInput: the deletion has not begun.

    """
    _need(contract, "deleting")
    return msgspec.structs.replace(contract, state="deleted", asked_by="", reason="")


def _need(contract: Contract, *states: State) -> None:
    if contract.state not in states:
        raise RejectedInput(f"The contract of {contract.tenant} is {contract.state}.")
