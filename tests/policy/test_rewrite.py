"""Rewriting signatures by policy: the whole public rule set keeps its helpers, its number and its meaning."""

from __future__ import annotations

import io
import itertools
import lzma
import subprocess
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from suricata.update import rule as oracle

from sekisho.appliance.core.settings import Paths, Settings
from sekisho.policy import rewrite
from sekisho.policy.model import Signatures
from sekisho.signatures.tester import engine_config

SHARED = next(path for path in (Path(__file__).resolve().parents[n] / "shared" for n in (3, 4)) if path.is_dir())
CLASSES = {"trojan-activity": 1, "attempted-user": 1, "policy-violation": 1, "misc-activity": 3, "not-suspicious": 3}


@cache
def real_rules() -> tuple[str, ...]:
    """Every line of the public rule set that is a rule, disabled ones too."""
    (source,) = (SHARED / "data" / "rules").glob("*.rules.xz")
    lines = lzma.decompress(source.read_bytes()).decode().splitlines()
    return tuple(line for line in lines if "sid:" in line)


@cache
def parsed() -> tuple[oracle.Rule, ...]:
    """The same by another program's parser."""
    return tuple(oracle.parse_fileobj(io.StringIO("\n".join(real_rules()))))


def changed(rules: tuple[str, ...], *choices: Signatures, **more: object) -> list[str]:
    numbers = itertools.count(9100000)
    return rewrite.rewrite(rules, choices, more.get("exceptions", {}), CLASSES, lambda _: next(numbers))  # type: ignore[arg-type]


def test_blocking_everything_touches_no_helper_and_no_disabled_rule() -> None:
    before = parsed()
    assert sum(rule.enabled for rule in before) == 20_117 and sum(bool(rule.noalert) for rule in before) > 100
    lines = changed(real_rules(), Signatures(action="block", severity=tuple(range(1, 256))))
    after = [oracle.parse(line) for line in lines]
    assert len(after) == len(before) == len(real_rules())
    for old, new in zip(before, after, strict=True):
        assert new is not None and (old.sid, old.enabled) == (new.sid, new.enabled)
        if not old.enabled or old.noalert or old.action in ("pass", "config"):
            assert new.raw == old.raw
        else:
            assert new.action in ("drop", "reject", "rejectsrc", "rejectdst", "rejectboth")
            assert new.raw.partition(new.action)[2] == old.raw.partition(old.action)[2]


def test_disabled_rules_and_our_own_are_left_as_they_are() -> None:
    everything = Signatures(action="block", severity=tuple(range(1, 256)))
    disabled = tuple(f"{mark}{line}" for mark, line in zip(itertools.cycle(("#", "# ")), real_rules(), strict=False))
    ours = tuple(f'alert tcp any any -> any any (msg:"a"; sid:{sid};)' for sid in (9000001, 9100000, 9199999))
    assert changed(disabled + ours, everything) == list(disabled + ours)


def test_our_reading_of_a_rule_is_the_other_parsers() -> None:
    for line, rule in zip(real_rules(), parsed(), strict=True):
        known = rewrite.facts(line, CLASSES)
        if rule.enabled:
            assert known is not None
            assert (known.sid, known.classtype) == (rule.sid, rule.classtype or "")
            assert known.helper == bool(rule.noalert)


CHOICE = st.builds(
    Signatures,
    action=st.sampled_from(["block", "log"]),
    sids=st.lists(st.sampled_from([2000005, 2001219, 2013028, 2028371]), max_size=3).map(tuple),
    classtypes=st.lists(st.sampled_from(sorted(CLASSES)), max_size=3).map(tuple),
    severity=st.lists(st.integers(1, 4), max_size=2).map(tuple),
)


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=[pytest.mark.full, pytest.mark.timeout(300)])])
@settings(max_examples=4, deadline=None)
@given(choices=st.lists(CHOICE, max_size=4))
def test_any_policy_changes_only_first_words_of_rules_that_report(every: int, choices: list[Signatures]) -> None:
    rules = real_rules()[::every]
    for old, line in zip(rules, changed(rules, *choices), strict=True):
        known = rewrite.facts(old, CLASSES)
        word, rest = old.split(" ", 1)
        action = rewrite.wanted(known, choices) if known and not known.helper else ""
        assert line == {"block": f"{'drop' if word == 'alert' else word} {rest}", "log": f"alert {rest}"}.get(
            action, old
        )


def test_the_first_choice_that_fits_decides() -> None:
    rule = (
        'alert tcp any any -> any any (msg:"a \\; sid:7\\;"; content:"b|3b|"; classtype:trojan-activity; sid:5; rev:1;)'
    )
    assert changed((rule,), Signatures(action="log", sids=(5,)), Signatures(action="block", severity=(1,))) == [rule]
    assert changed((rule,), Signatures(action="block", severity=(1,)))[0].startswith("drop tcp")
    assert changed((rule.replace("alert", "reject"),), Signatures(action="log", sids=(5,))) == [rule]
    assert changed((rule,), Signatures(action="block", sids=(7,))) == [rule]


def test_an_exception_adds_a_condition_and_a_twin_that_only_reports() -> None:
    rule = 'alert tcp any any -> any any (msg:"a"; content:"b"; flowbits:set,x; sid:5; rev:1;)'
    made = changed((rule,), Signatures(action="block", sids=(5,)), exceptions={5: [("sk.xa.bank", "bank")]})
    assert [oracle.parse(line).action for line in made] == ["drop", "alert"]
    assert "flowbits:isnotset,sk.xa.bank;" in made[0] and "flowbits:set,x;" in made[0]
    assert "flowbits:isset,sk.xa.bank;" in made[1] and "flowbits:set,x" not in made[1]
    assert "sekisho_exception bank" in made[1] and oracle.parse(made[1]).sid == 9100000


def loaded(rules: list[str], work: Path) -> str:
    for folder in ("run/eve", "run/suricata", "run/inspect", "run/filestore"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    config = Settings(box="b", paths=Paths(run=str(work / "run"), state=str(work / "state")))
    (work / "suricata.rules").write_text("\n".join(rules) + "\n")
    (work / "engine.yaml").write_text(engine_config(config, work))
    argv = ["suricata", "-T", "-v", "-c", str(work / "engine.yaml"), "-l", str(work)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)
    found = [line for line in (done.stdout + done.stderr).splitlines() if "rules successfully loaded" in line]
    assert found, done.stderr[-500:]
    return found[-1].split("processed. ")[-1]


@pytest.mark.timeout(240)
def test_the_engine_loads_exactly_as_many_rules_as_before(tmp_path: Path) -> None:
    """A sample of the set: every twentieth rule, and all helpers with those that ask their bits."""
    some = [line for at, line in enumerate(real_rules()) if at % 20 == 0 or ("flowbits" in line and at % 3 == 0)]
    _compare(some, tmp_path)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_engine_loads_the_whole_set_as_before(tmp_path: Path) -> None:
    _compare(list(real_rules()), tmp_path)


def _compare(rules: list[str], tmp_path: Path) -> None:
    blocking = changed(tuple(rules), Signatures(action="block", severity=tuple(range(1, 256))))
    assert loaded(blocking, tmp_path / "after") == loaded(rules, tmp_path / "before")
