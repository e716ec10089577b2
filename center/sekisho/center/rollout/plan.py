"""Which box is in which ring, and the jobs for it. Pure.

The order is a stable hash of rollout and box, so that it is not always the same offices that go first, and spread: of
each customer one box, each of another site, before any customer's second. Boxes that are not connected come last: on
them nothing can be learned.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.jobs import BOXES_CAP, LIFE_S, TWO_PEOPLE, Job, Kind, When
from sekisho.center.rollout.model import About, Paper, Plan, Rule, Step

FIRST: Final = 3
"""Boxes of the first ring;"""
SHARES: Final = (0.05, 0.25, 1.0)
"""and how many of all have been asked after each ring that follows."""
FLEET_CAP: Final = 200_000


class Candidate(msgspec.Struct, frozen=True):
    """One box that might take it."""

    box: str
    tenant: str
    site: str = ""
    connected: bool = True
    running: int = 0
    """Number of the release in use, as far as it is known."""


def order(rollout: str, boxes: Iterable[Candidate]) -> list[str]:
    """The boxes, those to begin with first."""
    by_hash = sorted(boxes, key=lambda one: (not one.connected, _hash(rollout, one.box)))
    in_site: Counter[tuple[str, str]] = Counter()
    in_tenant: Counter[str] = Counter()
    ranked = []
    for place, one in enumerate(by_hash):
        site = (one.tenant, one.site or one.box)
        ranked.append((not one.connected, in_site[site], place, one))
        in_site[site] += 1
    ranked.sort(key=lambda row: row[:3])
    spread = []
    for place, (away, _, _, one) in enumerate(ranked):
        spread.append((away, in_tenant[one.tenant], place, one.box))
        in_tenant[one.tenant] += 1
    return [row[3] for row in sorted(spread)]


def rings(
    rollout: str,
    boxes: Sequence[Candidate],
    chosen: Sequence[Sequence[str]] = (),
    first: int = FIRST,
    shares: Sequence[float] = SHARES,
) -> list[list[str]]:
    """Boxes of each ring; `chosen` rings come before all others, none is empty, no box is in two.

    Raises:
        RejectedInput: a chosen box is unknown or named twice, or there is none at all.

    """
    known = {one.box for one in boxes}
    named = [box for ring in chosen for box in ring]
    if len(boxes) > FLEET_CAP:
        raise RejectedInput(f"A rollout is for at most {FLEET_CAP} boxes.")
    if unknown := sorted(set(named) - known):
        raise RejectedInput(f"The centre knows no box {unknown[0]!r} that could take this.")
    if len(set(named)) < len(named):
        raise RejectedInput("A box is named in two rings.", "Name every box once.")
    rest = order(rollout, [one for one in boxes if one.box not in set(named)])
    made = [list(ring) for ring in chosen if ring]
    edges = [] if chosen else [min(first, len(rest))]
    edges += [math.ceil(share * len(boxes)) - len(named) for share in shares]
    done = 0
    for edge in edges:
        if edge > done:
            made.append(rest[done:edge])
            done = min(edge, len(rest))
    made = [ring for ring in made if ring]
    if not made:
        raise RejectedInput("There is no box for this rollout.", "See: sekisho center status")
    return made


def plan(
    id_: str,
    kind: Kind,
    about: About,
    rule: Rule,
    of: Sequence[Sequence[str]],
    now: int,
    ids: Iterable[str],
    *,
    args: dict[str, str],
    when: When | None = None,
    life_s: int = 60 * 86_400,
) -> Plan:
    """The jobs of these rings, to be signed. `ids`: new ULIDs, two for each job.

    To switch to a release it must be on the disk: for "fw.activate" the job that fetches it goes before.

    Raises:
        RejectedInput: it lives too long, or jobs of this kind do not go out in rings.

    """
    if not 0 < life_s <= LIFE_S:
        raise RejectedInput(f"A job lives at most {LIFE_S // 86_400} days.")
    if kind in TWO_PEOPLE or kind in ("fw.cancel", "job.cancel", "support.open", "support.close"):
        raise RejectedInput(f"Jobs of kind {kind} are not sent in rings.", "Send it to the boxes it is for.")
    fresh = iter(ids)
    papers = []
    for number, ring in enumerate(of):
        for start in range(0, len(ring), BOXES_CAP):
            common: dict[str, Any] = {"boxes": list(ring[start : start + BOXES_CAP]), "nbf": now, "exp": now + life_s}
            kinds: list[Kind] = ["fw.stage", kind] if kind == "fw.activate" else [kind]
            steps = []
            for one in kinds:
                job = Job(id=next(fresh), kind=one, args=args, when=when or When(), rollout=id_, **common)
                cancel = Job(id=next(fresh), kind="job.cancel", args={"job": job.id}, rollout=id_, **common)
                steps.append(Step(job=job, cancel=cancel))
            papers.append(Paper(ring=number, steps=steps))
    return Plan(id=id_, kind=kind, about=about, rule=rule, papers=papers)


def _hash(rollout: str, box: str) -> bytes:
    return hashlib.sha256(f"{rollout}\0{box}".encode()).digest()
