"""The status command, the event at the centre and the engine itself tell one story, whatever became of a set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from sekisho.appliance import control
from sekisho.appliance.core import standing
from sekisho.appliance.rendering import count_rules
from sekisho.lab import sets, updates
from sekisho.lab.load import PLAIN_PORT, Load
from sekisho.telemetry.events import Signatures

if TYPE_CHECKING:
    from tests.updates.conftest import Office

pytestmark = [pytest.mark.lab, pytest.mark.timeout(90)]


def agree(office: Office, state: str, number: int) -> Signatures:
    """Everyone names set `number`, the same rules, and nobody knows better; the event that says `state`."""
    lab = office.lab
    box = updates.settings(lab)
    found = [event for event in updates.told(lab, state) if event.number == number]
    assert found, f"the centre has no {state} of {number}: {updates.told(lab, state)}"
    event = found[-1]
    own = sum(count_rules(path) for path in updates.rule_files(lab) if path.name != updates.rule_files(lab)[-1].name)
    engine = control.ruleset_stats(box.control_socket)
    status = msgspec.json.decode(updates.ask(lab, "status", "--json"))
    info = updates.linked(lab)
    inspector, scanner = standing.try_read(box, "engine"), standing.try_read(box, "scanner")
    assert info is not None
    assert inspector is not None
    assert scanner is not None
    assert engine.rules_loaded == inspector.rules + own + 1, "the set's, the product's, and the canary's"
    assert engine.rules_failed == 0
    assert status["number"] == info.number == number
    assert status["id"] == info.id == inspector.set_id == scanner.set_id
    assert event.set == info.id[:16]
    assert event.rules == inspector.rules == status["engine"]["rules"]
    assert event.yara == scanner.rules == status["scanner"]["rules"] == info.yara_rules
    assert inspector.rules == info.suricata_rules - inspector.muted
    assert status["proven"] and not status["wrong"]
    return event


def loud(count: int) -> sets.Files:
    """Rules that speak of every ordinary datagram."""
    files = sets.small()
    lines = [
        f'alert udp any any -> any {PLAIN_PORT} (msg:"LAB loud {sid}"; content:"good day"; sid:{sid}; rev:1;)'
        for sid in range(7_730_001, 7_730_001 + count)
    ]
    return files | {"rules/loud.rules": "\n".join(lines).encode() + b"\n"}


def test_after_an_update(office: Office) -> None:
    number = office.bring(sets.of_day(sets.small(), 40, changed=2, added=3, yara=1))
    office.lab.wait(lambda: any(e.number == number for e in updates.told(office.lab, "active")), "not told")
    agree(office, "active", number)


def test_after_a_refusal(office: Office) -> None:
    good = office.bring(sets.small())
    bad = office.publish(sets.small() | {"rules/more.rules": b"alert tcp any any -> any 9 (no such option;)\n" * 3})
    office.lab.wait(lambda: any(e.refused == bad for e in updates.told(office.lab, "refused")), "not refused", 40)
    event = agree(office, "refused", good)
    assert event.refused == bad
    assert "3 of" in event.detail or "no such" in event.detail, event.detail


def test_after_an_engine_that_lost_its_rules_was_mended(office: Office) -> None:
    lab = office.lab
    good = office.bring(sets.small())
    before, unnoticed = (len(updates.told(lab, state)) for state in ("repaired", "silent"))
    updates.silence(lab)
    lab.wait(lambda: len(updates.told(lab, "silent")) > unnoticed, "nobody noticed")
    wrong = lab.run("box", [updates.SEKISHO, "signatures", "status", "--settings", str(lab.lay.box_settings)])
    lab.wait(lambda: len(updates.told(lab, "repaired")) > before, "not mended", 40)
    updates.wait_for(lab, good, 20)
    event = updates.told(lab, "repaired")[-1]
    info = updates.linked(lab)
    assert info is not None
    assert (event.set, event.rules, event.failed) == (info.id[:16], info.suricata_rules, 0)
    assert updates.told(lab, "silent")[-1].rules == 0
    assert wrong.returncode != 0 or b"WRONG" not in wrong.stdout, "the exit code says what the text says"


def test_a_loud_rule_is_muted_and_everyone_counts_it_so(office: Office) -> None:
    lab = office.lab
    number = office.bring(loud(1))
    with Load(lab, datagrams=40) as load:
        lab.wait(lambda: any(e.number == number for e in updates.told(lab, "muted")), "not muted", 60)
        lab.wait(lambda: _muted(office) == 1, "the engine still has it", 30)
        went = load.end()
    event = updates.told(lab, "muted")[-1]
    assert event.sids == [7_730_001]
    assert (went.lost, went.broken, went.leaked) == (0, 0, 0)
    office.bring(sets.small())
    assert _muted(office) == 0


def test_a_set_that_is_loud_as_a_whole_is_rolled_back(office: Office) -> None:
    lab = office.lab
    good = office.bring(sets.small())
    bad = office.bring(loud(12))
    with Load(lab, datagrams=40) as load:
        lab.wait(lambda: any(e.refused == bad for e in updates.told(lab, "rolled_back")), "not rolled back", 70)
        updates.wait_for(lab, good, 30)
        went = load.end()
    assert agree(office, "rolled_back", good).refused == bad
    assert (went.lost, went.broken, went.leaked) == (0, 0, 0)


def _muted(office: Office) -> int:
    found = standing.try_read(updates.settings(office.lab), "engine")
    return found.muted if found is not None else -1
