"""What the firmware daemon may ask of root, in closed words, and what root says of it. The two meet in small files.

The daemon writes `wish.json` into a directory of its own; root's errand (`errands`) takes it away, does it, and writes
what became of it into one of root's. A wish has a number: who asks again for one that is being carried out, or was,
gets its outcome, and nothing is done twice. Both are of the release before during a trial, and of two releases for the
moment in which it ends: words are added, never changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings

CAP_BYTES: Final = 16 << 10
LOOK_S: Final = 0.2
_Name = Annotated[str, msgspec.Meta(pattern=r"^(\d{1,16}-[0-9a-f]{16})?\Z")]
"""Of a staged release; empty: the programs the system came with."""
_Signed = Annotated[str, msgspec.Meta(pattern=r"^\d{1,16}-[0-9a-f]{16}\Z")]
"""Of a release (`Release.name`), which root has proven to itself (`proof`)."""


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="wish", tag="stage"):
    """Unpack the bundle of a release of tier 1."""

    release: _Signed


class Install(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="wish", tag="install"):
    """Write a system image to the slot that does not run, and choose nothing."""

    release: _Signed


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="wish", tag="switch"):
    """Run from that release, one daemon after the other."""

    to: _Name
    back: bool = False
    """Away from what must not stay: every daemon is taken along, and nothing leads back to it."""


class Settle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="wish", tag="settle"):
    """Its trial is over: the release in use stays, if every daemon held and its own firmware daemon works."""


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="wish", tag="mark"):
    """Which slot the next start takes, or that the one that runs has proven itself."""

    what: Literal["other", "booted", "good"]


class Anew(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="wish", tag="anew"):
    """Restart the machine, in order."""


class Remove(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="wish", tag="remove"):
    """Remove every staged release but these, and but the one in use."""

    keep: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=8)]


Wish = Stage | Install | Switch | Settle | Mark | Anew | Remove


class Numbered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One wish."""

    number: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z.-]{1,80}\Z")]
    wish: Wish


class Outcome(msgspec.Struct, frozen=True):
    """What became of it."""

    number: str
    word: Literal["done", "refused", "unreachable", "fault"]
    said: str = ""
    """Where it is staged; or why not."""
    took_s: float = 0.0
    """Without traffic."""


def wish_file(settings: Settings) -> Path:
    return settings.firmware_run / "wish.json"


def errands_run(settings: Settings) -> Path:
    """Root's own; gone with the power."""
    return settings.run.with_name(settings.run.name + "-firmware-errands")


def outcome_file(settings: Settings) -> Path:
    return errands_run(settings) / "outcome.json"


def ask(
    settings: Settings, number: str, wish: Wish, limit_s: float, sleep: Callable[[float], None] = time.sleep
) -> Outcome:
    """Have it done; returns when it is. Waits at most `limit_s`.

    Raises:
        RejectedInput, PeerError, DeviceFault: as root's errand had it; nothing was changed, or it was taken back.

    """
    path = wish_file(settings)
    until = time.monotonic() + limit_s
    if outcome(settings, number) is None:
        try:
            write_atomic(path, msgspec.json.encode(Numbered(number, wish)))
        except OSError as err:
            raise DeviceFault(f"Cannot write {path}: {err.strerror}.") from err
    while (told := outcome(settings, number)) is None:
        if time.monotonic() > until:
            path.unlink(missing_ok=True)
            raise DeviceFault("Root's errand was not carried out in time.", "Restart the box if this repeats.")
        sleep(LOOK_S)
    path.unlink(missing_ok=True)  # written while root's errand was at work for our predecessor
    return judged(told)


def judged(told: Outcome) -> Outcome:
    """What root did; raises what it could not do, as `ask`."""
    match told.word:
        case "done":
            return told
        case "refused":
            raise RejectedInput(told.said)
        case "unreachable":
            raise PeerError(told.said)
        case _:
            raise DeviceFault(told.said)


def outcome(settings: Settings, number: str) -> Outcome | None:
    """What root said of that wish; None: nothing yet."""
    try:
        with outcome_file(settings).open("rb") as source:
            found = msgspec.json.decode(source.read(CAP_BYTES), type=Outcome)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if found.number == number else None
