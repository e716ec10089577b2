"""The real daemon against a real HTTPS repository, with the real engines trying every set.

The inspectors' words are written for them; that real ones follow the link is tried in the lab (tests/updates).
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from played_box import told
from real_daemon import Box
from repository import content

from sekisho.appliance import cli
from sekisho.signatures import compiler
from sekisho.signatures.keeper import commands

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()


def test_a_published_set_comes_into_force_and_a_broken_one_does_not(box: Box) -> None:
    box.depot.publish(1)
    assert box.run("update").returncode == 0
    box.wait(lambda: box.ended(1, "active"))
    code, shown = box.status()
    assert (code, shown["number"], shown["proven"], shown["suricata_rules"], shown["freshness"]) == (
        0,
        1,
        True,
        31,
        "fresh",
    )

    files = content(2)
    files["rules/throwaway.rules"] += b'drop http any any -> any any (msg:"broken"; no_such_word; sid:7; rev:1;)\n'
    box.depot.publish(2, files)
    assert box.run("update").returncode == 0
    box.wait(lambda: box.ended(2, "refused"))
    assert "no_such_word" in next(event.detail for event in told(box.settings) if event.state == "refused")
    code, shown = box.status()
    assert (code, shown["number"]) == (0, 1), "the last good set stays"

    box.depot.publish(3)
    assert box.run("update").returncode == 0
    box.wait(lambda: box.ended(3, "active"))
    assert box.status()[1]["number"] == 3
    assert [event.number for event in told(box.settings) if event.state == "active"] == [1, 3]

    box.inspectors.mute = True
    box.wait(lambda: box.status()[0] == 1, 20)
    assert "does not run" in box.run("status").stdout


def test_a_stick_brings_a_set_where_there_is_no_internet(box: Box) -> None:
    box.depot.publish(1)
    stick = box.root / "stick"
    shutil.copytree(box.depot.tree.directory, stick)
    box.server.shutdown()
    empty = box.run("import", str(box.root))
    assert (empty.returncode, "metadata" in empty.stderr) == (2, True)
    done = box.run("import", str(stick))
    assert done.returncode == 0, done.stderr
    box.wait(lambda: box.ended(1, "active"))
    assert box.status()[1]["number"] == 1
    assert "in force already" in box.run("import", str(stick)).stdout


def test_a_stick_waits_for_its_turn_while_another_set_is_proven(
    box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And where that takes too long, the person is told what is on its way."""
    box.depot.publish(1)
    box.run("update")
    box.wait(lambda: box.ended(1, "active"))
    box.depot.publish(2)
    box.inspectors.mute = True
    box.run("update")
    box.wait(lambda: b'"step":"proving"' in (box.settings.channel / "keeper.json").read_bytes())
    stick = box.root / "stick"
    box.depot.publish(3)
    shutil.copytree(box.depot.tree.directory, stick)
    argv = ["signatures", "import", str(stick), "--settings", str(box.toml)]
    monkeypatch.setattr(commands, "TURN_S", 0.0)
    assert cli.main(argv) == 2
    assert "Another set is on its way (proving). Try again in some minutes." in capsys.readouterr().err
    leader, follower = pty.openpty()
    sekisho = str(Path(sys.executable).with_name("sekisho"))
    waiting = subprocess.Popen([sekisho, *argv], stdout=subprocess.PIPE, stderr=follower)
    assert b"(proving). This one waits for its turn." in os.read(leader, 4096)
    box.inspectors.mute = False
    said, _ = waiting.communicate(timeout=40)
    os.close(leader)
    os.close(follower)
    assert (waiting.returncode, b"Set 3 was verified" in said) == (0, True)
    box.wait(lambda: box.ended(3, "active"))
    assert [event.number for event in told(box.settings) if event.state == "active"] == [1, 2, 3]


def test_a_daemon_killed_again_and_again_brings_the_set_into_force_all_the_same(box: Box) -> None:
    box.depot.publish(1)
    box.run("update")
    for pause in (0.1, 0.4, 0.9):
        box.wait(lambda: box.settings.channel.joinpath("keeper.json").exists())
        time.sleep(pause)
        box.kill()
        assert compiler.current(box.settings) is not None
        box.start()
        box.run("update")
    box.wait(lambda: box.ended(1, "active"))
    assert [event.number for event in told(box.settings) if event.state == "active"] == [1]
