"""A journal that cannot begin another file goes on in the one it has: nothing is lost, nothing goes astray."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.appliance.core.journal import JournalWriter


@pytest.fixture
def no_more_files(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one file."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=2", "sekisho-test", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of two inodes is mounted")
def test_where_no_file_can_be_made_the_lines_go_on_in_the_old_one(no_more_files: Path) -> None:
    path = no_more_files / "inspect.jsonl"
    writer = JournalWriter(path, roll_bytes=100)
    lines = [b'{"n":%d,"text":"%s"}' % (n, b"x" * 30) for n in range(10)]
    for line in lines:
        writer.append(line)
    assert path.read_bytes().splitlines() == lines
    subprocess.run(["mount", "-o", "remount,nr_inodes=10", str(no_more_files)], check=True)
    writer.append(b'{"n":10}')
    writer.append(b'{"n":11}')
    rolled = path.with_name("inspect.jsonl.1").read_bytes().splitlines()
    assert [*rolled, *path.read_bytes().splitlines()] == [*lines, b'{"n":10}', b'{"n":11}']
    writer.close()
