"""What happens to the keeper's machine (events, past facts) and what it asks for (commands, imperatives)."""

from __future__ import annotations

from typing import Literal

import msgspec

from sekisho.appliance.core.muting import Muting
from sekisho.appliance.core.standing import Standing
from sekisho.signatures.keeper.journal import Kept, Step
from sekisho.signatures.published import Manifest
from sekisho.signatures.soak import Verdict

Kind = Literal["peer", "refused", "fault"]
"""Who must act: the other side (tried again), nobody (that set is not tried again), a person at this machine."""


class Started(msgspec.Struct, frozen=True):
    """The daemon began; `link` is the set `current` names, whole on the disk (empty id: none is)."""

    link: Kept
    outdated: bool = False
    """It was proven for other settings or by another engine."""


class Relinked(msgspec.Struct, frozen=True):
    """While no set was on its way, somebody else changed what `current` names."""

    link: Kept


class Asked(msgspec.Struct, frozen=True):
    """A person or the centre wants a refresh now; `again`: also of a set that was refused before."""

    again: bool = False


class Left(msgspec.Struct, frozen=True):
    """Operators want set `number` out of force, and what was before it back; `by`: their job."""

    number: int
    by: str


class Refreshed(msgspec.Struct, frozen=True):
    """The signed metadata is believed and newer than every floor."""

    manifest: Manifest
    unfit: str = ""
    """Why this box cannot use it; empty when it can."""
    current: bool = True
    """Whether this says that nothing newer exists: not so where an expired timestamp was accepted."""
    again: bool = False


class Fetched(msgspec.Struct, frozen=True):
    """The archive of the set on its way is here, verified."""


class Unpacked(msgspec.Struct, frozen=True):
    """Its sources are on the disk."""


class Tested(msgspec.Struct, frozen=True):
    """The engines of this machine take it whole."""

    kept: Kept
    trial: tuple[int, ...] = ()
    """Dropping rules that only report during the soak."""


class Switched(msgspec.Struct, frozen=True):
    """`current` names it."""


class Failed(msgspec.Struct, frozen=True):
    """A command came to nothing."""

    step: Step
    """At which it was given; `IDLE` for every `Refresh`, which says nothing about the set on its way."""
    kind: Kind
    why: str


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen once a second."""

    link: str = ""
    engine: Standing | None = None
    scanner: Standing | None = None
    wait: str = ""
    """Why a test must not begin now (memory, inspectors away); empty when it may."""
    hint: int = 0
    """The newest number the centre has spoken of."""
    silent: str = ""
    """Why there is nobody to ask what is newest; empty when there is."""
    off: str = ""
    """Why the channel keeps out (the owner's own rules are in force); empty when it does not."""


class Heard(msgspec.Struct, frozen=True):
    """What the watch found over the set `id`, on its soak or in force."""

    id: str
    verdict: Verdict


Event = Started | Relinked | Asked | Left | Refreshed | Fetched | Unpacked | Tested | Switched | Failed | Looked | Heard


class Refresh(msgspec.Struct, frozen=True):
    """Ask the repository what is newest."""

    again: bool = False


class Fetch(msgspec.Struct, frozen=True):
    """Have the archive here."""

    manifest: Manifest


class Unpack(msgspec.Struct, frozen=True):
    manifest: Manifest


class Test(msgspec.Struct, frozen=True):
    manifest: Manifest


class Switch(msgspec.Struct, frozen=True):
    """Say what is muted, then let `current` name the set `id`; `keep` stays on the disk beside it."""

    id: str
    mine: Muting
    keep: str


class Mute(msgspec.Struct, frozen=True):
    """Say what is muted."""

    mine: Muting


class Watch(msgspec.Struct, frozen=True):
    """Begin to listen how loud the set in force is; `id` empties with it what was heard of another."""

    id: str


class Discard(msgspec.Struct, frozen=True):
    """Remove what was fetched and made for this number."""

    number: int


class Tidy(msgspec.Struct, frozen=True):
    """Remove what belongs to no set of these."""

    ids: tuple[str, ...]
    numbers: tuple[int, ...]


Command = Refresh | Fetch | Unpack | Test | Switch | Mute | Watch | Discard | Tidy
