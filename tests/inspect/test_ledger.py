"""Who got which file: found again when the file turns out bad, once, bounded, and never at the cost of the recorder."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.inspect import ledger as module
from sekisho.inspect.hashes import contains
from sekisho.inspect.ledger import Ledger
from sekisho.telemetry.events import MAX_DELIVERIES, FileVerdict, Flow

AT = "2026-11-21T09:00:00.000000Z"


def sha(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def verdict(number: int, mac: str = "02:77:00:00:00:10") -> FileVerdict:
    flow = Flow("203.0.113.9", 80, "10.0.0.10", 4000, "TCP", mac)
    return FileVerdict(at=AT, flow=flow, sha256=sha(number), file_name=f"{number}.exe", url="/x", host="h", app="http")


def test_the_devices_that_got_a_file_are_named_once_per_discovery(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.deliver(verdict(1), "10.0.0.10")
    ledger.deliver(verdict(1, "02:77:00:00:00:11"), "10.0.0.11")
    ledger.deliver(verdict(2), "10.0.0.10")
    retro = ledger.found_bad(sha(1), ["Bad"], "rules", AT)
    assert retro is not None
    assert [(d.mac, d.ip, d.file_name, d.url) for d in retro.deliveries] == [
        ("02:77:00:00:00:11", "10.0.0.11", "1.exe", "/x"), ("02:77:00:00:00:10", "10.0.0.10", "1.exe", "/x"),
    ]  # fmt: skip
    assert (retro.sha256, retro.why, retro.more) == (sha(1), "rules", 0)
    assert ledger.found_bad(sha(1), ["Bad"], "seen_bad", AT) is None
    assert ledger.found_bad(sha(1), ["Worse"], "rules", AT) is not None
    assert ledger.found_bad(sha(3), ["Bad"], "rules", AT) is None


def test_old_deliveries_go_and_none_for_a_clock_in_2099(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIM_EVERY", 1)
    ledger = Ledger(tmp_path / "ledger.db")
    now = time.time()
    for number, clock in enumerate((now, 4_070_908_800.0, now + 2 * 86400)):
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        ledger.deliver(verdict(number), "10.0.0.10")
    assert ledger.found_bad(sha(0), ["Bad"], "rules", AT) is not None
    monkeypatch.setattr(time, "time", lambda: now + (module.KEEP_DAYS + 1) * 86400)
    ledger.deliver(verdict(4), "10.0.0.10")
    assert ledger.found_bad(sha(0), ["Worse"], "rules", AT) is None
    assert ledger.found_bad(sha(2), ["Bad"], "rules", AT) is not None


def test_what_was_told_and_delivered_survives_a_restart(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.deliver(verdict(1), "10.0.0.10")
    assert ledger.found_bad(sha(1), ["Bad"], "rules", AT) is not None
    ledger.close()
    again = Ledger(tmp_path / "ledger.db")
    assert again.found_bad(sha(1), ["Bad"], "rules", AT) is None
    assert again.found_bad(sha(1), ["Other"], "rules", AT) is not None


def test_a_list_of_hashes_is_held_against_what_was_delivered(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    for number in range(50):
        ledger.deliver(verdict(number), "10.0.0.10")
    known = tmp_path / "known.bin"
    known.write_bytes(b"".join(sorted(bytes.fromhex(sha(n)) for n in (3, 7, 1000, 2000))))
    assert sorted(ledger.among(known)) == sorted([sha(3), sha(7)])
    known.write_bytes(b"")
    assert ledger.among(known) == []
    assert ledger.among(tmp_path / "absent") == []


def test_many_deliveries_are_counted_and_not_all_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    for _ in range(MAX_DELIVERIES + 5):
        ledger.deliver(verdict(1), "10.0.0.10")
    retro = ledger.found_bad(sha(1), ["Bad"], "rules", AT)
    assert retro is not None
    assert (len(retro.deliveries), retro.more) == (MAX_DELIVERIES, 5)


def test_rows_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 30)
    monkeypatch.setattr(module, "TRIM_EVERY", 10)
    ledger = Ledger(tmp_path / "ledger.db")
    for number in range(100):
        ledger.deliver(verdict(number), "10.0.0.10")
    ledger.close()
    (count,) = sqlite3.connect(tmp_path / "ledger.db").execute("SELECT count(*) FROM delivery").fetchone()
    assert count <= 40


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"this is no database at all" * 100)
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.deliver(verdict(1), "10.0.0.10")
    assert ledger.found_bad(sha(1), ["Bad"], "rules", AT) is not None
    assert (tmp_path / "ledger.db.damaged").exists()


def test_it_is_readable_by_the_box_alone(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.db")
    assert (tmp_path / "ledger.db").stat().st_mode & 0o777 == 0o600


@given(st.sets(st.binary(min_size=32, max_size=32), max_size=40), st.binary(min_size=32, max_size=32))
def test_a_hash_is_in_the_list_exactly_if_it_was_put_there(hashes: set[bytes], other: bytes) -> None:
    packed = b"".join(sorted(hashes))
    assert all(contains(packed, key) for key in hashes)
    assert contains(packed, other) == (other in hashes)
