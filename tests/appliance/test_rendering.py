"""What is made of a set for the engine: which lines go, which change their first word; nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.muting import Muting
from sekisho.appliance.rendering import MAX_LINE_BYTES, Load, RuleSet, prepare, prune, silent

SET = """\
drop tcp any any -> any any (msg:"one"; content:"drop it"; sid:1; rev:1;)
# drop tcp any any -> any any (msg:"off"; sid:9; rev:1;)
alert http any any -> any any (msg:"helper"; flowbits:set,sk.seen; noalert; sid:2; rev:1;)
drop http any any -> any any (msg:"asks"; flowbits:isset,sk.seen; content:"x"; sid:3; rev:1;)

rejectboth udp any any -> any any (msg:"r; sid:1\\;"; sid:4; rev:1;)
drop tcp any any -> any any (msg:"counts"; flowint:n,+,1; flowbits:noalert; sid: 5 ; rev:1;)
alert tcp any any -> any any (msg:"compares"; flowint:n,>,3; sid:6; rev:1;)
pass tcp any any -> any any (msg:"pass"; sid:7; rev:1;)
drop dns any any -> any any (msg:"list"; dns.query; dataset:set,seen,type string; sid:8; rev:1;)
"""
RULES = [line for line in SET.splitlines() if line and not line.startswith("#")]


def made(directory: Path, muting: Muting, *, detect: bool = False, text: str = SET, rules: int = 8) -> Load:
    path = directory / "set"
    path.write_text(text)
    return prepare(RuleSet("set", path, rules), muting, directory, detect=detect)


def lines(load: Load) -> list[str]:
    *rules, last = load.file.read_text().splitlines()
    assert last.startswith("drop udp 127.0.0.1 ") and load.word in last and "noalert; sid:9000099;" in last
    assert load.rules == len(rules) and load.expected == load.own + load.rules
    return rules


def test_nothing_muted_changes_nothing(tmp_path: Path) -> None:
    load = made(tmp_path, Muting())
    assert lines(load) == RULES and (load.muted, load.soaking) == (0, 0)


def test_a_muted_rule_goes_and_one_that_others_need_stays_without_a_word(tmp_path: Path) -> None:
    load = made(tmp_path, Muting(sids=(1, 2, 5, 6, 8, 12345)))
    assert load.muted == 5
    assert lines(load) == [
        RULES[1][:-1] + " noalert;)",
        RULES[2],
        RULES[3],
        RULES[4].replace("drop", "alert", 1)[:-1] + " noalert;)",
        RULES[6],
        RULES[7].replace("drop", "alert", 1)[:-1] + " noalert;)",
    ]


def test_a_rule_on_trial_only_reports_and_a_helper_stays_what_it_is(tmp_path: Path) -> None:
    load = made(tmp_path, Muting(on_trial=(1, 2, 4, 7)))
    assert load.soaking == 2, "the helper and the pass rule drop nothing"
    assert lines(load) == [RULES[0].replace("drop", "alert", 1), *RULES[1:3], "alert" + RULES[3][10:], *RULES[4:]]
    assert 'content:"drop it"' in lines(load)[0]


def test_detect_mode_stops_nothing_but_the_canary(tmp_path: Path) -> None:
    assert not [line for line in lines(made(tmp_path, Muting(), detect=True)) if line.startswith(("drop", "reject"))]


def test_the_word_stands_for_every_byte_that_is_loaded(tmp_path: Path) -> None:
    plain = made(tmp_path, Muting())
    assert made(tmp_path, Muting()) == plain
    other = made(tmp_path, Muting(), text=SET.replace("rev:1", "rev:2", 1))
    policy = tmp_path / "policy.rules"
    policy.write_text("# the owner's\n")
    with_policy = prepare(RuleSet("set", tmp_path / "set", 8, policy=policy), Muting(), tmp_path, detect=False)
    words = {plain.word, other.word, with_policy.word, made(tmp_path, Muting(on_trial=(1,))).word}
    assert len(words) == 4
    prune(tmp_path, plain)
    assert [path.name for path in tmp_path.glob("rules-*")] == [plain.file.name]


@pytest.mark.parametrize(
    ("text", "rules"), [(SET, 9), (SET, 7), ("", 1), ("alert " + "x" * MAX_LINE_BYTES + "\n", 1)], ids=str
)
def test_a_set_that_is_not_what_it_says_is_refused_and_leaves_nothing(tmp_path: Path, text: str, rules: int) -> None:
    with pytest.raises(RejectedInput):
        made(tmp_path, Muting(), text=text, rules=rules)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_silenced_rule_keeps_its_options() -> None:
    assert silent(b'drop ip any any -> any any (msg:"(drop)"; sid:5; )') == (
        b'alert ip any any -> any any (msg:"(drop)"; sid:5;  noalert;)'
    )


@given(st.sets(st.integers(1, 12)), st.sets(st.integers(1, 12)), st.booleans())
def test_only_first_words_and_whole_lines_change(
    tmp_path_factory: pytest.TempPathFactory, muted: set[int], on_trial: set[int], detect: bool
) -> None:
    muting = Muting(sids=tuple(sorted(muted)), on_trial=tuple(sorted(on_trial)))
    load = made(tmp_path_factory.mktemp("r"), muting, detect=detect)
    known = {rule.partition(" ")[2].removesuffix(")") for rule in RULES}
    assert all(line.partition(" ")[2].removesuffix(")").removesuffix(" noalert;") in known for line in lines(load))
    assert load.muted == len(muted & set(range(1, 9)))
