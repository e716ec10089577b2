"""A policy on its way into force: refused files change nothing, also after a restart; what is true is told once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from livebox import Box

from sekisho.telemetry.events import Health

GOOD = '[[web_guard]]\nname = "own"\ndomains = ["evil.test"]\naddresses = ["203.0.113.7"]\n'
BAD = '[[web_guard]]\nname = "own"\ncolour = 1\n'


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_policy_comes_with_the_signatures_and_is_told_once(box: Box) -> None:
    box.file.write_text(GOOD)
    chosen = box.load()
    assert chosen.file == box.base.file and "evil" not in box.rules(chosen) and "own" in box.rules(chosen)
    assert [rule.remote for rule in box.enforced[-1].rules] == [("203.0.113.7/32",)]
    box.live.turn(box.engine)
    assert len(box.enforced) == 1
    assert [event.state for event in box.events if isinstance(event, Health)] == ["in_force"]


def test_a_refused_file_leaves_what_is_in_force_even_over_a_restart(box: Box) -> None:
    box.file.write_text(GOOD)
    first = box.load()
    box.file.write_text(BAD)
    for _ in range(2):
        kept = box.load()
        assert box.rules(kept) == box.rules(first) and "colour" in kept.rejection
        box.restart()
    box.file.write_text(GOOD)
    assert box.load().rejection == ""


def test_a_first_file_that_is_refused_means_no_policy_and_says_so(box: Box) -> None:
    box.file.write_text(BAD)
    chosen = box.load()
    assert chosen.policy is None and "colour" in chosen.rejection and chosen.file == box.base.file


def test_only_the_folder_in_force_stays(box: Box) -> None:
    for host in ("a.test", "b.test", "c.test"):
        box.file.write_text(GOOD.replace("evil.test", host))
        chosen = box.load()
    assert chosen.policy is not None
    assert [path for path in box.settings.policies.iterdir() if path.is_dir()] == [chosen.policy.parent]


def test_a_policy_the_engine_did_not_take_is_not_enforced(box: Box) -> None:
    box.file.write_text(GOOD)
    first = box.load()
    box.file.write_text(GOOD.replace("203.0.113.7", "203.0.113.8"))
    box.live.choose(box.base)
    box.engine.state.reloads += 1
    box.live.turn(box.engine)
    assert {rule.remote for wanted in box.enforced for rule in wanted.rules} == {("203.0.113.7/32",)}
    assert first.policy is not None and first.policy.exists()


def test_signatures_are_rewritten_beside_the_set(box: Box) -> None:
    box.file.write_text(
        '[[signatures]]\naction = "block"\nsids = [5]\n[[exception]]\nid = "x"\nreason = "r"\nsids = [5]\n'
    )
    chosen = box.load()
    lines = chosen.file.read_text().splitlines()
    assert chosen.rules == len(lines) == 2 and lines[0].startswith("drop") and lines[1].startswith("alert")
    assert box.base.file.read_text().startswith("alert")


def test_in_detect_mode_nothing_is_refused(tmp_path: Path) -> None:
    box = Box(tmp_path, "detect")
    box.file.write_text(GOOD)
    text = box.rules(box.load())
    assert "sekisho_action log" in text and "nfq_set_mark" not in text
    assert {rule.action for rule in box.enforced[-1].rules} == {"log"}


def test_the_inventory_names_who_is_in_a_group(box: Box) -> None:
    box.settings.run.mkdir()
    box.settings.state.mkdir(exist_ok=True)
    box.settings.inventory.write_text(
        json.dumps({"192.168.7.10": "02:00:00:00:00:0a", "fd00::10": "02:00:00:00:00:0b"})
    )
    known = {"02:00:00:00:00:0b": {"first_seen": "", "last_seen": "", "ipv6": ["fd00::10"], "kind": "printer"}}
    (box.settings.state / "inventory.json").write_text(json.dumps(known))
    roster = box.live.roster()
    assert roster.by_ip["192.168.7.10"] == "02:00:00:00:00:0a" and roster.kinds == {"02:00:00:00:00:0b": "printer"}
    box.settings.inventory.write_text("{damaged")
    assert box.live.roster().by_ip == {}
