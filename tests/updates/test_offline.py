"""A box whose channel cannot be reached takes its set from a USB stick, by the same chain of trust."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sekisho.appliance.core.errors import PeerError
from sekisho.lab import sets, updates

if TYPE_CHECKING:
    from tests.updates.conftest import Office

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


def test_a_set_from_a_stick_comes_into_force_and_a_forged_one_does_not(office: Office, tmp_path: Path) -> None:
    lab = office.lab
    good = office.bring(sets.small())
    lab.stop("depot")
    try:
        office.number += 1
        lab.channel.publish(office.number, sets.of_day(sets.small(), 60, changed=1, added=4, yara=1))
        stick = tmp_path / "stick"
        for folder in ("metadata", "targets"):
            shutil.copytree(lab.lay.updates / folder, stick / folder)
        archive = next((stick / "targets" / "sig").glob(f"*.{office.number}.tar.zst"))
        real = archive.read_bytes()
        for way in (stick / "targets" / "sig").glob(f"*.*-{office.number}.zst"):
            way.unlink()
        archive.write_bytes(real[:-1] + bytes([real[-1] ^ 1]))
        with pytest.raises(PeerError, match="is not the one that was signed"):
            updates.ask(lab, "import", str(stick), timeout_s=150)
        assert updates.in_force(lab, good)
        archive.write_bytes(real)
        updates.ask(lab, "import", str(stick), timeout_s=150)
        updates.wait_for(lab, office.number, 60)
    finally:
        lab.start("depot")
        lab.wait_ready()
