"""What the soak makes of what it hears: a table of cases with their labels, and what holds for any numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core.fired import Fired
from sekisho.signatures import soak
from sekisho.signatures.published import Baseline
from sekisho.signatures.soak import News, Rates, Verdict, heard, judge

NEWS = News(
    new=frozenset({*range(1, 100), *range(201, 210)}),
    changed=frozenset(range(100, 150)),
    dropping=frozenset({*range(201, 210), 120}),
    yara=frozenset({"new_rule", "other"}),
)
OLD = 900
FLEET = Baseline(boxes=400, sids={OLD: 40.0, 100: 300.0, 101: 20_000.0, 102: 0.5, 120: 2.0}, yara={"new_rule": 0.01})


class Case(NamedTuple):
    label: str
    seconds: float
    sids: dict[int, int]
    yara: Mapping[str, int] = MappingProxyType({})
    muted: tuple[int, ...] = ()
    held: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    roll_back: bool = False
    baseline: Baseline = FLEET


CASES = (
    Case("nothing at all", 900, {}),
    Case("a new rule speaks a few times", 900, {1: 12}),
    Case("a few times in the first seconds, which is no rate", 4, {1: 12}),
    Case("a new rule matches everybody's traffic", 900, {1: 600}, muted=(1,)),
    Case("the same, seen within the first minute", 30, {1: 400}, muted=(1,)),
    Case("a changed rule at its usual rate by day", 900, {100: 12}),
    Case("a changed rule that was always chatty, in a busy hour", 900, {101: 900}),
    Case("a changed rule in a large office's busy hour", 3600, {101: 6000}),
    Case("a changed chatty rule, forty times as loud", 900, {101: 8400}, muted=(101,)),
    Case("a changed quiet rule that matches everything now", 900, {102: 700}, muted=(102,)),
    Case("a changed rule, nothing known of the fleet: chatty", 900, {101: 180}, baseline=Baseline()),
    Case("a changed rule, nothing known of the fleet: a flood", 900, {101: 9000}, muted=(101,), baseline=Baseline()),
    Case("an attack under way fires an old rule", 900, {OLD: 250_000}),
    Case("a scan fires hundreds of old rules", 900, dict.fromkeys(range(1000, 1600), 300)),
    Case("a new dropping rule is triggered by whom it must stop", 900, {201: 4000}, held=(201,)),
    Case("a changed dropping rule has become too wide", 120, {120: 45}, held=(120,)),
    Case("a dropping rule stops somebody now and then", 900, {201: 9}),
    Case("a new YARA rule takes everybody's documents", 900, {}, {"new_rule": 64}, files=("new_rule",)),
    Case("one bad file is sent to ten people", 900, {}, {"new_rule": 10}),
    Case("an old YARA rule stops a wave of mails", 900, {}, {"old_rule": 5000}),
    Case("as many as may be muted", 900, dict.fromkeys(range(1, 9), 500), muted=tuple(range(1, 9))),
    Case(
        "more than may be muted: the set is at fault", 900, dict.fromkeys(range(1, 10), 500), muted=tuple(range(1, 10)),
        roll_back=True,
    ),
    Case(
        "muted, held and files count together", 900, {**dict.fromkeys(range(1, 6), 500), 201: 90, 202: 90, 203: 90},
        {"new_rule": 70}, muted=(1, 2, 3, 4, 5), held=(201, 202, 203), files=("new_rule",), roll_back=True,
    ),
    Case("many new rules, none too loud alone", 900, dict.fromkeys(range(1, 31), 30), roll_back=True),
    Case("many new rules speak a little", 900, dict.fromkeys(range(1, 31), 4)),
    Case("a storm of old rules, new ones as usual", 900, {**dict.fromkeys(range(1000, 1600), 300), 1: 10, 2: 5}),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.label for case in CASES])
def test_every_case_gets_what_it_deserves(case: Case) -> None:
    verdict = judge(case.baseline, Rates(seconds=case.seconds, sids=case.sids, yara=case.yara), NEWS)
    found = (verdict.muted, verdict.held, verdict.yara, verdict.roll_back)
    assert found == (case.muted, case.held, case.files, case.roll_back)
    assert bool(verdict.why) == bool(verdict.loud or verdict.roll_back)


def test_the_reason_names_the_loudest_and_how_often_it_spoke() -> None:
    why = judge(FLEET, Rates(seconds=900, sids={1: 600, 2: 900}, yara={}), NEWS).why
    assert why == "too loud within 900 s: sid 2 (900), sid 1 (600)"


def test_what_was_said_stands_and_counts_towards_the_cap() -> None:
    past = judge(FLEET, Rates(seconds=900, sids=dict.fromkeys(range(1, 9), 500), yara={}), NEWS)
    quiet = judge(FLEET, Rates(seconds=1800, sids={}, yara={}), NEWS, past)
    assert quiet == past and not past.roll_back
    assert judge(FLEET, Rates(seconds=900, sids={50: 800}, yara={}), NEWS, past).roll_back


def test_counts_of_another_run_of_telemetry_are_no_less_than_what_it_says_itself() -> None:
    before = Fired(since="a", at=1.0, sids={1: 500, 2: 7}, yara={"x": 3})
    assert heard(before, Fired(since="a", at=9.0, sids={1: 520, 2: 7}, yara={"x": 4}), 8).sids == {1: 20}
    assert heard(before, Fired(since="b", at=9.0, sids={1: 30}, yara={"x": 1}), 8) == Rates(
        seconds=8, sids={1: 30}, yara={"x": 1}
    )
    assert heard(None, Fired(since="b", at=9.0, sids={1: 30}), 8).sids == {1: 30}


_SIDS = st.dictionaries(st.integers(1, 300), st.integers(0, 1 << 40), max_size=60)
_NAMES = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 1 << 40))
_RATES = st.builds(Rates, seconds=st.floats(0, 1e7), sids=_SIDS, yara=_NAMES)
_SOME = st.frozensets(st.integers(1, 300), max_size=80)
_NEWS = st.builds(News, new=_SOME, changed=_SOME, dropping=_SOME, yara=st.frozensets(st.sampled_from("abcd")))
_BASE = st.builds(
    Baseline,
    boxes=st.integers(0, 1 << 20),
    sids=st.dictionaries(st.integers(1, 300), st.floats(0, 1e12), max_size=60),
    yara=st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1e12)),
)


@given(_BASE, _RATES, _NEWS)
def test_only_what_this_set_brought_is_ever_judged(baseline: Baseline, rates: Rates, news: News) -> None:
    verdict = judge(baseline, rates, news)
    ours = news.new | news.changed
    assert {*verdict.muted} <= ours - news.dropping and {*verdict.held} <= ours & news.dropping
    assert {*verdict.yara} <= news.yara
    without = Rates(
        seconds=rates.seconds,
        sids={sid: count for sid, count in rates.sids.items() if sid in ours},
        yara={name: count for name, count in rates.yara.items() if name in news.yara},
    )
    assert judge(baseline, without, news) == verdict


@given(_BASE, _RATES, _NEWS)
def test_a_dropping_rule_is_never_silenced(baseline: Baseline, rates: Rates, news: News) -> None:
    assert not {*judge(baseline, rates, news).muted} & news.dropping


@given(_BASE, _RATES, _NEWS)
def test_a_few_alerts_are_never_too_loud(baseline: Baseline, rates: Rates, news: News) -> None:
    few = min(soak.LEAST, soak.LEAST_DROPS, soak.LEAST_FILES) - 1
    quiet = Rates(
        seconds=rates.seconds,
        sids={sid: min(count, few) for sid, count in rates.sids.items()},
        yara={name: min(count, few) for name, count in rates.yara.items()},
    )
    assert judge(baseline, quiet, news).loud == 0


@given(_BASE, _RATES, _NEWS, st.integers(1, 300), st.integers(0, 1 << 40))
def test_who_speaks_more_is_never_judged_more_kindly(
    baseline: Baseline, rates: Rates, news: News, sid: int, more: int
) -> None:
    def found(verdict: Verdict) -> set[int | str]:
        return {*verdict.muted, *verdict.held, *verdict.yara}

    sids = {**rates.sids, sid: rates.sids.get(sid, 0) + more}
    louder = judge(baseline, Rates(seconds=rates.seconds, sids=sids, yara=rates.yara), news)
    assert found(judge(baseline, rates, news)) <= found(louder)


@given(_BASE, _RATES, _NEWS)
def test_too_many_loud_rules_always_mean_the_way_back(baseline: Baseline, rates: Rates, news: News) -> None:
    verdict = judge(baseline, rates, news)
    assert verdict.roll_back or verdict.loud <= soak.MUTED_CAP


@given(st.integers(0, 1 << 40), st.floats(0, 1e12))
def test_a_chance_is_one_and_never_below_the_true_tail_of_small_numbers(count: int, mean: float) -> None:
    assert 0.0 <= soak._chance(count, mean) <= 1.0
    if 0 < mean < 20 and count < 60:
        below = math.fsum(math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) for k in range(count))
        assert soak._chance(count, mean) >= 1 - below - 1e-9
