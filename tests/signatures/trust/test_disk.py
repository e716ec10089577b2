"""What a disk promises, and that the one which shows power cuts shows all that it does not promise."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from crashfs import CrashDisk

from sekisho.signatures.trust import ChannelUnfit, Disk, Trust
from sekisho.signatures.trust.source import Folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def test_a_replaced_file_is_the_old_or_the_new_at_every_cut_and_the_new_after_return(root: Path) -> None:
    Disk().replace(root / "a", b"old" * 500)
    disk = CrashDisk(root)
    disk.replace(root / "a", b"new!" * 500)
    left = [(cut.after, cut.files["a"]) for cut in disk.cuts()]
    assert {data for _, data in left} == {b"old" * 500, b"new!" * 500}
    assert {data for after, data in left if after == len(disk.ops)} == {b"new!" * 500}


def test_what_was_not_synced_may_be_gone_torn_at_a_sector_or_without_a_name(root: Path) -> None:
    disk = CrashDisk(root)
    disk.write(root / "a", b"x" * 1500)
    assert {cut.files.get("a") for cut in disk.cuts()} == {None, b"", b"x" * 512, b"x" * 1024, b"x" * 1500}
    disk.sync(root / "a")
    assert {cut.files.get("a") for cut in disk.cuts(len(disk.ops))} == {None, b"x" * 1500}
    disk.sync_directory(root)
    assert {cut.files.get("a") for cut in disk.cuts(len(disk.ops))} == {b"x" * 1500}


def test_a_rename_may_come_before_what_it_names_was_written(root: Path) -> None:
    """What makes replacing without a sync unsafe."""
    Disk().replace(root / "a", b"old")
    disk = CrashDisk(root)
    disk.write(root / "b", b"new")
    disk.rename(root / "b", root / "a")
    assert b"" in {cut.files["a"] for cut in disk.cuts()}


@pytest.mark.parametrize("seed", range(10))
def test_what_it_keeps_in_mind_is_what_the_real_disk_has(root: Path, seed: int) -> None:
    disk, dice = CrashDisk(root), random.Random(seed)
    for _ in range(60):
        name, other = (root / dice.choice("abcd") for _ in range(2))
        act = dice.randrange(7)
        if name.is_symlink():
            disk.unlink(name)
        elif act == 0:
            disk.write(name, dice.randbytes(dice.randrange(2000)))
        elif act == 1:
            disk.write(name, dice.randbytes(100), dice.randrange(3000))
        elif act == 2 and name.exists():
            disk.truncate(name, dice.randrange(3000))
        elif act == 3 and name.exists() and name != other:
            disk.rename(name, other)
        elif act == 4:
            disk.unlink(name)
        elif act == 5 and name.exists():
            disk.sync(name)
        elif act == 6 and not name.exists():
            disk.symlink("elsewhere", name)
        if dice.random() < 0.3:
            disk.sync_directory(root)
    for path in root.iterdir():
        if not path.is_symlink():
            disk.sync(path)
    disk.sync_directory(root)
    (cut,) = disk.cuts(len(disk.ops))
    links = {path.name: os.readlink(path) for path in root.iterdir() if path.is_symlink()}  # noqa: PTH115
    assert cut.links == links
    assert cut.files == {path.name: path.read_bytes() for path in root.iterdir() if path.name not in links}


def test_a_file_longer_than_any_of_ours_is_not_read(root: Path) -> None:
    (root / "a").write_bytes(b"x" * 101)
    assert Disk().read(root / "a", 101) == b"x" * 101
    with pytest.raises(OSError, match="large"):
        Disk().read(root / "a", 100)


def test_a_directory_that_cannot_be_made_is_a_fault_of_the_box(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ChannelUnfit) as unfit:
        Trust(tmp_path / "file" / "box", b"", Folder(tmp_path))
    assert unfit.value.code == "disk"
