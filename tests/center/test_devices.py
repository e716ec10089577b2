"""A device is known by the newest word of its box, and only as a device of that box and tenant."""

from __future__ import annotations

from sekisho.center import devices
from sekisho.center.devices import Known
from sekisho.center.store import NewRow, Store
from sekisho.telemetry.events import Device, encode

MAC = "00:11:22:33:44:55"


def add(store: Store, seq: int, at: str, *, box: str = "box-1", **fields: str) -> None:
    event = Device(at=at, mac=MAC, **fields)  # type: ignore[arg-type]  # one test's fields
    with store.transaction():
        store.add("t1", box, "e" * 16, [NewRow(seq, 2, "device", at, encode(event))], at)


def known(store: Store, tenant: str = "t1", box: str = "box-1") -> Known:
    with store.database.reading() as db:
        return devices.known(db, tenant, box, MAC)


def test_the_newest_word_counts_in_whatever_order_it_comes(store_url: str) -> None:
    store = Store(store_url)
    add(store, 1, "2026-01-02T00:00:00Z", name="OLD", kind="computer")
    add(store, 3, "2026-01-04T00:00:00Z", name="NEW", kind="nas", vendor="Acme")
    add(store, 2, "2026-01-03T00:00:00Z", name="BETWEEN")
    assert known(store) == Known("NEW", "nas", "Acme")
    assert known(store, tenant="t2") == Known()
    assert known(store, box="box-2") == Known()


def test_what_is_no_name_is_left_out(store_url: str) -> None:
    store = Store(store_url)
    add(store, 1, "2026-01-02T00:00:00Z", name="x\0y", kind="k" * 200, vendor="Acme")
    assert known(store) == Known(vendor="Acme")
