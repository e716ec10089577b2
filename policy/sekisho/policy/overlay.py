"""What the customer decides at the centre, and how it is laid over the box's own policy file. Pure.

A part of `model.Policy`, in JSON, without files: nothing that comes from outside may name a path of the box. The file
on the box is its owner's and goes before: what it names by the same name, or decides about a category or application,
is left as it is there, and counted. Bounds keep a careless hour at the centre from becoming more rules than an engine
can hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.policy import categories, source
from sekisho.policy.compiler import compile_policy
from sekisho.policy.lists import from_words
from sekisho.policy.model import (
    Application,
    Exemption,
    Group,
    Isolation,
    Keyword,
    Policy,
    Schedule,
    Signatures,
    Strict,
    UrlCategory,
    WebGuard,
)

MAX_WORDS: Final = 500
"""Keywords, names and addresses in one kind of entry, all entries together."""
MAX_EXCEPTIONS: Final = 200
_Some = msgspec.Meta(max_length=100)


class Restart(Strict, frozen=True, kw_only=True):
    """When the box may restart by itself, in the overlay's zone."""

    days: Annotated[tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...], msgspec.Meta(max_length=7)]
    start: Annotated[str, msgspec.Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d\Z")]
    hours: Annotated[int, msgspec.Meta(ge=1, le=12)] = 3


class Update(Strict, frozen=True, kw_only=True):
    """What the customer chose about one release that interrupts; it counts for no other."""

    counter: Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
    when: Literal["now", "tonight", "window", "later"]
    """now and tonight: from `since` on; window: in `restart` of the overlay; later: not before `since` is it asked
    again, and until then nobody else's choice but the customer's on the box itself counts."""
    since: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    """Unix seconds; likewise `until`: who hears of it afterwards does nothing and asks again. 0: no end."""
    until: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0
    by: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Who chose, as people know them."""
    chosen: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0
    """Unix seconds when it was chosen, and more with every choice of this box: the greatest is the one that counts."""

    @property
    def serial(self) -> int:
        """`chosen`; of a choice that has none, its `since`."""
        return self.chosen or self.since


class Overlay(Strict, frozen=True, kw_only=True, omit_defaults=True):
    """The whole document."""

    zone: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Of its schedules; used where the box's own file has neither a zone nor schedules."""
    group: Annotated[tuple[Group, ...], msgspec.Meta(max_length=300)] = ()
    schedule: Annotated[tuple[Schedule, ...], _Some] = ()
    web_guard: Annotated[tuple[WebGuard, ...], _Some] = ()
    url_category: Annotated[tuple[UrlCategory, ...], _Some] = ()
    keyword: Annotated[tuple[Keyword, ...], _Some] = ()
    application: Annotated[tuple[Application, ...], _Some] = ()
    isolation: Annotated[tuple[Isolation, ...], _Some] = ()
    exception: Annotated[tuple[Exemption, ...], msgspec.Meta(max_length=MAX_EXCEPTIONS)] = ()
    signatures: Annotated[tuple[Signatures, ...], _Some] = ()
    restart: Restart | None = None
    firmware: Update | None = None
    firmware_asap: bool = False
    """The contract lets a release that closes a hole restart the box without asking, where its job says so."""


EMPTY: Final = Overlay()
encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Overlay).decode


def parse(document: bytes) -> Overlay:
    """The overlay in a document.

    Raises:
        RejectedInput: no JSON, an unknown key, a wrong type, or more than its bounds; the message says what.

    """
    try:
        overlay = _decode(document)
        _bound(overlay)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as err:
        raise RejectedInput(f"The settings cannot be used: {err}.", source.EVERYTHING_KEPT) from err
    return overlay


def prove(overlay: Overlay) -> None:
    """Refuse what no box whose own file is empty could put in force: it is compiled as a box does it.

    Raises:
        RejectedInput: a bound, a name or an address is wrong; the message says which.

    """
    nowhere = Path("/nonexistent")
    try:
        _bound(overlay)
        policy, _ = laid_over(Policy(), overlay)
        source.check(policy)
        for exemption in overlay.exception:
            from_words(exemption.domains)
        guards = {
            guard.name: categories.gather((), (*guard.domains, *guard.urls, *guard.addresses), nowhere, guard.name)
            for guard in overlay.web_guard
        }
        compile_policy(policy, categories.collect(policy, nowhere), guards, nowhere)
    except (ValueError, OverflowError) as err:
        raise RejectedInput(f"The settings cannot be used: {err}.") from err


def _bound(overlay: Overlay) -> None:
    if any(guard.files for guard in overlay.web_guard):
        raise ValueError("settings of the centre may name no files")
    counts = (
        sum(len(entry.words) for entry in overlay.keyword),
        sum(len(guard.domains) + len(guard.urls) + len(guard.addresses) for guard in overlay.web_guard),
        sum(len(one.domains) + len(one.addresses) + len(one.sids) for one in overlay.exception),
        sum(len(choice.sids) + len(choice.classtypes) for choice in overlay.signatures),
        sum(len(group.devices) for group in overlay.group),
    )
    if max(counts) > MAX_WORDS:
        raise ValueError(f"more than {MAX_WORDS} words, names or addresses of one kind")


def laid_over(own: Policy, overlay: Overlay) -> tuple[Policy, int]:
    """The policy of both, the box's own going before, and how many entries of the overlay gave way to it."""
    gave_way = 0

    def beside(kind: str, name: str) -> tuple[Any, ...]:
        nonlocal gave_way
        mine = getattr(own, kind)
        taken = {getattr(entry, name) for entry in mine}
        new = [entry for entry in getattr(overlay, kind) if getattr(entry, name) not in taken]
        gave_way += len(getattr(overlay, kind)) - len(new)
        return (*mine, *new)

    def unnamed(kind: str, name: str) -> tuple[Any, ...]:
        nonlocal gave_way
        mine = getattr(own, kind)
        taken = {one for entry in mine for one in getattr(entry, name)}
        new = []
        for entry in getattr(overlay, kind):
            free = tuple(one for one in getattr(entry, name) if one not in taken)
            gave_way += len(getattr(entry, name)) - len(free)
            if free:
                new.append(msgspec.structs.replace(entry, **{name: free}))
        return (*mine, *new)

    merged = msgspec.structs.replace(
        own,
        zone=own.zone or ("" if own.schedule else overlay.zone),
        group=beside("group", "name"),
        schedule=beside("schedule", "name"),
        web_guard=beside("web_guard", "name"),
        url_category=unnamed("url_category", "categories"),
        keyword=beside("keyword", "name"),
        application=unnamed("application", "applications"),
        isolation=beside("isolation", "name"),
        exception=beside("exception", "id"),
        signatures=own.signatures + overlay.signatures,
    )
    return merged, gave_way
