"""Delivered files are opened for another look, whole, at the pace at which they are taken."""

from __future__ import annotations

import os
import time
from pathlib import Path

from sekisho.inspect.kept import Entry
from sekisho.inspect.quarantine import Quarantine
from sekisho.inspect.retro import Again, Rescan


def stored(folder: Path, contents: list[bytes]) -> Quarantine:
    store = Quarantine(folder, max_bytes=1 << 24, keep_days=7)
    for content in contents:
        fd = os.memfd_create("x")
        os.write(fd, content)
        store.put(fd, len(content), Entry("", "", "ab" * 32, len(content), form="transfer"))
        os.close(fd)
    return store


def take(rescan: Rescan, within_s: float = 10) -> Again | None:
    deadline = time.monotonic() + within_s
    while (again := rescan.take()) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return again


def content(again: Again | None) -> bytes:
    assert again is not None
    data = os.pread(again.fd, again.length, 0)
    os.close(again.fd)
    return data


def test_every_kept_file_comes_by_once_after_a_change_of_rules(tmp_path: Path) -> None:
    contents = [bytes([n]) * (n * 700_000 + 1) for n in range(3)]
    rescan = Rescan(stored(tmp_path, contents))
    assert take(rescan, 0.2) is None
    rescan.begin()
    assert sorted(content(take(rescan)) for _ in contents) == sorted(contents)
    assert take(rescan, 0.2) is None
    rescan.close()


def test_a_damaged_entry_is_passed_over(tmp_path: Path) -> None:
    store = stored(tmp_path, [b"one", b"two"])
    victim = next(tmp_path.glob("*.skq"))
    victim.write_bytes(victim.read_bytes()[:-3])
    rescan = Rescan(store)
    rescan.begin()
    assert content(take(rescan)) in (b"one", b"two")
    assert take(rescan, 0.2) is None
    rescan.close()
