"""What a published set must pass on the box, by the real engines, before anything of it is in force."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from played_box import settings_of

from sekisho.appliance.core import muting
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.settings import Settings
from sekisho.signatures import compiler, tester, traffic
from sekisho.signatures.model import Rule

GOOD = 'drop http any any -> any any (msg:"good"; http.uri; content:"/evil-gate.php"; sid:1000001; rev:1;)\n'
YARA = 'rule good { strings: $a = "a very malicious thing" condition: $a }\n'


def build(root: Path, rules: str = GOOD, yara: str = YARA, counts: tuple[int, int] = (1, 1)) -> tuple[Settings, str]:
    settings = settings_of(root, b"{}")
    for folder, name, text in (("rules", "a.rules", rules), ("yara", "a.yar", yara)):
        (root / "sources" / folder).mkdir(parents=True)
        (root / "sources" / folder / name).write_text(text)
    wanted = compiler.Published(number=4, built="2026-11-21T03:00:00Z", rules=counts[0], yara=counts[1])
    return settings, compiler.build(settings, root / "sources", wanted).id


def test_a_good_set_is_laid_beside_and_changes_nothing_in_force(tmp_path: Path) -> None:
    settings, made = build(tmp_path)
    found = compiler.find(settings, made)
    assert found is not None
    assert (found.number, found.built, found.suricata_rules) == (4, "2026-11-21T03:00:00Z", 1)
    assert compiler.current(settings) is None
    compiler.switch(settings, made)
    assert compiler.ensure(settings) == found, "nobody builds over the channel's set"


RULE = 'drop {} (msg:"too much"; {}sid:1000002; rev:1;)\n'


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("ip any any -> any any", ""),
        ("tcp any any -> any 443", ""),
        ("dns any any -> any any", "dns.query; content:\"example\"; "),
        ("http any any -> any any", "http.user_agent; content:\"Mozilla\"; "),
        ("icmp any any -> any any", ""),
        ("smtp any any -> any any", ""),
    ],
)  # fmt: skip
def test_a_set_that_would_cut_an_office_off_is_refused(tmp_path: Path, head: str, options: str) -> None:
    with pytest.raises(RejectedInput, match="ordinary traffic of an office: sid 1000002"):
        build(tmp_path, GOOD + RULE.format(head, options), counts=(2, 1))


def test_a_drop_that_waits_for_what_another_rule_notes_is_tried_with_that_rule(tmp_path: Path) -> None:
    notes = (
        'alert http any any -> any any (msg:"notes"; http.method; bsize:>0; flowbits:set,seen; noalert; sid:1000003;)\n'
    )
    drop = RULE.format("http any any -> any any", "flowbits:isset,seen; ")
    with pytest.raises(RejectedInput, match="ordinary traffic of an office: sid 1000002"):
        build(tmp_path, GOOD + notes + drop, counts=(3, 1))


def test_rules_that_only_report_are_all_read_and_not_built(tmp_path: Path) -> None:
    """A second engine of full size beside the living one is more than a small box can bear."""
    settings = settings_of(tmp_path, b"{}")
    reports = [
        Rule(at, 1, f"a.rules:{at}", f'alert http any any -> any any (http.uri; content:"/report-{at}"; sid:{at};)')
        for at in range(1, 3000)
    ]
    drop = Rule(5000, 1, "a.rules:5000", GOOD.strip())
    config = tester.engine_config(settings, tmp_path)
    proved, refused = tester.prove_rules([*reports, drop], config, tmp_path, traffic=traffic.capture())
    assert (len(proved), refused) == (3000, [])
    assert (tmp_path / "suricata.rules").read_text() == GOOD
    broken = msgspec.structs.replace(reports[1500], text=reports[1500].text.replace("http.uri", "no_such_word"))
    _, (named,) = tester.prove_rules([*reports[:1500], broken, drop], config, tmp_path, traffic=traffic.capture())
    assert (named.sid, "no_such_word" in named.why) == (1501, True)


@pytest.mark.parametrize(
    ("rules", "yara", "counts", "why"),
    [
        (GOOD + RULE.format("http any any -> any any", "no_such_word; "), YARA, (2, 1), "no_such_word"),
        (GOOD, YARA, (2, 1), "should hold 2 rules"),
        (GOOD, YARA, (1, 2), "2 YARA rules"),
        (GOOD, "rule broken { condition: nothing }", (1, 1), "a.yar"),
        (GOOD, "rule every { condition: true }", (1, 1), "clean sample"),
        ("# nothing\n", YARA, (1, 1), "no enabled rule"),
        (GOOD + "<html>503</html>\n", YARA, (1, 1), "not a Suricata rule"),
    ],
)
def test_a_set_that_is_not_what_it_says_is_refused(
    tmp_path: Path, rules: str, yara: str, counts: tuple[int, int], why: str
) -> None:
    with pytest.raises(RejectedInput, match=why):
        build(tmp_path, rules, yara, counts)
    assert not list((tmp_path / "state" / "signatures").glob("[0-9a-f]*"))


def test_without_memory_or_time_for_the_trial_the_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tester, "TESTER_BYTES", 64 << 20)
    with pytest.raises(RejectedInput, match=r"memory|time"):
        build(tmp_path)


@pytest.mark.parametrize(
    "option",
    [
        "nfq_set_mark:0x2/0x2; noalert; ",
        'content:"abcd"; replace:"efgh"; ',
        "dns.query; dataset:set,seen,type string,save seen.lst; ",
        "dns.query; dataset:set,seen,type string, state seen.lst; ",
    ],
)
def test_a_set_that_would_do_more_than_judge_packets_is_refused_whoever_signed_it(tmp_path: Path, option: str) -> None:
    head = "dns any any -> any any" if option.startswith("dns") else "tcp any any -> any any"
    with pytest.raises(RejectedInput, match=r"more than judge packets.*sid 1000003"):
        build(tmp_path, f'{GOOD}alert {head} (msg:"x"; {option}sid:1000003; rev:1;)\n', counts=(2, 1))


def test_a_set_that_would_switch_records_off_is_refused(tmp_path: Path) -> None:
    rule = 'config http any any -> any 80 (msg:"x"; flow:to_server; {}sid:1000003; rev:1;)\n'
    with pytest.raises(RejectedInput, match="more than judge packets"):
        build(tmp_path, GOOD + rule.format("config:logging disable, type tx, scope tx; "), counts=(2, 1))


@pytest.mark.parametrize("kind", ["pipe", "device", "endless"])
@pytest.mark.parametrize("name", ["set.json", "suricata.rules"])
def test_whoever_may_write_sets_cannot_make_the_others_wait_for_ever(tmp_path: Path, kind: str, name: str) -> None:
    settings, made = build(tmp_path)
    compiler.switch(settings, made)
    path = settings.sets / made / name
    spoil(path, kind)
    assert compiler.current(settings) is None
    said = muting.path_of(settings, "mine")
    said.parent.mkdir(parents=True, exist_ok=True)
    spoil(said, kind)
    assert muting.both(settings) == muting.Muting()


def spoil(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 1 << 40)
