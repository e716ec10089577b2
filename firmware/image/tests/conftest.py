"""The images of the trials, built once in `build/image`; each trial has a box of its own.

    7  the image boxes have          9  starts, and does not bridge       6  older than 7
    8  the next one, as it should    10 its root is not what was signed

A box that has proven 7 is frozen while it runs, and so is one with 8 staged: trials begin there.
Bundles beside them: `foreign` (another product), `stranger` (another key), `tampered` (a byte of 8 changed).
Slow machines: SEKISHO_PATIENCE multiplies every wait.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent / "drive"))

import trial

from sekisho.firmware.image import build, bundle, disk, slot
from sekisho.firmware.image.boards import BOARDS
from sekisho.firmware.image.qemu import Machine

PROJECT = Path(__file__).parents[3]
BOARD = BOARDS[os.environ.get("SEKISHO_BOARD", "amd64")]
SLOW = "no_timer_check sekisho.deadline="
"""Words for the kernel, with seconds behind them: QEMU without KVM is some ten times slower than a board, and a kernel
that measures its timer against the time that passes gives up when the host is busy."""
DEADLINE = f"{SLOW}1800"
BROKEN = "etc/systemd/system/sekisho-appliance.service.d/broken.conf"


class Built(msgspec.Struct):
    """Where they lie."""

    disk: Path
    bundles: Path
    """A squashfs with every bundle, NAME.raucb: a box under trial has it as its second disk."""


@pytest.fixture(scope="session")
def built() -> Built:
    out = (PROJECT / "build/image").resolve()
    folder = out / f"{BOARD.name}-trial"
    made = Built(folder / "disk.img", folder / "bundles.img")
    if made.bundles.exists() and "SEKISHO_REUSE" in os.environ:
        return made
    keys = bundle.signer(out / "keys")
    base = build.tree(BOARD, PROJECT, out / BOARD.name / "tree")
    root = build.finish(BOARD, PROJECT, base, folder / "root", keys.cert, console=True)
    factory = build.release(BOARD, PROJECT, root, folder / "7", 7, "0.7.0", DEADLINE)
    disk.make(BOARD, factory, root, PROJECT / "firmware/image/grub.cfg", made.disk)
    shelf = folder / "shelf"
    shutil.rmtree(shelf, ignore_errors=True)
    shelf.mkdir()
    good = build.release(BOARD, PROJECT, root, folder / "8", 8, "0.8.0", DEADLINE)
    bundle.make(BOARD, good, 8, "0.8.0", keys, shelf / "8.raucb")
    (root / BROKEN).parent.mkdir()
    (root / BROKEN).write_text("[Service]\nExecStart=\nExecStart=/bin/false\n")
    deaf = build.release(BOARD, PROJECT, root, folder / "9", 9, "0.9.0", f"{SLOW}60")
    bundle.make(BOARD, deaf, 9, "0.9.0", keys, shelf / "9.raucb")
    shutil.rmtree((root / BROKEN).parent)
    refused(good, keys, shelf, folder)
    slot.squash(shelf, made.bundles, 0, "-noD", "-noI", "-noF", compressor="gzip")
    return made


def refused(good: slot.Images, keys: bundle.Signer, shelf: Path, folder: Path) -> None:
    """Bundles around images as small as they can be: none of them may ever be written."""
    small = folder / "small.img"
    small.write_bytes(os.urandom(1 << 20))
    tiny = slot.Images(small, small, "0" * 64)
    bundle.make(BOARD, tiny, 6, "0.6.0", keys, shelf / "older.raucb")
    bundle.make(msgspec.structs.replace(BOARD, name="other"), tiny, 8, "0.8.0", keys, shelf / "foreign.raucb")
    bundle.make(BOARD, tiny, 8, "0.8.0", bundle.signer(folder / "stranger", "a stranger"), shelf / "stranger.raucb")
    bundle.make(BOARD, tiny, 8, "0.8.0", keys, shelf / "tampered.raucb")
    with (shelf / "tampered.raucb").open("r+b") as out:
        out.seek(1000)
        old = out.read(1)
        out.seek(1000)
        out.write(bytes([old[0] ^ 1]))
    twisted = boot_of_another(good, folder / "10")
    bundle.make(BOARD, twisted, 10, "0.10.0", keys, shelf / "10.raucb")


def boot_of_another(good: slot.Images, folder: Path) -> slot.Images:
    """An image whose kernel is told another root hash: its root cannot be opened, so nothing of it runs."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good.boot.parent / "boot", folder / "boot")
    told = (folder / "boot/slot.cfg").read_text()
    (folder / "boot/slot.cfg").write_text(told.replace(good.root_hash, good.root_hash[::-1]))
    slot.squash(folder / "boot", folder / "boot.img", 0, "-noD", "-noI", "-noF", "-noX", compressor="gzip")
    return slot.Images(folder / "boot.img", good.rootfs, good.root_hash[::-1])


def copied(folder: Path, into: Path, shelf: Path) -> Machine:
    """A box of its own with the disk in `folder`, switched off."""
    subprocess.run(["cp", "--sparse=always", str(folder / "disk.img"), str(into / "disk.img")], check=True)
    return Machine(BOARD.name, into / "disk.img", into, shelf)


@pytest.fixture(scope="session")
def settled(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A running box that has proven image 7, frozen: what each of the other trials begins with."""
    into = built.disk.parent / "settled"
    if (into / "memory").exists() and "SEKISHO_REUSE" in os.environ:
        return into
    box = copied(built.disk.parent, tmp_path_factory.mktemp("settled"), built.bundles)
    try:
        trial.tell("a new box starts")
        box.on()
        trial.proven(box, slot="A")
        trial.shelf(box)
        trial.ask(box, "sync")
        box.freeze(into)
    finally:
        box.close()
    return into


@pytest.fixture(scope="session")
def staged(built: Built, settled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with image 8 written to the other slot and not chosen."""
    into = built.disk.parent / "staged"
    if (into / "memory").exists() and "SEKISHO_REUSE" in os.environ:
        return into
    box = copied(settled, tmp_path_factory.mktemp("staged"), built.bundles)
    try:
        box.on(settled / "memory")
        trial.install(box, "8")
        trial.ask(box, "sync")
        box.freeze(into)
    finally:
        box.close()
    return into


@pytest.fixture
def new_box(built: Built, tmp_path: Path) -> Iterator[Machine]:
    """As it leaves the factory, switched off; its clock counts instructions."""
    subprocess.run(["cp", "--sparse=always", str(built.disk), str(tmp_path / "disk.img")], check=True)
    box = Machine(BOARD.name, tmp_path / "disk.img", tmp_path, built.bundles, counted=True)
    try:
        yield box
    finally:
        box.close()


@pytest.fixture
def box(built: Built, settled: Path, tmp_path: Path) -> Iterator[Machine]:
    """A box at work on image 7."""
    made = copied(settled, tmp_path, built.bundles)
    try:
        made.on(settled / "memory")
        yield made
    finally:
        made.close()


@pytest.fixture
def staged_box(built: Built, staged: Path, tmp_path: Path) -> Iterator[Machine]:
    """A box at work on image 7, image 8 in its other slot."""
    made = copied(staged, tmp_path, built.bundles)
    try:
        made.on(staged / "memory")
        yield made
    finally:
        made.close()
