"""Other daemons see whom the box believes, and go on seeing it as it changes; the box's key they never see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sekisho.appliance.core.errors import DeviceFault
from sekisho.telemetry.authority import show


def test_it_is_shown_to_the_group_alone_and_follows_a_change(tmp_path: Path) -> None:
    ca, shown = tmp_path / "identity" / "ca.pem", tmp_path / "fleet" / "ca.pem"
    show(ca, shown)
    assert not shown.parent.exists()
    ca.parent.mkdir(mode=0o700)
    for text in ("one", "two"):
        ca.write_text(text)
        show(ca, shown)
        assert (shown.read_text(), shown.stat().st_mode & 0o777) == (text, 0o640)


def test_the_same_is_not_written_again_and_stays_when_the_first_is_gone(tmp_path: Path) -> None:
    ca, shown = tmp_path / "ca.pem", tmp_path / "fleet" / "ca.pem"
    ca.write_text("one")
    show(ca, shown)
    before = shown.stat().st_ino
    show(ca, shown)
    ca.unlink()
    show(ca, shown)
    assert shown.read_text() == "one" and shown.stat().st_ino == before


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("one")
    (tmp_path / "fleet" / f".ca.pem.{os.getpid()}.tmp").mkdir(parents=True)
    with pytest.raises(DeviceFault):
        show(tmp_path / "ca.pem", tmp_path / "fleet" / "ca.pem")
