"""The uses of policy entries and exceptions are counted once each, whatever happens to the events."""

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.appliance.core.errors import DeviceFault
from sekisho.telemetry import hits
from sekisho.telemetry.events import Alert
from sekisho.telemetry.spool import Spool
from sekisho.telemetry.spool_view import SpoolView

AT = "2026-11-21T06:04:05.123456Z"


def used(entry: str, exception: str = "", at: str = AT) -> Alert:
    action = "allowed" if exception else "blocked"
    return Alert(at=at, function="url_category", policy=entry, exception=exception, action=action)  # type: ignore[arg-type]


def test_uses_are_counted_by_entry_and_exception_and_outlive_the_events(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool = Spool.open(path, 1 << 20, AT)
    spool.add([used("adult"), used("adult", "bank"), Alert(at=AT, sid=1)])
    spool.add([used("adult", at="2026-11-21T07:00:00.000000Z")])
    spool.acknowledge(10, ())
    spool.close()
    found = [(hit.entry, hit.exception, hit.action, hit.count, hit.last) for hit in SpoolView(path).hits()]
    assert found == [
        ("adult", "", "blocked", 2, "2026-11-21T07:00:00.000000Z"),
        ("adult", "bank", "allowed", 1, AT),
    ]


def test_entries_unused_for_longest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hits, "MAX_KINDS", 2)
    path = tmp_path / "spool.db"
    spool = Spool.open(path, 1 << 20, AT)
    spool.add([used(name, at=f"2026-11-21T0{hour}:00:00Z") for hour, name in enumerate("abc")])
    assert [hit.entry for hit in SpoolView(path).hits()] == ["b", "c"]


def test_no_spool_is_said(tmp_path: Path) -> None:
    with pytest.raises(DeviceFault):
        SpoolView(tmp_path / "none.db")
