"""Findings on a disk that is full: kept, then written in order once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.appliance.core import utc
from sekisho.appliance.findings import Findings
from sekisho.telemetry import events


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.lab
def test_a_full_disk_loses_no_finding(tiny_disk: Path) -> None:
    path = tiny_disk / "journal" / "appliance.jsonl"
    findings = Findings(path)
    findings.report(events.Health(at=utc.now(), part="first"))
    filler = tiny_disk / "filler"
    with filler.open("wb", buffering=0) as out, pytest.raises(OSError, match="No space"):
        while True:
            out.write(bytes(4096))
    wide = "x" * 400
    for number in range(20):
        findings.report(events.Health(at=utc.now(), part=f"n{number}", detail=wide))
    on_disk = path.read_bytes()
    assert on_disk.endswith(b"\n") and on_disk.count(b"\n") < 21, "whole lines only"
    filler.unlink()
    findings.flush()
    parts = [
        event.part for line in path.read_bytes().splitlines() if isinstance(event := events.decode(line), events.Health)
    ]
    assert parts == ["first", *(f"n{number}" for number in range(20))]
