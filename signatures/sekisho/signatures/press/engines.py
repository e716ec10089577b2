"""The Suricata half of a set: rules gathered, decided, proved by the engine, made to fit, replayed over the corpora."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.settings import Settings
from sekisho.signatures.model import MAX_REFUSED_SHARE, Refused, Rule, Source
from sekisho.signatures.press import budget, corpora, gather
from sekisho.signatures.press.policy import Gathered, Outcome, Ruled, decide
from sekisho.signatures.press.recipe import OWN, Recipe, Selector
from sekisho.signatures.press.ruletext import facts
from sekisho.signatures.sources import SHIPPED, parse_rules, read_directory
from sekisho.signatures.tester import engine_config, prove_rules


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of a set, and how they came to be these."""

    sources: list[Source]
    """One file for each source, as they go into the archive."""
    urgent: set[int]
    off: int
    helpers: list[int]
    deaf: list[int]
    overstepping: list[int]
    idle: list[int]
    refused: list[Refused]
    left_out: list[str]
    weight: budget.Weight
    captures: int


def decided(recipe: Recipe, settings: Settings, work: Path) -> Decided:
    """All of it. Blocks for a minute with large sets.

    Raises:
        RejectedInput: a source was refused, or what came of it by the engine, the budget or a corpus.
        PeerError: a source could not be fetched.
        DeviceFault: a file or the engine is missing.

    """
    attacks, office = corpora.captures(recipe.corpora.detect), corpora.captures(recipe.corpora.benign)
    gathered, refused = gathered_rules(recipe, work / "sources")
    outcome = decide(gathered, recipe.policy)
    place = work / "engine"
    place.mkdir()
    config = engine_config(settings, place)
    proved, failed = prove_rules([ruled.rule for ruled in outcome.rules], config, place)
    refused += failed
    if len(refused) >= max(1, (len(proved) + len(refused)) * MAX_REFUSED_SHARE):
        first = refused[0]
        raise RejectedInput(
            f"{len(refused)} of {len(proved) + len(refused)} rules are refused by Suricata;"
            f" the first is {first.where} (sid {first.sid}): {first.why}."
        )
    broken = {item.sid for item in failed}
    gathered = [item for item in gathered if item.rule.sid not in broken]
    outcome, weight, left_out = _fitted(gathered, recipe, config, place)
    rules = [ruled.rule for ruled in outcome.rules]
    corpora.detect(attacks, rules, config, place)
    corpora.benign(office, rules, config, place)
    return Decided(
        sources=_files(outcome.rules),
        urgent={ruled.rule.sid for ruled in outcome.rules if ruled.urgent},
        off=outcome.off,
        helpers=outcome.helpers,
        deaf=outcome.deaf,
        overstepping=outcome.overstepping,
        idle=outcome.idle,
        refused=refused,
        left_out=left_out,
        weight=weight,
        captures=len(attacks) + len(office),
    )


def gathered_rules(recipe: Recipe, work: Path) -> tuple[list[Gathered], list[Refused]]:
    """Every enabled rule, once: ours first, whose sids nobody else may take; else the highest revision stays.

    Raises as `decided` does.
    """
    found: dict[int, Gathered] = {}
    refused: list[Refused] = []
    ours = read_directory(SHIPPED / "suricata", (".rules",))
    sets = [(OWN, True, ours)]
    sets += [(item.name, item.as_written, gather.rules(item, work / item.name)) for item in recipe.rules]
    for name, as_written, files in sets:
        rules, left = parse_rules(files)
        refused += left
        for rule in rules:
            there = found.get(rule.sid)
            if there is None or (there.source != OWN and there.rule.rev < rule.rev):
                found[rule.sid] = Gathered(name, rule, facts(rule.text), as_written)
    return sorted(found.values(), key=lambda item: item.rule.sid), refused


def _fitted(
    gathered: Sequence[Gathered], recipe: Recipe, config: str, place: Path
) -> tuple[Outcome, budget.Weight, list[str]]:
    limits = recipe.budget
    gone: list[Selector] = []
    for selector in [None, *limits.leave_out]:
        gone += [selector] if selector else []
        outcome = decide(gathered, recipe.policy, gone)
        weight = budget.weigh([ruled.rule for ruled in outcome.rules], config, place)
        if weight.rest_mb <= limits.memory_mb and weight.peak_mb <= limits.peak_mb:
            return outcome, weight, [told(one) for one in gone]
    raise RejectedInput(
        f"The set does not fit: the engine takes {weight.rest_mb} MB at rest and {weight.peak_mb} MB at most, and"
        f" {limits.memory_mb} and {limits.peak_mb} are allowed, with all left out that the recipe lets go.",
        "Name more in budget.leave_out, or allow more memory.",
    )


def told(selector: Selector) -> str:
    """A selector in one line, for people."""
    parts = {
        "sources": selector.sources,
        "categories": selector.categories,
        "classtypes": selector.classtypes,
        "sids": [str(sid) for sid in selector.sids],
    }
    return "; ".join(f"{name}: {', '.join(values)}" for name, values in parts.items() if values)


def _files(rules: Sequence[Ruled]) -> list[Source]:
    """One file a source, by sid: a rule that is added or changes moves no other."""
    found: dict[str, list[Rule]] = {}
    for ruled in rules:
        found.setdefault(ruled.source, []).append(ruled.rule)
    return [
        Source(f"{name}.rules", "".join(rule.text + "\n" for rule in found[name]).encode()) for name in sorted(found)
    ]
