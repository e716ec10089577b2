"""The daemon begins anew when its settings make it another box or lead it another way, and for nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import load
from sekisho.telemetry.changed import LOOK_S, Changed

BEFORE = 'box = "a"\n[telemetry]\nport = 8883\n'


@pytest.mark.parametrize(
    ("after", "changed"),
    [
        (BEFORE.replace('"a"', '"b"'), True),
        ('tenant = "t"\n' + BEFORE, True),
        (BEFORE + 'host = "c.example"\n', True),
        (BEFORE, False),
        ('help_desk = "x"\n' + BEFORE, False),
        (BEFORE + "nonsense = 1\n", False),
        ("", False),
    ],
)
def test_what_concerns_the_link_and_the_name(tmp_path: Path, after: str, changed: bool) -> None:
    path = tmp_path / "box.toml"
    path.write_text(BEFORE)
    look = Changed(path, load(path))
    assert not look.turn(0.0)
    write_atomic(path, after.encode())
    assert not look.turn(LOOK_S / 2), "not a look at every turn"
    assert look.turn(LOOK_S) is changed
    assert not look.turn(2 * LOOK_S), "once"


def test_the_daemon_ends_in_order_when_the_box_is_enrolled(tmp_path: Path) -> None:
    path, paths = tmp_path / "box.toml", f'[paths]\nrun = "{tmp_path}/run"\nstate = "{tmp_path}/state"\n'
    path.write_text('box = "a"\n' + paths)
    argv = [sys.executable, "-I", "-m", "sekisho.telemetry.daemon", "--settings", str(path)]
    daemon = subprocess.Popen(argv, stderr=subprocess.PIPE)
    try:
        assert daemon.stderr is not None
        spool = tmp_path / "state" / "telemetry" / "spool.db"
        while not spool.exists():
            assert daemon.poll() is None
        write_atomic(path, ('box = "b"\n' + paths).encode())
        _, told = daemon.communicate(timeout=30)
        assert daemon.returncode == 0 and b"settings have changed" in told
    finally:
        daemon.kill()
        daemon.wait()
