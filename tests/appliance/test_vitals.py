"""Vital signs are what the kernel says; what it does not say is 0."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from sekisho.appliance import vitals
from sekisho.telemetry.events import Event, Vitals


def test_this_machine_is_measured(tmp_path: Path) -> None:
    signs = vitals.measure(tmp_path)
    assert 0 < signs.disk_free <= signs.disk_size
    assert 0 < signs.memory_free <= signs.memory_size == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert signs.uptime > 0
    assert signs.version
    assert 0 <= signs.temperature < 200


def test_the_hottest_sensor_counts_and_what_is_none_does_not(tmp_path: Path) -> None:
    for number, text in enumerate(("45500\n", "61000\n", "-1\n", "garbage", "9999999\n")):
        (zone := tmp_path / f"thermal_zone{number}").mkdir()
        (zone / "temp").write_text(text)
    (tmp_path / "thermal_zone9").mkdir()
    assert vitals.measure(tmp_path, sensors=tmp_path).temperature == 61.0


def test_a_machine_that_says_nothing_has_zeros(tmp_path: Path) -> None:
    signs = vitals.measure(tmp_path / "absent", tmp_path / "absent", tmp_path / "absent")
    assert (signs.temperature, signs.disk_size, signs.memory_size, signs.uptime) == (0.0, 0, 0, 0)


def test_it_is_told_at_once_and_ends_when_asked(tmp_path: Path) -> None:
    told: list[Event] = []
    stop = threading.Event()
    stop.set()
    vitals.run(stop, tmp_path, told.append)
    assert [type(event) for event in told] == [Vitals]
