"""What a rollout is: its rule, its rings, what is known of a box, and what is remembered of the whole. No behaviour."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from sekisho.appliance.core.jobs import Id, Job, Kind

State = Literal["running", "paused", "halted", "canceled", "done"]
"""halted: nobody more is asked, and who has not begun is told to leave it; paused: only the first of these."""
OVER: Final = frozenset({"canceled", "done"})
Why = Literal["", "bad", "silent", "worse", "absent", "hand"]
"""Why it halted: too many boxes without the release, one that fell silent trying it or many that were not heard again
since, boxes that do worse with it, too many of a ring that did not try it, or somebody said so."""

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Seconds = Annotated[int, msgspec.Meta(ge=1, le=90 * 86_400)]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a ring is over, and when everything stops. Seconds, and shares of a ring."""

    good: _Share = 0.98
    """Of the boxes that tried, at least so many have it."""
    bad: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.02
    """From so many of a ring that failed, went back, fell silent or do worse, it halts."""
    soak_s: Annotated[int, msgspec.Meta(ge=0, le=90 * 86_400)] = 86_400
    """How long a ring is watched before the next is asked."""
    silent_s: _Seconds = 1800
    """After the word that it begins to switch, a box must say what came of it within so long."""
    absent: _Share = 0.1
    """So many may not have been reached, or not have decided, when the ring passes at once; and of those that have it
    so many may be without a connection."""
    deadline_s: _Seconds = 3 * 86_400
    """Who has it and is without a connection for so long stays away: more than `absent` of them halt it."""
    absent_late: _Share = 0.5
    """and so many when `deadline_s` is over. Where more were not reached by then, it halts."""
    per_site: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 2
    """Boxes of one site that fetch at one time;"""
    site_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """and at most so many bytes at one time there, though always one box. 0: no such bound."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """The release, as `release.json` of the channel has it: what people are told of it. Other fields are left out."""

    counter: Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
    version: Annotated[str, msgspec.Meta(max_length=40)]
    hardware: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,32}$")]
    tier: Annotated[int, msgspec.Meta(ge=1, le=3)]
    length: Annotated[int, msgspec.Meta(ge=0)] = 0
    urgent: bool = False
    notes_ja: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    notes_en: Annotated[str, msgspec.Meta(max_length=2000)] = ""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One job and the one that takes it back, each signed off line or not yet."""

    job: Job
    cancel: Job
    envelope: bytes = b""
    cancel_envelope: bytes = b""


class Paper(msgspec.Struct, frozen=True, kw_only=True):
    """What (a part of) one ring is sent, all at once: a box does one after the other, and the last is what counts."""

    ring: Annotated[int, msgspec.Meta(ge=0)]
    steps: Annotated[list[Step], msgspec.Meta(min_length=1, max_length=2)]

    @property
    def job(self) -> Job:
        return self.steps[-1].job


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file between planning, signing and starting."""

    id: Id
    kind: Kind
    about: About
    rule: Rule
    papers: Annotated[list[Paper], msgspec.Meta(min_length=1, max_length=200)]

    @property
    def rings(self) -> list[list[str]]:
        """Boxes of each ring, in the order in which they are asked."""
        count = 1 + max(paper.ring for paper in self.papers)
        return [[box for one in self.papers if one.ring == n for box in one.job.boxes] for n in range(count)]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One box of a rollout, as the centre knows it now. Times are unix seconds by the centre's clock; 0: never."""

    box: str
    ring: int
    site: str = ""
    asked_at: float = 0.0
    """Since when the centre may send it the job."""
    state: str = ""
    """Of the job, `core.jobs.State`; empty: the box has not said anything of it."""
    step: str = ""
    why: str = ""
    word_at: float = 0.0
    """When its last word about the job or the release came."""
    expires: float = 0.0
    """When its job may not begin any more; 0: not known."""
    firmware: str = ""
    """What the box says of this very release, `telemetry.events.Firmware.state`, where that is its later word."""
    connected: bool = False
    lost_at: float = 0.0
    """Since when it is not connected; 0: it is."""
    worse: str = ""
    """What got worse since it has the release: drops, memory, heat, alerts."""
    forgiven: bool = False
    """It was bad when somebody resumed a rollout that had halted: known, and not counted again."""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives a restart. Times are unix seconds."""

    id: str
    kind: str
    state: State = "running"
    ring: int = 0
    """The ring that is being asked, or soaks."""
    began: float = 0.0
    """When its turn came, or when it was resumed."""
    soaked_s: float = 0.0
    """How long it has been watched since enough of it had the release."""
    looked_at: float = 0.0
    hearing_since: float = 0.0
    """Since when the centre hears its boxes without interruption: nobody is called silent by a centre that is deaf."""
    why: Why = ""
    why_ring: int = 0
    why_box: str = ""
    """One of them, for people to begin with."""
    why_number: int = 0
    """How many."""
    why_of: int = 0
    """Of how many."""
    why_detail: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from one look: the new state, and what the caller does in the same transaction."""

    rollout: Rollout
    release: list[str] = []
    """Boxes whose job may go out now."""
    withdraw: bool = False
    """Jobs that did not go out stay here; to who has one and has not ended goes the job that cancels it."""
    told: list[str] = []
    """What happened, as words for the record: ring, soak, halt, done."""
