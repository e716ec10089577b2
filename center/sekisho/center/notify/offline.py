"""When people are told that a box is out of reach, back, or unstable, and when not: decided from births and wills.

A box is told of as gone after its tenant's wait, as back after `BACK`. Four broken connections in six hours are told
once, as unstable, and then only a long silence is; six hours without one end that. When half of the boxes are lost at
once, or the broker is not heard, it is the centre's own outage: its staff is told, no customer, and every wait begins
anew when it is over.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from sekisho.center.notify.tables import moment, text
from sekisho.center.store import BoxState

Told = Literal["offline", "back", "flapping", "steady"]

BACK: Final = dt.timedelta(minutes=2)
FLAPS: Final = 4
FLAP_WINDOW: Final = dt.timedelta(hours=6)
FLAPPING_OFFLINE: Final = dt.timedelta(hours=1)
"""How long an unstable box must be gone to be told of as gone."""
OUTAGE_LEAST: Final = 3
DEAF: Final = dt.timedelta(minutes=1)
DEAF_TOLD: Final = dt.timedelta(minutes=5)
"""A broker not heard for so long is told to the staff; from `DEAF` on nothing is concluded from silence."""
SURGE: Final = dt.timedelta(minutes=3)
"""Connections that broke within this time of an outage or of a common return are not the boxes' own."""

FORGIVEN_ANEW: Final = dt.timedelta(seconds=30)
"""During an outage waits are moved on in such steps."""


class Watched(msgspec.Struct, frozen=True):
    """What is known of one box, and what its people were last told."""

    tenant: str
    state: str
    birth: int
    since: str
    """Since when it is in this state."""
    wait_from: str
    """From when its wait runs; later than `since` after an outage of ours."""
    told: Literal["on", "off", "flapping"] = "on"
    unstable: bool = False
    """People were told that it comes and goes, and not yet that this is over."""
    offline_at: str = ""
    """When people were last told that it is gone."""
    drops: list[str] = []
    """When its connection broke, within `FLAP_WINDOW`; at most 32."""


class Fleet(msgspec.Struct, frozen=True):
    """What is the centre's own: most of the boxes are lost at once, or it does not hear its broker."""

    outage_since: str = ""
    lost: int = 0
    deaf_since: str = ""
    """When the broker was heard last, while it is not heard."""
    deaf_told: bool = False

    @property
    def ours(self) -> bool:
        return bool(self.outage_since or self.deaf_since)


def seen(old: Watched | None, state: BoxState, now: dt.datetime) -> Watched:
    """What is known of a box now, before anything is decided."""
    if old is None:
        return Watched(state.tenant, state.state, state.birth, text(now), text(now))
    kept = [at for at in old.drops if moment(at) > now - FLAP_WINDOW]
    # Births grow, by how much says nothing (P22): a box takes the time for them.
    drops = [*kept, text(now)][-32:] if state.birth > old.birth else kept
    changed = state.state != old.state
    return msgspec.structs.replace(
        old,
        tenant=state.tenant,
        state=state.state,
        birth=state.birth,
        since=text(now) if changed else old.since,
        wait_from=text(now) if changed else old.wait_from,
        drops=drops,
    )


def fleet(old: Fleet, boxes: Sequence[Watched], heard: str, now: dt.datetime) -> Fleet:
    """Whether this is an outage of ours: it begins at half of the boxes and ends below a quarter.

    `heard`: when the broker was heard last (`center.pulse`); empty = nobody ever listened.
    """
    deaf = bool(heard) and now - moment(heard) > DEAF
    since = heard if deaf else ""
    told = deaf and (old.deaf_told or now - moment(heard) > DEAF_TOLD)
    return msgspec.structs.replace(_outage(old, boxes, now), deaf_since=since, deaf_told=told)


def _outage(old: Fleet, boxes: Sequence[Watched], now: dt.datetime) -> Fleet:
    counted = [box for box in boxes if box.told != "off"]
    lost = sum(box.state == "lost" for box in counted)
    if old.outage_since:
        return old if lost and 4 * lost >= len(counted) else Fleet()
    if lost >= OUTAGE_LEAST and 2 * lost >= len(counted):
        return Fleet(text(now), lost)
    return old


def surge(boxes: Sequence[Watched], now: dt.datetime) -> bool:
    """Whether half of the boxes came back at once: the broker was away, not they."""
    fresh = sum(any(moment(at) > now - SURGE for at in box.drops) for box in boxes)
    return fresh >= OUTAGE_LEAST and 2 * fresh >= len(boxes)


def forgiven(box: Watched, now: dt.datetime) -> Watched:
    """Without what an outage of ours did to it: its wait begins now, its last drop is not its own."""
    drops = [at for at in box.drops if moment(at) <= now - SURGE]
    if drops == box.drops and now - moment(box.wait_from) < FORGIVEN_ANEW:
        return box
    return msgspec.structs.replace(box, drops=drops, wait_from=text(now))


def judge(box: Watched, wait: dt.timedelta, now: dt.datetime) -> tuple[Watched, Told | None]:
    """What people are told now, if anything; a `wait` of zero means never."""
    if not wait:
        return msgspec.structs.replace(box, told="on"), None
    for_ = now - moment(box.wait_from)
    gone = box.state != "on"
    if box.told == "on" and len(box.drops) >= FLAPS:
        return msgspec.structs.replace(box, told="flapping", unstable=True), "flapping"
    if box.told == "on" and gone and for_ >= wait:
        return msgspec.structs.replace(box, told="off", offline_at=text(now)), "offline"
    if box.told == "flapping" and gone and for_ >= _unstable_wait(box, wait, now):
        return msgspec.structs.replace(box, told="off", offline_at=text(now)), "offline"
    if box.told == "flapping" and not gone and not box.drops:
        return msgspec.structs.replace(box, told="on", unstable=False), "steady"
    if box.told == "off" and not gone and for_ >= BACK:
        return msgspec.structs.replace(box, told="flapping" if box.unstable else "on"), "back"
    return box, None


def _unstable_wait(box: Watched, wait: dt.timedelta, now: dt.datetime) -> dt.timedelta:
    """Longer when its people were told only lately: a box that comes and goes is told of rarely."""
    lately = box.offline_at and now - moment(box.offline_at) < FLAP_WINDOW
    return max(wait, FLAP_WINDOW if lately else FLAPPING_OFFLINE)
