"""How a start of the machine lays the programs out, run from the very script of the image."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "firmware/image/rootfs/usr/lib/sekisho/programs"
FORMER = Path(__file__).parents[2] / "systemd/system/sekisho-former.service"
MOUNT = 'mount() { rm -rf "$3"; ln -s "$2" "$3"; }\n'
"""As far as can be seen from the paths."""


class Machine:
    """Slot A of a disk, under a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.slot = root, root / "var/lib/sekisho-slots/A"
        for folder in ("proc", "opt", "var/lib"):
            (root / folder).mkdir(parents=True)
        (root / "proc/cmdline").write_text("ro rauc.slot=A sekisho.attempt=1\n")
        self.python(root / "usr/lib/sekisho/venv")
        self.image(1)

    def image(self, counter: int) -> None:
        (self.root / "usr/lib/sekisho/image.json").write_text(f'{{"counter":{counter}}}')

    def python(self, venv: Path) -> None:
        (venv / "bin").mkdir(parents=True)
        (venv / "bin/python").touch(0o755)

    def release(self, name: str) -> Path:
        """Put there, as the errand does; the link is as a running box sees it."""
        self.python(self.root / "var/lib/sekisho-releases" / name / "venv")
        return self.root / "opt/sekisho/releases" / name / "venv"

    def start(self) -> str:
        """What the programs run from after it."""
        text = SCRIPT.read_text()
        for path in ("/proc", "/usr/lib", "/var/lib", "/opt"):
            text = text.replace(f" {path}/", f" {self.root}{path}/").replace(f"={path}/", f"={self.root}{path}/")
        subprocess.run(["sh", "-c", MOUNT + text.replace("$(cat /proc", f"$(cat {self.root}/proc")], check=True)
        if os.access(self.root / "opt/sekisho/venv.former/bin/python", os.X_OK):  # the unit's own conditions
            for command in re.findall(r"^ExecStart=(.+)$", FORMER.read_text(), re.M):
                subprocess.run(command.replace("/opt/", f"{self.root}/opt/").split(), check=True)
        return str((self.root / "opt/sekisho/venv").readlink().relative_to(self.root))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


OWN, GOOD, BAD = "usr/lib/sekisho/venv", "6-00000000aaaa", "7-00000000bbbb"


def test_a_slot_starts_with_its_image_s_programs_and_keeps_a_release_until_it_gets_a_new_image(
    machine: Machine,
) -> None:
    assert machine.start() == OWN
    venv = machine.release(GOOD)
    (machine.slot / "venv").unlink()
    (machine.slot / "venv").symlink_to(venv)
    assert machine.start() == f"opt/sekisho/releases/{GOOD}/venv"
    machine.image(2)
    assert machine.start() == OWN


def test_a_switch_that_the_power_cut_short_is_taken_back_before_a_daemon_starts(machine: Machine) -> None:
    machine.start()
    (machine.slot / "venv").unlink()
    (machine.slot / "venv").symlink_to(machine.release(BAD))
    (machine.slot / "venv.former").symlink_to(machine.release(GOOD))
    for _ in range(2):
        assert machine.start() == f"opt/sekisho/releases/{GOOD}/venv"
        assert not (machine.slot / "venv.former").is_symlink()


def test_a_new_image_s_own_programs_are_left_for_nothing_that_was_on_trial_in_the_one_before(machine: Machine) -> None:
    machine.start()
    (machine.slot / "venv.former").symlink_to(machine.release(GOOD))
    machine.image(2)
    assert machine.start() == OWN
    assert not (machine.slot / "venv.former").is_symlink()


def test_a_slot_whose_release_is_gone_starts_with_its_image_s_programs(machine: Machine) -> None:
    machine.start()
    (machine.slot / "venv").unlink()
    (machine.slot / "venv").symlink_to(machine.root / "opt/sekisho/releases" / GOOD / "venv")
    assert machine.start() == OWN
