"""A rule that hurts the office, switched off at the centre: what it stopped passes within a minute, reload and all."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from sekisho.appliance.core import standing
from sekisho.center.database import Database
from sekisho.center.rules import switching
from sekisho.lab import layout, sets, updates
from sekisho.lab.lab import Lab

if TYPE_CHECKING:
    from tests.updates.conftest import Office

pytestmark = [pytest.mark.lab, pytest.mark.timeout(170)]

WITHIN_S = 60.0
SID = 7_710_009
WIDE = f'drop http any any -> any any (msg:"LAB too wide"; http.uri; content:"/hurt-by-rule"; sid:{SID}; rev:1;)\n'
TOO_WIDE = 'rule LabTooWide { strings: $a = "an invoice like any other" condition: $a }\n'


def _passes(lab: Lab, name: str) -> bool:
    """Whether the office gets it; what a rule drops never answers."""
    url = f"http://{layout.SERVER4}:{layout.HTTP}/{name}"
    asked = ["curl", "-s", "-o", "/dev/null", "--max-time", "2", "-w", "%{http_code}", url]
    return lab.run("lan", asked, timeout_s=10).stdout == b"200"


def _left_out(lab: Lab) -> int | None:
    """How many rules the engine leaves out, once that is proven."""
    told = standing.try_read(updates.settings(lab), "engine")
    return told.muted if told is not None and told.proven else None


def _until(lab: Lab, name: str, *, passes: bool) -> float:
    began = time.monotonic()
    lab.wait(lambda: _passes(lab, name) == passes, f"{name}: passes was never {passes}", WITHIN_S)
    return time.monotonic() - began


def test_what_hurts_is_switched_off_and_on_again_for_the_office(office: Office) -> None:
    lab = office.lab
    for name, content in (("hurt-by-rule.txt", b"text"), ("hurt-by-file.exe", b"MZ an invoice like any other")):
        (lab.lay.wan / "www" / name).write_bytes(content * 40)
    rules = {"rules/wide.rules": WIDE.encode(), "yara/wide.yar": TOO_WIDE.encode()}
    office.bring(sets.small() | rules)
    assert not _passes(lab, "hurt-by-rule.txt") and not _passes(lab, "hurt-by-file.exe")
    with closing(Database(str(lab.lay.center_store))) as database:
        with database.transaction() as db:
            for rule in (str(SID), "LabTooWide"):
                assert switching.off(db, rule, "op@example.com", "stops the office")
        took = [_until(lab, "hurt-by-rule.txt", passes=True), _until(lab, "hurt-by-file.exe", passes=True)]
        lab.wait(lambda: _left_out(lab) == 1, "the engine does not say so")
        with database.transaction() as db:
            for rule in (str(SID), "LabTooWide"):
                assert switching.on(db, rule)
        took += [_until(lab, "hurt-by-rule.txt", passes=False), _until(lab, "hurt-by-file.exe", passes=False)]
    print("seconds:", [round(one, 1) for one in took])
    assert max(took) < WITHIN_S
    office.bring(sets.small())
