"""Whether a release fits this box, and whether somebody chose already for all releases. Pure."""

from __future__ import annotations

from typing import Final

from sekisho.firmware.keeper.facts import Found, Looked
from sekisho.firmware.keeper.journal import Attempt, Journal, Running

STANDING: Final = frozenset({"window", "contract"})
"""Whose choice follows from how a job asks."""


def unfit(event: Found, attempt: Attempt, journal: Journal, running: Running) -> tuple[str, str] | None:
    """A code and a sentence, where it is not to be taken."""
    counter = event.release.counter
    if event.unfit:
        code, _, why = event.unfit.partition(": ")
        return code, why
    if counter == running.counter:
        return "already", "It is in use."
    if counter < max(journal.highest, running.counter):
        return "older", f"Release {journal.highest} was in use here, and nothing older is taken."
    if event.release.from_counter > running.counter:
        return "from", f"Release {event.release.from_counter} has to come before it."
    if counter in journal.refused and not attempt.again:
        return "refused", f"It was tried here before: {journal.refused[counter]}"
    return None


def standing(attempt: Attempt, sight: Looked) -> str:
    """Who chose already, for all releases: the customer's weekly window, or the contract."""
    if attempt.mode == "asap" and sight.asap:
        return "contract"
    return "window" if attempt.mode in ("window", "asap") and sight.restart is not None else ""
