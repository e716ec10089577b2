"""The measurement of what an event costs runs whole, and its lines are what the engine writes."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from sekisho.bench import eve_lines
from sekisho.bench.telemetry import telemetry
from sekisho.telemetry.decode import decode_eve
from sekisho.telemetry.inventory import Inventory

FIGURES = {"eve_lines", "eve_of_paho", "telemetry_rss", "wire_bytes"}


def test_every_line_is_an_event_and_they_come_in_an_offices_proportions() -> None:
    lines = eve_lines.make(2000)
    inventory = Inventory(Path("/nonexistent"), None, ("192.168.0.0/16",))
    assert all(decode_eve(line.rstrip(), inventory) for line in lines)
    kinds = Counter(json.loads(line)["event_type"] for line in lines)
    assert kinds["dns"] > kinds["tls"] > kinds["http"] > kinds["alert"] > kinds["smtp"] > 0


@pytest.mark.timeout(120)
@pytest.mark.skipif(not shutil.which("mosquitto_pub"), reason="make bench brings mosquitto-clients")
def test_all_three_ways_are_measured() -> None:
    figures = {figure.name: figure for figure in telemetry(lines=1000, rounds=1)}
    assert set(figures) == FIGURES
    assert all(value > 0 for figure in figures.values() for value in (figure.value, *figure.detail.values()))
    assert figures["wire_bytes"].value < figures["wire_bytes"].detail["plain, alone"]
