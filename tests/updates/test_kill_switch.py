"""People at the centre switch a rule off, and seconds later no box uses it."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

import pytest

from sekisho.lab import layout, updates

if TYPE_CHECKING:
    from tests.updates.conftest import Office

    from sekisho.lab.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

RULE = "9000100"


def stopped(lab: Lab) -> bool:
    """Whether the rule still stops what it names."""
    url = f"http://{layout.SERVER4}/sk-c2/checkin?id={secrets.token_hex(4)}"
    host = f"Host: {secrets.token_hex(4)}.{layout.SERVER_NAME}"
    return lab.run("lan", ["curl", "-s", "-o", "/dev/null", "--max-time", "1", "-H", host, url]).returncode != 0


def switch(lab: Lab, *words: str) -> None:
    argv = [updates.SEKISHO, "center", "rules", *words, "--store", str(lab.lay.center_store)]
    lab.run("center", argv, check=True)


def test_a_rule_switched_off_at_the_centre_stops_nothing_at_the_box_within_a_minute(office: Office) -> None:
    lab = office.lab
    assert stopped(lab)
    began = time.monotonic()
    switch(lab, "off", RULE, "--why", "stops honest visits")
    try:
        lab.wait(lambda: not stopped(lab), "the rule still stops", 60)
        print(f"off after {time.monotonic() - began:.1f} s")
    finally:
        switch(lab, "on", RULE)
    lab.wait(lambda: stopped(lab), "the rule does not come back", 60)
