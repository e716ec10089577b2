"""Rules of the set in force that are not to work for now: two files of one form, read by both inspectors.

`mine` is written by the signatures daemon (what the soak found too loud, and new dropping rules on trial), `centre` by
telemetry (what people at the monitoring centre switched off for all boxes). A rule in either is muted. A file that
is not there says nothing; a damaged one is taken for one that is not there and must be written anew by its owner.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from sekisho.appliance.core.fsio import open_plain, stamp, write_atomic
from sekisho.appliance.core.settings import Settings

MAX_SIDS: Final = 4096
MAX_NAMES: Final = 1024
MAX_TRIAL: Final = 1 << 16
MAX_BYTES: Final = 1 << 20
"""What the caps below make at most fits in."""

Writer = Literal["mine", "centre"]
_Sid = Annotated[int, msgspec.Meta(ge=1, lt=1 << 32)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


class Muting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out, and what only reports."""

    sids: Annotated[tuple[_Sid, ...], msgspec.Meta(max_length=MAX_SIDS)] = ()
    """Suricata rules that are left out, ascending."""
    yara: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=MAX_NAMES)] = ()
    """YARA rules whose matches count for nothing, ascending."""
    on_trial: Annotated[tuple[_Sid, ...], msgspec.Meta(max_length=MAX_TRIAL)] = ()
    """Dropping Suricata rules that only report until their soak is over; the centre leaves this empty."""


def path_of(settings: Settings, writer: Writer) -> Path:
    """Where each writes, in a directory of its own."""
    return settings.channel / "muting.json" if writer == "mine" else settings.fleet / "muting.json"


def write(settings: Settings, writer: Writer, muting: Muting) -> None:
    """Put `muting` in the place of what `writer` said before, durably.

    Raises:
        OSError: disk full or read-only; the old file stays.

    """
    write_atomic(path_of(settings, writer), msgspec.json.encode(muting), 0o640)


def both(settings: Settings) -> Muting:
    """Both files as one."""
    found = [_read(path_of(settings, writer)) for writer in ("mine", "centre")]
    return Muting(
        sids=tuple(sorted({sid for one in found for sid in one.sids})),
        yara=tuple(sorted({name for one in found for name in one.yara})),
        on_trial=found[0].on_trial,
    )


def stamps(settings: Settings) -> tuple[tuple[int, int], ...]:
    """Changes when either file is replaced."""
    return tuple(stamp(path_of(settings, writer)) for writer in ("mine", "centre"))


def _read(path: Path) -> Muting:
    try:
        with open_plain(path, MAX_BYTES) as source:
            return msgspec.json.decode(source.read(MAX_BYTES), type=Muting)
    except (OSError, msgspec.MsgspecError):
        return Muting()
