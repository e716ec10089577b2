"""A new rule matches everybody's traffic: the box quietens it by itself and says so; an old one, as loud, goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sekisho.appliance.core import fired, muting, standing
from sekisho.lab import layout, sets, updates
from sekisho.lab.lab import Lab
from sekisho.signatures.soak import LEAST

pytestmark = [pytest.mark.lab, pytest.mark.full, pytest.mark.timeout(240)]

OLD, NEW, HELD = 7_710_011, 7_710_012, 7_710_013


def _rule(action: str, sid: int, path: str) -> str:
    return f'{action} http any any -> any any (msg:"LAB {path}"; http.uri; content:"/{path}"; sid:{sid}; rev:1;)\n'


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(f"ld{os.getpid()}-l") as made:
        made.up({"signatures": {"soak_minutes": 0.5}}, channel=True)
        yield made


def test_a_new_rule_is_muted_a_new_dropping_one_held_and_an_old_one_left_alone(lab: Lab) -> None:
    old = sets.small() | {"rules/old.rules": _rule("alert", OLD, "old").encode()}
    new = _rule("alert", NEW, "new") + _rule("drop", HELD, "held")
    for number, files, drops in ((1, old, ()), (2, old | {"rules/new.rules": new.encode()}, (HELD,))):
        lab.channel.publish(number, files, new_drops=drops)
        updates.ask(lab, "update")
        updates.wait_for(lab, number, 60)
        if number == 1:
            lab.wait(lambda: any(told.number == 1 for told in updates.told(lab, "active")), "its soak never ends", 90)
    box = updates.settings(lab)
    lab.wait(lambda: fired.try_read(box) is not None and HELD in muting.both(box).on_trial, "no soak", 30)
    for path in ("old", "new", "held"):
        (lab.lay.wan / "www" / f"{path}.txt").write_text(path)
    urls = [f"http://{layout.SERVER4}:{layout.HTTP}/{path}.txt" for path in ("old", "new", "held")] * LEAST

    def muted_while_the_office_works() -> bool:
        got = lab.run("lan", ["curl", "-s", "--max-time", "60", *urls], timeout_s=90).stdout
        assert got == b"oldnewheld" * LEAST, "whatever is new stops nobody"
        return muting.both(box).sids == (NEW,)

    lab.wait(muted_while_the_office_works, "not muted", 60)
    lab.wait(lambda: any(told.number == 2 for told in updates.told(lab, "active")), "its soak never ends", 90)
    assert muting.both(box) == muting.Muting(sids=(NEW,), on_trial=(HELD,)), "held also when the soak is over"
    lab.wait(lambda: NEW in {sid for told in updates.told(lab, "muted") for sid in told.sids}, "nobody heard", 30)

    def works() -> bool:
        told = standing.try_read(box, "engine")
        return told is not None and told.proven and told.muted == 1

    lab.wait(works, "the engine does not say so", 30)
    assert updates.in_force(lab, 2), "the set itself stays"
