"""Rules change while an office works: nothing is lost, nothing comes through that must not."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from sekisho.appliance.core.settings import load
from sekisho.appliance.status import try_read
from sekisho.lab.lab import Lab
from sekisho.lab.load import Load
from sekisho.lab.sets import CANARY_RULE

pytestmark = [pytest.mark.lab, pytest.mark.timeout(90)]

SEKISHO = str(Path(sys.executable).with_name("sekisho"))


def reloads(lab: Lab) -> int:
    status = try_read(load(lab.lay.box_settings))
    return status.engine.reloads if status is not None else 0


def test_a_changed_directory_is_put_in_force_and_nobody_notices(office: Lab, rules: Path) -> None:
    with Load(office) as traffic:
        for number in range(6):
            before = reloads(office)
            (rules / "day.rules").write_text(
                f'alert tcp any any -> any 9 (msg:"day {number}"; sid:{7_720_000 + number};)\n'
            )
            office.run("box", [SEKISHO, "signatures", "apply", "--settings", str(office.lay.box_settings)], check=True)
            office.wait(lambda: reloads(office) > before, "the engine did not reload", 20)  # noqa: B023
        went = traffic.end()
    print(went)
    assert (went.lost, went.broken, went.leaked) == (0, 0, 0)
    assert went.clean()


def test_the_load_itself_sees_a_rule_that_is_gone(office: Lab, rules: Path) -> None:
    """What counts nothing when nothing stops the canary would prove nothing above."""
    (rules / "canary.rules").write_text("")
    try:
        before = reloads(office)
        office.run("box", [SEKISHO, "signatures", "apply", "--settings", str(office.lay.box_settings)], check=True)
        office.wait(lambda: reloads(office) > before, "the engine did not reload", 20)
        with Load(office) as traffic:
            time.sleep(1)
            went = traffic.end()
        assert went.canary.got == went.canary.sent > 100
        assert not went.clean()
    finally:
        (rules / "canary.rules").write_text(CANARY_RULE + "\n")
