"""Policy over rules: what may drop, what may only alert, and what must never drop, whoever asks for it."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.model import Source
from sekisho.signatures.press.policy import DROPPING, Gathered, Outcome, decide
from sekisho.signatures.press.recipe import OWN, PolicyLine, Selector
from sekisho.signatures.press.ruletext import facts, matching, options
from sekisho.signatures.sources import parse_rules

ET = Path(__file__).parents[4] / "shared/data/rules/et-open-2020-04.rules.xz"
EVERYTHING = PolicyLine(action="drop")


def text(
    sid: int, middle: str = "", action: str = "alert", msg: str = "ET MALWARE one", kind: str = "trojan-activity"
) -> str:
    return (
        f'{action} tcp any any -> any any (msg:"{msg}"; {middle}content:"x{sid}"; classtype:{kind}; sid:{sid}; rev:1;)'
    )


def gathered(*texts: str, source: str = "et", as_written: bool = False) -> list[Gathered]:
    rules = parse_rules([Source(f"{source}.rules", "\n".join(texts).encode())])[0]
    return [Gathered(source, rule, facts(rule.text), as_written) for rule in rules]


def actions(outcome: Outcome) -> dict[int, str]:
    return {ruled.rule.sid: ruled.rule.text.split()[0] for ruled in outcome.rules}


def test_a_rule_no_line_names_raises_alerts_whatever_its_writer_wanted() -> None:
    rules = gathered(text(1), text(2, action="drop"), text(3, action="reject"))
    assert actions(decide(rules, [])) == {1: "alert", 2: "alert", 3: "alert"}


def test_the_first_line_that_names_a_rule_decides() -> None:
    lines = [
        PolicyLine(action="alert", sids=[2]),
        PolicyLine(action="off", classtypes=["policy-violation"]),
        PolicyLine(action="drop", categories=["ET MALWARE"]),
    ]
    rules = gathered(text(1), text(2), text(3, kind="policy-violation"), text(4, msg="ET INFO x"))
    assert actions(decide(rules, lines)) == {1: "drop", 2: "alert", 4: "alert"}


def test_a_category_is_whole_words_at_the_beginning_of_the_message() -> None:
    rules = gathered(text(1, msg="ET MALWARES x"), text(2, msg="not ET MALWARE"), text(3, msg="ET MALWARE"), text(4))
    lines = [PolicyLine(action="drop", categories=["ET MALWARE"])]
    assert actions(decide(rules, lines)) == {1: "alert", 2: "alert", 3: "drop", 4: "drop"}


def test_of_several_fields_all_must_fit() -> None:
    line = PolicyLine(action="drop", sources=["et"], classtypes=["trojan-activity"], categories=["ET MALWARE"])
    rules = gathered(text(1), text(2, kind="misc-activity")) + gathered(text(3), source="other")
    assert actions(decide(rules, [line])) == {1: "drop", 2: "alert", 3: "alert"}


@pytest.mark.parametrize(
    "mark",
    [
        "flowbits:set,a; flowbits:noalert; ",
        "flowbits: set,a; flowbits: noalert; ",
        "flowbits:set,a;flowbits:noalert;",
        "flowbits:noalert; ",
        "noalert; ",
        "xbits:set,a,track ip_dst,expire 10; noalert; ",
        "FLOWBITS:NOALERT; ",
    ],
)
@pytest.mark.parametrize("written", ["alert", "drop"])
def test_a_rule_that_only_marks_flows_never_drops(mark: str, written: str) -> None:
    for as_written in (False, True):
        rules = gathered(text(1, mark, action=written), as_written=as_written)
        for lines in ([EVERYTHING], [PolicyLine(action="drop", sids=[1], urgent=True)], []):
            assert actions(decide(rules, lines)) == {1: "alert"}


def test_the_word_noalert_in_a_message_or_pattern_does_not_keep_a_rule_from_dropping() -> None:
    rules = gathered(
        text(1, msg="ET noalert; x"), text(2, 'content:"flowbits:noalert"; '), text(3, r'content:"a\; noalert\;b"; ')
    )
    assert actions(decide(rules[1:], [EVERYTHING])) == {2: "drop", 3: "drop"}


def test_a_commented_rule_stays_off() -> None:
    rules = gathered(text(1), "#" + text(2), "# " + text(3), "  #alert " + text(4))
    assert actions(decide(rules, [EVERYTHING, PolicyLine(action="drop", sids=[2, 3, 4])])) == {1: "drop"}


def test_rules_that_would_let_others_through_are_off() -> None:
    rules = gathered(text(1, action="pass"), text(2, action="config"), text(3))
    outcome = decide(rules, [EVERYTHING])
    assert (actions(outcome), outcome.overstepping) == ({3: "drop"}, [1, 2])


@pytest.mark.parametrize(
    "option",
    [
        "bypass; ",
        "nfq_set_mark:0x8/0x8; ",
        'content:"a"; replace:"b"; ',
        "lua:x.lua; ",
        "LUA: x.lua; ",
        "filemd5:bad.list; ",
        "dataset:isset,bad,type string,load /etc/passwd; ",
        "dns.query; dataset:set,seen,type string, save seen.lst; ",
        "dns.query; dataset:set,seen,type string,state seen.lst; ",
        "config:logging disable,type tx,scope tx; ",
    ],
)
def test_rules_of_others_that_do_more_than_judge_packets_are_off_even_as_helpers(option: str) -> None:
    rules = gathered(text(1, option + "flowbits:set,a; "), text(2, "flowbits:isset,a; "), text(3, msg="ET bypass; x"))
    assert 1 not in actions(decide(rules, [EVERYTHING, PolicyLine(action="drop", sids=[1])]))
    assert actions(decide(gathered(text(1, option), as_written=True), [])) == {1: "alert"}


def test_a_dataset_in_memory_and_a_word_in_a_pattern_do_no_more_than_judge() -> None:
    rules = gathered(
        text(1, "dns.query; dataset:set,seen,type string; "), text(2, 'content:"bypass"; content:"lua:x"; ')
    )
    assert actions(decide(rules, [])) == {1: "alert", 2: "alert"}


def test_our_own_rules_do_what_they_say_unless_named_by_sid() -> None:
    rules = gathered(text(1, action="drop"), text(2), text(3, action="drop"), source=OWN, as_written=True)
    lines = [PolicyLine(action="alert", sids=[3]), PolicyLine(action="off")]
    assert actions(decide(rules, lines)) == {1: "drop", 2: "alert", 3: "alert"}
    everything = [Selector(classtypes=["trojan-activity"])]
    assert actions(decide(rules, [], everything)) == {1: "drop", 2: "alert", 3: "drop"}


def test_only_the_action_of_a_rule_changes() -> None:
    rules = gathered(text(1, msg="ET alert alert"))
    assert decide(rules, [EVERYTHING]).rules[0].rule.text == text(1, action="drop", msg="ET alert alert")


def test_a_rule_that_is_off_but_marks_flows_for_another_is_kept_and_silenced() -> None:
    rules = gathered(
        text(1, "flowbits:isset,a; "), text(2, "flowbits:set,a; flowbits:isset,b; ", kind="bad"),
        text(3, "flowbits:set,b; flowbits:noalert; ", kind="bad"), text(4, "flowbits:set,c; ", kind="bad"),
    )  # fmt: skip
    outcome = decide(rules, [PolicyLine(action="off", classtypes=["bad"]), EVERYTHING])
    assert actions(outcome) == {1: "drop", 2: "alert", 3: "alert"}
    assert (outcome.helpers, outcome.off) == ([2, 3], 1)
    kept = {ruled.rule.sid: ruled.rule.text for ruled in outcome.rules}
    assert kept[2] == text(2, "flowbits:set,a; flowbits:isset,b; ", kind="bad")[:-1] + " noalert;)"
    assert facts(kept[2]).silent
    assert kept[3] == rules[2].rule.text


def test_a_rule_that_is_off_by_its_sid_stays_off_and_who_needed_it_is_named() -> None:
    rules = gathered(text(1, "flowbits:isset,a; "), text(2, "flowbits:set,a; "))
    outcome = decide(rules, [PolicyLine(action="off", sids=[2])])
    assert (actions(outcome), outcome.helpers, outcome.deaf) == ({1: "alert"}, [], [1])


def test_what_is_left_out_to_fit_is_off_whatever_the_policy_says() -> None:
    outcome = decide(gathered(text(1), text(2)), [EVERYTHING], [Selector(sids=[2])])
    assert (actions(outcome), outcome.off) == ({1: "drop"}, 1)


def test_urgent_are_only_rules_that_drop() -> None:
    rules = gathered(text(1), text(2, "noalert; "))
    assert [ruled.urgent for ruled in decide(rules, [PolicyLine(action="drop", urgent=True)]).rules] == [True, False]


def test_a_line_that_decides_about_nothing_is_named() -> None:
    assert decide(gathered(text(1)), [PolicyLine(action="drop", sids=[7]), EVERYTHING, EVERYTHING]).idle == [1, 3]


MARKS = ["", "flowbits:set,{0}; ", "flowbits:isset,{0}; ", "flowbits:isset,{0}|{1}; ", "flowbits:unset,{0}; "]
SILENCES = ["", "noalert; ", "flowbits:noalert; ", "flowbits: noalert; "]
LINES = st.builds(
    PolicyLine,
    action=st.sampled_from(["drop", "alert", "off"]),
    classtypes=st.lists(st.sampled_from(["a", "b"]), max_size=1),
    categories=st.lists(st.sampled_from(["ET X", "ET Y"]), max_size=1),
    sids=st.lists(st.integers(1, 12), max_size=2),
)


@st.composite
def rule_files(draw: st.DrawFn) -> list[tuple[str, bool, bool]]:
    """Rules as (text, whether it is silent, whether it is commented out)."""
    found = []
    for sid in range(1, draw(st.integers(2, 12))):
        silence = draw(st.sampled_from(SILENCES))
        mark = draw(st.sampled_from(MARKS)).format(*draw(st.permutations("pqr")))
        middle = mark + silence if draw(st.booleans()) else silence + mark
        action = draw(st.sampled_from(["alert", "drop", "reject", "pass"]))
        msg = draw(st.sampled_from(["ET X one", "ET Y two", "drop alert noalert"]))
        off = draw(st.booleans())
        line = text(sid, middle, action=action, msg=msg, kind=draw(st.sampled_from("abc")))
        found.append(("# " * off + line, bool(silence), off))
    return found


@given(rule_files(), st.lists(LINES, max_size=4), st.lists(LINES, max_size=2))
def test_whatever_the_policy_no_helper_drops_and_nothing_commented_comes_back(
    written: list[tuple[str, bool, bool]], lines: list[PolicyLine], gone: list[PolicyLine]
) -> None:
    try:
        rules = gathered(*(line for line, _, _ in written))
    except RejectedInput:
        assert all(off for _, _, off in written)
        return
    outcome = decide(rules, lines, gone)
    silent = {sid for sid, (_, quiet, _) in enumerate(written, 1) if quiet}
    commented = {sid for sid, (_, _, off) in enumerate(written, 1) if off}
    before = {item.rule.sid: item.rule.text for item in rules}
    named = {sid for sid in before if any(line.action == "drop" for line in lines)}
    found = actions(outcome)
    assert not found.keys() & commented
    assert {sid for sid, action in found.items() if action in DROPPING} <= named - silent
    for ruled in outcome.rules:
        old, new = before[ruled.rule.sid], ruled.rule.text
        kept = [option for option in options(new) if option != ("noalert", "")]
        assert kept == [option for option in options(old) if option != ("noalert", "")]
        assert new.split(" ", 1)[1].removesuffix(" noalert;)") == old.split(" ", 1)[1].removesuffix(" noalert;)") or (
            new.endswith(" noalert;)") and new.split(" ", 1)[1][: -len(" noalert;)")] == old.split(" ", 1)[1][:-1]
        )
        assert not (ruled.rule.sid in outcome.helpers and not facts(new).silent)
    killed = {sid for line in lines if line.action == "off" for sid in line.sids}
    could = {
        mark
        for item in rules
        if item.facts.action != "pass" and item.rule.sid not in killed
        for mark in item.facts.writes
    }
    does = {mark for sid in found for mark in facts(before[sid]).writes}
    assert {mark for sid in found for mark in facts(before[sid]).reads} & could <= does


@pytest.mark.skipif(not ET.exists(), reason="no real rule set beside the repository")
def test_on_a_real_rule_set_everything_drops_but_the_rules_that_only_mark() -> None:
    lines = lzma.decompress(ET.read_bytes()).decode().splitlines()[::2]
    disabled = {number for number in range(0, len(lines), 9)}
    written = "\n".join(("#" if number in disabled else "") + line for number, line in enumerate(lines))
    rules = parse_rules([Source("et.rules", written.encode())])[0]
    outcome = decide([Gathered("et", rule, facts(rule.text)) for rule in rules], [EVERYTHING])
    found = actions(outcome)
    silent = {rule.sid for rule in rules if "noalert;" in rule.text}
    assert len(silent) > 150
    assert {sid for sid, action in found.items() if action == "alert"} == silent
    assert len(found) == len(lines) - len(disabled)
    assert all(matching(new.rule.text) == matching(old.text) for new, old in zip(outcome.rules, rules, strict=True))


def test_a_rule_is_read_as_the_engine_splits_it() -> None:
    line = r'alert tcp any any -> any any (msg:"a\;b (c)"; content:"x\;y"; pcre:"/a\;b/"; sid:1;)'
    assert options(line) == [("msg", r'"a\;b (c)"'), ("content", r'"x\;y"'), ("pcre", r'"/a\;b/"'), ("sid", "1")]


@given(st.text(max_size=200))
def test_any_text_after_the_action_has_facts(rest: str) -> None:
    assert facts(f"alert {rest}").action == "alert"
