"""IPv6 addresses have one spelling, so that an event finds its device in the inventory."""

from __future__ import annotations

import json
from pathlib import Path

from sekisho.telemetry import events
from sekisho.telemetry.decode import decode_eve, decode_journal, short_address
from sekisho.telemetry.inventory import Inventory

MAC = "02:77:00:00:00:10"
FULL = "fd77:0000:0000:0000:0000:0000:0000:0010"


def inventory(folder: Path) -> Inventory:
    path = folder / "inventory.json"
    path.write_text(json.dumps({"fd77::10": MAC}))
    known = Inventory(path)
    known.refresh()
    return known


def test_an_eve_line_with_a_full_address_finds_its_device(tmp_path: Path) -> None:
    line = {
        "timestamp": "2026-01-01T00:00:00.000000+0000",
        "event_type": "dns",
        "src_ip": FULL,
        "dest_ip": "10.0.0.1",
        "proto": "UDP",
        "dns": {"type": "query", "rrname": "a.test", "rrtype": "A"},
    }
    event = decode_eve(json.dumps(line).encode(), inventory(tmp_path))
    assert isinstance(event, events.Dns)
    assert (event.flow.src_ip, event.flow.mac) == ("fd77::10", MAC)


def test_a_journal_line_with_a_full_address_finds_its_device(tmp_path: Path) -> None:
    told = events.FileVerdict(at="2026-01-01T00:00:00.000000Z", flow=events.Flow(src_ip="10.0.0.1", dst_ip=FULL))
    event = decode_journal(events.encode(told), inventory(tmp_path))
    assert isinstance(event, events.FileVerdict)
    assert (event.flow.dst_ip, event.flow.mac) == ("fd77::10", MAC)


def test_what_is_no_address_stays_as_it_is() -> None:
    assert [short_address(text) for text in ("", "10.0.0.1", "x:y")] == ["", "10.0.0.1", "x:y"]
