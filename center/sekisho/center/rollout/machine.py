"""When a ring is asked, when it is over, and when everything stops. Pure: what is seen goes in, decisions come out.

Nothing here is remembered but `Rollout`, so that a centre which starts anew goes on where it was. A ring is over when
enough of those that tried have the release, nobody is still trying, few were not reached, and it was watched for long
enough. One box that falls silent while it tries stops everything: a dead box must not look like a slow one. A box
that was off before it was asked is not silent; for those there are a share and a deadline. One that has the release and
is not connected may be an office that is closed, or dead of it: the ring waits for it, and halts when it stays away.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

from msgspec.structs import replace

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.rollout.model import OVER, Decision, Rollout, Rule, Seen, Why

Standing = Literal[
    "unasked", "waiting", "choosing", "going", "trying", "good", "gone", "passed", "bad", "silent", "worse"
]
"""unasked: it was not sent out yet; waiting: no answer yet, or not ready; choosing: it arrived, and its customer says
when; going: it fetches and prepares; trying: it switches now; good: it has it; gone: it has it, and is not connected;
passed: it ended without being tried; bad: it failed or went back."""
BAD: Final = ("bad", "silent", "worse")
HAVE: Final = ("good", "gone")
OPEN: Final = ("unasked", "waiting", "choosing", "going")
AWAY: Final = ("unasked", "waiting")
"""Of these nothing follows from time alone: they may never be heard again."""

DEAF_S: Final = 120.0
"""Without a look for so long, or a broker heard, nobody's silence is counted from before."""
SLOT_S: Final = 3600.0
"""A box that fetches and says nothing for so long leaves its place in its site to another."""
RELEASE_CAP: Final = 500
"""Boxes asked in one look."""
CHANCE: Final = 0.001
"""If the release were as good as the rule allows, so many failures would come about with this probability at most."""

_BEGUN_S: Final = 1e-6
"""Of a soak that begins with this look."""
_ENDS: Final = {
    "FAILED": "bad", "REVERTED": "bad", "REJECTED": "bad", "TIMED_OUT": "bad",
    "CANCELED": "passed", "EXPIRED": "passed", "SUPERSEDED": "passed",
}  # fmt: skip
_TRYING: Final = ("ACTIVATING", "TRIAL", "REVERTING")
_DANGER: Final = ("ARMED", *_TRYING)
_READY: Final = ("VERIFIED", "INSTALLING", "STAGED", "ARMED")
"""It has fetched what it needs."""


def standing(seen: Seen, rollout: Rollout, rule: Rule, now: float) -> Standing:
    """How the box is to be counted."""
    if not seen.asked_at and not seen.state:
        return "unasked"
    state, step = _newest(seen, rollout.kind)
    if state == "TIMED_OUT" and seen.why == "silent" and step not in _DANGER:
        return "passed"  # never heard again, before it began to switch
    if state in _ENDS:
        return _ENDS[state]  # type: ignore[return-value]
    if state == "SUCCEEDED":
        gone = seen.lost_at and rollout.state not in OVER
        return "worse" if seen.worse else "gone" if gone else "good"
    heard = max(_past(seen.word_at, now), rollout.hearing_since)
    if step in _TRYING:
        return "silent" if now - heard > rule.silent_s else "trying"
    if state == "RUNNING" and step == "ARMED" and seen.lost_at:  # the next word is of the switch, and may be the last
        return "silent" if now - max(heard, _past(seen.lost_at, now)) > rule.silent_s else "going"
    if state == "WAITING" and (step == "STAGED" or seen.why in ("customer", "window")):
        return "choosing" if not _expired(seen, now) else "waiting"
    return "waiting" if state in ("", "WAITING") else "going"


def is_harm(seen: Seen, rollout: Rollout, rule: Rule, now: float) -> bool:
    """Whether it is one of those that halt a rollout, and that who resumes it accepts."""
    how = standing(seen, rollout, rule, now)
    return how in BAD or (how == "gone" and _stays_away(seen, rollout, rule, now))


def _stays_away(seen: Seen, rollout: Rollout, rule: Rule, now: float) -> bool:
    return now - max(_past(seen.lost_at, now), rollout.hearing_since) >= rule.deadline_s


def _past(at: float, now: float) -> float:
    """A time; none where it is still to come, because the centre's clock was set back since."""
    return at if at <= now else 0.0


def _expired(seen: Seen, now: float) -> bool:
    return bool(seen.expires) and now >= seen.expires


def _newest(seen: Seen, kind: str) -> tuple[str, str]:
    """State and step, with what the box said of the release itself where it said that later."""
    match seen.firmware:
        case "succeeded" | "reverted" | "failed" | "rejected" | "canceled" | "expired":
            return seen.firmware.upper(), ""
        case "activating" | "trial":
            return "RUNNING", seen.firmware.upper()
        case _:
            staged = kind == "fw.stage" and seen.state == "SUCCEEDED"  # on its disk, and its customer decides
            return ("WAITING", "STAGED") if staged else (seen.state, seen.step.upper())


def look(was: Rollout, rule: Rule, rings: Sequence[int], boxes: Sequence[Seen], now: float, heard: float) -> Decision:
    """What follows from how everything is now. `rings`: how many boxes each has; `heard`: when the broker was, last.

    Where the clock was set back nothing is counted from before, as if nobody had looked, and a broker that was heard
    in what is now the future is not heard.
    """
    if was.state in OVER:
        return Decision(rollout=was)
    deaf = abs(now - heard) > DEAF_S
    gone = not was.hearing_since or not 0 <= now - was.looked_at <= DEAF_S
    passed = 0.0 if deaf or gone else now - was.looked_at
    hearing = 0.0 if deaf else now if gone else was.hearing_since
    rollout = replace(was, looked_at=now, hearing_since=hearing, began=min(was.began or now, now))
    if deaf:
        return Decision(rollout=rollout)
    standings = [(one, standing(one, rollout, rule, now)) for one in boxes]
    if was.state in ("running", "paused") or was.why == "absent":  # what that halt left to its boxes goes on
        if halt := _harm(rollout, rule, rings, standings, now):
            return Decision(rollout=halt, withdraw=True, told=["halt"])
    if was.state != "running":
        return Decision(rollout=rollout)
    return _advance(rollout, rule, rings, standings, now, passed)


def _harm(
    rollout: Rollout, rule: Rule, rings: Sequence[int], standings: Sequence[tuple[Seen, Standing]], now: float
) -> Rollout | None:
    """The halted rollout where a ring that was asked says so."""
    for number, size in enumerate(rings):
        of = [(seen, how) for seen, how in standings if seen.ring == number]
        bad = [(seen, how) for seen, how in of if how in BAD and not seen.forgiven]
        have = sum(how in HAVE for _, how in of)
        gone = [seen for seen, how in of if how == "gone" and not seen.forgiven]
        away = [seen for seen in gone if _stays_away(seen, rollout, rule, now)]
        if len(away) > rule.absent * have:
            return _halted(rollout, "silent", number, away[0], len(away), size)
        if not bad:
            continue
        counts = Counter(how for _, how in bad)
        answered = len(bad) + have
        early = len(bad) > 1 and _tail(len(bad), answered, rule.bad) < CHANCE
        if counts["silent"] or early or len(bad) >= rule.bad * size:
            why: Why = "silent" if counts["silent"] else "bad" if counts["bad"] else "worse"
            first = next(seen for seen, how in bad if how == why)
            return _halted(rollout, why, number, first, len(bad), size)
    return None


def _halted(rollout: Rollout, why: Why, ring: int, first: Seen, number: int, size: int) -> Rollout:
    detail = first.worse if why == "worse" else first.why
    return replace(
        rollout, state="halted", why=why, why_ring=ring, why_box=first.box, why_number=number, why_of=size,
        why_detail=detail,
    )  # fmt: skip


def _advance(
    rollout: Rollout, rule: Rule, rings: Sequence[int], standings: Sequence[tuple[Seen, Standing]], now: float,
    passed: float,
) -> Decision:  # fmt: skip
    of = [(seen, how) for seen, how in standings if seen.ring == rollout.ring]
    if not of:  # its boxes are all deleted with their customers: nothing is learned of it, and nothing waited for
        return _pass(rollout, rule, rings, standings, now)
    counts = Counter(how for seen, how in of if not seen.forgiven)
    open_ = sum(counts[how] for how in OPEN)
    late = now - rollout.began >= rule.deadline_s
    away = sum(counts[how] for how in AWAY)
    have, bad = sum(counts[how] for how in HAVE), sum(counts[how] for how in BAD)
    enough = _enough(have, bad, rule)
    here = _enough(counts["good"], bad, rule) and counts["gone"] <= rule.absent * have
    stuck = not enough and open_ + counts["trying"] <= (away if late else 0)
    if stuck or (late and away > rule.absent_late * len(of)):
        without = [(seen, how) for seen, how in of if how not in (*HAVE, "worse")]
        first = next((seen for seen, how in without if how in AWAY), (without or of)[0][0])
        return Decision(rollout=_halted(rollout, "absent", rollout.ring, first, len(without), len(of)), told=["halt"])
    few = open_ <= (rule.absent_late if late else rule.absent) * len(of)
    told: list[str] = []
    if enough and few and not counts["trying"]:
        if not rollout.soaked_s:
            told.append("soak")
        soaked = rollout.soaked_s + passed if rollout.soaked_s else _BEGUN_S
        rollout = replace(rollout, soaked_s=min(soaked, max(rule.soak_s, _BEGUN_S)))
        if soaked >= rule.soak_s and here:
            return _pass(rollout, rule, rings, standings, now, told)
    return Decision(rollout=rollout, release=_next(rollout, rule, standings, now), told=told)


def _pass(
    rollout: Rollout, rule: Rule, rings: Sequence[int], standings: Sequence[tuple[Seen, Standing]], now: float,
    told: Sequence[str] = (),
) -> Decision:  # fmt: skip
    """The ring is over: on to the next; after the last one it is done, once nobody may still switch."""
    if rollout.ring + 1 < len(rings):
        rollout, told = replace(rollout, ring=rollout.ring + 1, began=now, soaked_s=0.0), ["ring"]
    elif not any(_comes(seen, how, now) for seen, how in standings):
        return Decision(rollout=replace(rollout, state="done"), told=["done"])
    return Decision(rollout=rollout, release=_next(rollout, rule, standings, now), told=list(told))


def _enough(good: int, bad: int, rule: Rule) -> bool:
    return good >= max(1, math.ceil(rule.good * (good + bad)))


def _comes(seen: Seen, how: Standing, now: float) -> bool:
    """Whether it may still switch, and go wrong: until then somebody watches."""
    return how in ("choosing", "going", "trying") or (how == "waiting" and not _expired(seen, now))


def _next(rollout: Rollout, rule: Rule, standings: Sequence[tuple[Seen, Standing]], now: float) -> list[str]:
    """Whom to ask now: who is connected, as many of one site as may fetch at one time."""
    fetching = Counter(seen.site for seen, how in standings if seen.site and _fetches(seen, how, now))
    chosen: list[str] = []
    for seen, how in standings:
        if how != "unasked" or seen.ring > rollout.ring or not seen.connected:
            continue
        if seen.site and fetching[seen.site] >= rule.per_site:
            continue
        fetching[seen.site] += 1
        chosen.append(seen.box)
        if len(chosen) == RELEASE_CAP:
            break
    return chosen


def _fetches(seen: Seen, how: Standing, now: float) -> bool:
    """Whether it may be using its line for this."""
    if how not in ("waiting", "going") or now - max(_past(seen.asked_at, now), _past(seen.word_at, now)) > SLOT_S:
        return False
    return (
        seen.state != "WAITING" and seen.step.upper() not in _READY and seen.firmware in ("", "offered", "downloading")
    )


def wish(was: Rollout, what: Literal["pause", "resume", "halt", "cancel"], now: float) -> Decision:
    """What somebody says, where it can be done now.

    Raises:
        RejectedInput: it cannot: the rollout is over, or it is so already.

    """
    able = {"pause": ("running",), "resume": ("paused", "halted"), "halt": ("running", "paused")}
    if was.state not in able.get(what, ("running", "paused", "halted")):
        raise RejectedInput(
            f"A rollout that is {was.state} cannot be told to {what}.", "See: sekisho center rollout status"
        )
    match what:
        case "pause":
            return Decision(rollout=replace(was, state="paused"))
        case "resume":
            # what was watched before a halt proves nothing of the ring; during a pause harm is seen as ever
            soaked = 0.0 if was.state == "halted" else was.soaked_s
            fresh = replace(
                was, state="running", began=now, soaked_s=soaked, why="", why_box="", why_number=0, why_of=0,
                why_detail="",
            )  # fmt: skip
            return Decision(rollout=fresh)
        case "halt":
            return Decision(rollout=replace(was, state="halted", why="hand", why_ring=was.ring), withdraw=True)
        case "cancel":
            return Decision(rollout=replace(was, state="canceled"), withdraw=True)


def _tail(bad: int, answered: int, share: float) -> float:
    """Probability of `bad` or more among `answered`, each with probability `share`."""
    if share >= 1:
        return 1.0
    logs = (
        math.lgamma(answered + 1) - math.lgamma(n + 1) - math.lgamma(answered - n + 1)
        + n * math.log(share) + (answered - n) * math.log1p(-share)
        for n in range(bad)
    )  # fmt: skip
    return 1.0 - sum(map(math.exp, logs))
