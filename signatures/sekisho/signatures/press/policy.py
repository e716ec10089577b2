"""What each gathered rule may do. Written over the rules as parsed, never by rewriting text in bulk: a commented rule
stays off, and a rule that only marks flows for others never drops.

- Our own rules, and those of a source with `as_written`, do what they say, unless the policy names them by sid.
- Of other sources' rules the policy alone decides. `pass` and `config` rules would open holes for their writer's
  reasons, and are off; so are rules that do more than judge packets (`Facts.oversteps`).
- A rule that raises no alert (`noalert`) stays one that alerts, that is: says and does nothing by itself.
- A rule that is off, but sets what a remaining rule needs, is kept and silenced: without it the other would be deaf.
  One that is off by its sid stays off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from sekisho.signatures.model import Rule
from sekisho.signatures.press.recipe import OWN, PolicyLine, Selector
from sekisho.signatures.press.ruletext import Action, Facts, acting, silenced

_ACTING = ("alert", "drop", "reject", "rejectsrc", "rejectdst", "rejectboth")
DROPPING = ("drop", "reject", "rejectsrc", "rejectdst", "rejectboth")


class Gathered(msgspec.Struct, frozen=True):
    """One rule as it came."""

    source: str
    rule: Rule
    facts: Facts
    as_written: bool = False


class Ruled(msgspec.Struct, frozen=True):
    """One rule as it goes into the set."""

    source: str
    rule: Rule
    drops: bool
    urgent: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of the set, and what is worth knowing about them."""

    rules: list[Ruled]
    off: int
    """Rules left out by policy or budget."""
    helpers: list[int]
    """Rules that were off and are kept, silenced, for others."""
    deaf: list[int]
    """Rules that need a mark which no rule of the set makes: they cannot speak."""
    overstepping: list[int]
    """Rules that are off for doing more than judging packets, or for letting others through."""
    idle: list[int]
    """Lines of the policy (from 1) that decide about no rule."""


def decide(gathered: Sequence[Gathered], lines: Sequence[PolicyLine], left_out: Sequence[Selector] = ()) -> Outcome:
    """Policy over every rule; what fits one of `left_out` is off whatever the policy says, except our own rules."""
    kept: dict[int, Ruled] = {}
    spare: dict[int, Gathered] = {}
    used: set[int] = set()
    off = 0
    for item in gathered:
        number, line = _line(item, lines)
        used.add(number)
        action = _action(item, line)
        if item.source != OWN and any(fits(item, selector) for selector in left_out):
            action = "off"
        if action != "off":
            text = item.rule.text if action == item.facts.action else acting(item.rule.text, _plain(action))
            rule = msgspec.structs.replace(item.rule, text=text)
            urgent = action in DROPPING and line is not None and line.urgent
            kept[item.rule.sid] = Ruled(item.source, rule, action in DROPPING, urgent)
            continue
        off += 1
        if (
            item.facts.action in _ACTING
            and not item.facts.oversteps
            and not (line and line.action == "off" and line.sids)
        ):
            spare[item.rule.sid] = item
    facts = {item.rule.sid: item.facts for item in gathered}
    helpers = _helpers(kept, spare, facts)
    made = {mark for sid in kept for mark in facts[sid].writes}
    return Outcome(
        rules=[kept[item.rule.sid] for item in gathered if item.rule.sid in kept],
        off=off - len(helpers),
        helpers=helpers,
        deaf=[sid for sid in kept if not all(need & made for need in facts[sid].needs)],
        overstepping=[item.rule.sid for item in gathered if not item.as_written and _oversteps(item)],
        idle=[number for number in range(1, len(lines) + 1) if number not in used],
    )


def fits(item: Gathered, selector: Selector) -> bool:
    """Whether every field that is given has an entry for this rule."""
    return (
        (not selector.sources or item.source in selector.sources)
        and (not selector.classtypes or item.facts.classtype in selector.classtypes)
        and (not selector.sids or item.rule.sid in selector.sids)
        and (not selector.categories or _in_category(item.facts.msg, selector.categories))
    )


def _line(item: Gathered, lines: Sequence[PolicyLine]) -> tuple[int, PolicyLine | None]:
    for number, line in enumerate(lines, 1):
        if fits(item, line) and (not item.as_written or line.sids):
            return number, line
    return 0, None


def _action(item: Gathered, line: PolicyLine | None) -> str:
    own = item.facts.action
    if line is None:
        wanted = own if item.as_written else "alert"
    else:
        wanted = line.action
    if wanted == "off" or (not item.as_written and _oversteps(item)):
        return "off"
    if own not in _ACTING:
        return own
    return "alert" if item.facts.silent else wanted


def _oversteps(item: Gathered) -> bool:
    return item.facts.action not in _ACTING or item.facts.oversteps


def _plain(action: str) -> Action:
    return "drop" if action == "drop" else "alert"


def _in_category(msg: str, categories: Iterable[str]) -> bool:
    return any(msg == category or msg.startswith(f"{category} ") for category in categories)


def _helpers(kept: dict[int, Ruled], spare: dict[int, Gathered], facts: dict[int, Facts]) -> list[int]:
    """Moves from `spare` to `kept` whatever makes a mark that a kept rule needs, and what that needs in turn."""
    makers: dict[str, list[int]] = {}
    for sid, item in spare.items():
        for mark in item.facts.writes:
            makers.setdefault(mark, []).append(sid)
    helpers: list[int] = []
    wanted = [mark for sid in kept for mark in facts[sid].reads]
    seen = set(wanted)
    while wanted:
        for sid in makers.get(wanted.pop(), ()):
            if sid in kept:
                continue
            item = spare[sid]
            text = acting(item.rule.text, "alert") if item.facts.silent else silenced(item.rule.text)
            kept[sid] = Ruled(item.source, msgspec.structs.replace(item.rule, text=text), drops=False)
            helpers.append(sid)
            fresh = item.facts.reads - seen
            seen |= fresh
            wanted += fresh
    return sorted(helpers)
