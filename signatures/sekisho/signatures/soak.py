"""Whether a set that has just come into force is too loud: pure, asked by the signatures daemon while it watches.

Only what is new or changed in this set is ever judged. A rule that was there before is loud because something happens,
and an attack must not be able to silence the rule that sees it, nor to drive out a set. Numbers are small, so a rule
is too loud only when it spoke often, and when even ten times its usual rate would not explain it; that covers the busy
hours of a day and offices larger than most. What follows is the least that helps:

- an alerting rule or a YARA rule is muted;
- a dropping rule is held: it goes on reporting and stops nothing, so that whoever can trigger it gains nothing by it;
- where more than a few are too loud, or many others together are ten times as loud as usual, the set is at fault and
  not its rules: it is rolled back.

A set that came at night is heard in the morning: ask for as long as the set is in force, about the last hour at most
(`WINDOW_S`), not only while its new dropping rules are on trial.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec

from sekisho.appliance.core.fired import Fired
from sekisho.signatures.published import Baseline

TIMES: Final = 10.0
"""So many times its usual rate a rule may speak. Busy hours are about four times a day's mean."""
LEAST: Final = 50
"""Alerts below which a rule is not loud, whatever is usual."""
LEAST_DROPS: Final = 20
"""The same for a dropping rule: each may have been somebody's connection, and holding it back loses no report."""
LEAST_FILES: Final = 30
"""The same for a YARA rule: each was a file somebody did not get."""
FLOOR_PER_DAY: Final = 1440.0
"""A rule of which nothing is usual may speak once a minute."""
UNKNOWN_PER_DAY: Final = 14_400.0
"""The same for a changed rule while no fleet was counted: it may have been this loud all along."""
RARE: Final = 1e-6
"""A rate explains a count when the chance to see as much is larger than this."""
MUTED_CAP: Final = 8
"""Too loud rules beyond which the set is at fault."""
STORM_LEAST: Final = 500
"""Alerts of rules that are not too loud by themselves, below which they are no storm together; more than `MUTED_CAP` of
them must take part, each with `STORM_EACH`."""
STORM_EACH: Final = 10
SHORTEST_S: Final = 60.0
"""A shorter observation is taken for one of this length: a burst at the beginning is no rate."""
WINDOW_S: Final = 3600.0
NAMED: Final = 8
"""Rules that the reason names."""
_DAY_S: Final = 86_400.0


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What this set has that the one before did not have in this form."""

    new: frozenset[int] = frozenset()
    """Suricata rules that were not there."""
    changed: frozenset[int] = frozenset()
    """Suricata rules that were there with another text."""
    dropping: frozenset[int] = frozenset()
    """Those of both that drop, at once or after their trial."""
    yara: frozenset[str] = frozenset()
    """YARA rules that were not there, or with another text."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done; empty: nothing. All ascending."""

    muted: tuple[int, ...] = ()
    """Suricata rules to leave out (`Muting.sids`)."""
    held: tuple[int, ...] = ()
    """Dropping rules that go on reporting only, also when the soak is over (`Muting.on_trial`)."""
    yara: tuple[str, ...] = ()
    """YARA rules whose matches count for nothing (`Muting.yara`)."""
    roll_back: bool = False
    why: str = ""
    """For people, one line; empty when nothing is to be done."""

    @property
    def loud(self) -> int:
        """How many rules were found too loud."""
        return len(self.muted) + len(self.held) + len(self.yara)


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What was heard in a time."""

    seconds: float
    sids: Mapping[int, int]
    yara: Mapping[str, int]


_Rule = TypeVar("_Rule", int, str)


def heard(before: Fired | None, after: Fired, seconds: float) -> Rates:
    """What telemetry counted between the two, `seconds` apart.

    Another run of telemetry in between (or no count before) leaves what the later one counted: less than there was,
    never more, as long as `before` was read when the set came into force.
    """
    same = before is not None and before.since == after.since
    sids, yara = (before.sids, before.yara) if before is not None and same else ({}, {})
    return Rates(seconds=seconds, sids=_grown(sids, after.sids), yara=_grown(yara, after.yara))


def judge(baseline: Baseline, rates: Rates, news: News, so_far: Verdict | None = None) -> Verdict:
    """What this set's new rules deserve; what `so_far` said of it stands, and counts towards the cap.

    Nothing that is not in `news` is muted, held, or a reason to roll back.
    """
    past = so_far or Verdict()
    if past.roll_back:
        return past
    seconds = max(rates.seconds, SHORTEST_S)
    ours = (news.new | news.changed) & rates.sids.keys()
    loud = {sid for sid in ours if _is_loud(rates.sids[sid], seconds, *_allowed(baseline, news, sid))}
    files = {
        name
        for name in news.yara & rates.yara.keys()
        if _is_loud(rates.yara[name], seconds, _per_day(baseline.yara.get(name, 0.0)), LEAST_FILES)
    }
    found = Verdict(
        muted=_ascending(past.muted, loud - news.dropping),
        held=_ascending(past.held, loud & news.dropping),
        yara=_ascending(past.yara, files),
    )
    others = {sid: rates.sids[sid] for sid in ours - {*found.muted, *found.held}}
    storm = _is_storm(baseline, others, seconds)
    if not storm and found.loud == past.loud:
        return past
    why = _why(found, rates, others if storm else {})
    return msgspec.structs.replace(found, roll_back=storm or found.loud > MUTED_CAP, why=why)


def _allowed(baseline: Baseline, news: News, sid: int) -> tuple[float, int]:
    """Alerts per day that are no reason to act, and the count from which they may be one."""
    usual = baseline.sids.get(sid, 0.0)
    floor = UNKNOWN_PER_DAY if not baseline.boxes and sid in news.changed else FLOOR_PER_DAY
    return max(TIMES * usual, floor), LEAST_DROPS if sid in news.dropping else LEAST


def _per_day(usual: float) -> float:
    return max(TIMES * usual, FLOOR_PER_DAY)


def _is_loud(count: int, seconds: float, per_day: float, least: int) -> bool:
    return count >= least and _chance(count, per_day * seconds / _DAY_S) < RARE


def _is_storm(baseline: Baseline, others: Mapping[int, int], seconds: float) -> bool:
    """Whether many rules, none of them too loud alone, together are louder than ten times what they usually are."""
    part = {sid: count for sid, count in others.items() if count >= STORM_EACH}
    if len(part) <= MUTED_CAP:
        return False
    usual = math.fsum(baseline.sids.get(sid, 0.0) for sid in part)
    return _is_loud(sum(part.values()), seconds, _per_day(usual), STORM_LEAST)


def _chance(count: int, mean: float) -> float:
    """At most this likely: `count` or more of a Poisson variable of this mean (Chernoff's bound, never too small)."""
    if count <= mean:
        return 1.0
    return math.exp(count - mean - count * math.log(count / mean)) if mean > 0 else 0.0


def _grown(before: Mapping[_Rule, int], after: Mapping[_Rule, int]) -> dict[_Rule, int]:
    grown = {rule: count - before.get(rule, 0) for rule, count in after.items()}
    return {rule: count for rule, count in grown.items() if count > 0}


def _ascending(past: Iterable[_Rule], found: Iterable[_Rule]) -> tuple[_Rule, ...]:
    return tuple(sorted(set(past).union(found)))


def _why(found: Verdict, rates: Rates, storm: Mapping[int, int]) -> str:
    said = {f"sid {sid}": rates.sids.get(sid, 0) for sid in (*found.muted, *found.held)}
    said |= {name: rates.yara.get(name, 0) for name in found.yara}
    said |= {f"sid {sid}": count for sid, count in storm.items()}
    loudest = sorted(said.items(), key=lambda one: (-one[1], one[0]))
    text = ", ".join(f"{rule} ({count})" for rule, count in loudest[:NAMED])
    more = f" and {len(loudest) - NAMED} more" if len(loudest) > NAMED else ""
    return f"too loud within {rates.seconds:.0f} s: {text}{more}"
