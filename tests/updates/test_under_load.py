"""Rules change while an office works: nothing is lost, nothing comes through that must not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from sekisho.lab import sets, updates
from sekisho.lab.load import Load
from sekisho.lab.memory import Watch, at_rest_mb

if TYPE_CHECKING:
    from tests.updates.conftest import Office

pytestmark = [pytest.mark.lab]


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(6, marks=pytest.mark.timeout(90)),
        pytest.param(100, marks=[pytest.mark.full, pytest.mark.timeout(1200)]),
    ],
    ids=["sample", "hundred"],
)
def test_updates_under_load_lose_no_packet_and_let_no_canary_through(office: Office, count: int) -> None:
    rest = at_rest_mb(office.lab)
    with Load(office.lab) as load, Watch(office.lab) as memory:
        for day in range(count):
            office.bring(sets.of_day(sets.small(), office.number, changed=3, added=5, yara=day % 2))
        went = load.end()
    print(f"{went}\nmemory {rest:.0f} -> {memory.peak_mb:.0f} MB in {memory.looks} looks")
    assert (went.lost, went.broken, went.leaked) == (0, 0, 0)
    assert went.clean() and went.packets > count * 500
    assert memory.looks > count * 5
    assert memory.peak_mb < 1.5 * rest


def test_the_load_itself_sees_a_rule_that_is_gone(office: Office) -> None:
    """What counts nothing when nothing stops the canary would prove nothing above."""
    files = sets.small()
    del files["rules/canary.rules"]
    office.bring(files)
    try:
        with Load(office.lab) as load:
            time.sleep(1)
            went = load.end()
        assert went.canary.got == went.canary.sent > 20
        assert not went.clean()
    finally:
        office.bring(sets.small())


def test_an_engine_that_lost_its_rules_is_noticed_and_mended_while_the_office_works(office: Office) -> None:
    lab = office.lab
    updates.wait_for(lab, office.number, 20)
    before = {state: len(updates.told(lab, state)) for state in ("silent", "repaired")}
    with Load(lab) as load:
        time.sleep(0.5)
        began = updates.silence(lab)
        lab.wait(lambda: len(updates.told(lab, "silent")) > before["silent"], "nobody noticed", 20)
        noticed = time.monotonic() - began
        lab.wait(lambda: len(updates.told(lab, "repaired")) > before["repaired"], "nobody mended it", 40)
        repaired = time.monotonic() - began
        went = load.end()
    print(f"noticed after {noticed:.1f} s, repaired after {repaired:.1f} s, {went.canary.got} canaries passed")
    assert noticed < 5
    assert repaired < 30
    assert (went.lost, went.broken) == (0, 0)
    updates.wait_for(lab, office.number, 20)
