"""The two file systems of a slot, as they are written to its partitions: what is signed is all that runs.

`rootfs.img` is the read-only tree with its dm-verity hash tree behind it; `boot.img` holds kernel, first stage and
`slot.cfg` with the root hash, which GRUB puts on the kernel's command line. Both are made to be the same bytes again.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.firmware.image import layout, texts
from sekisho.firmware.image.boards import Board

SALT: Final = "5e" * 32
"""A fixed salt and UUID: the hash tree is the same when the tree is. Its secrecy protects nothing (veritysetup(8))."""
UUID: Final = "5e6b1540-0000-4000-8000-0000000000ff"


class Images(msgspec.Struct, frozen=True):
    """Both halves of one slot."""

    boot: Path
    rootfs: Path
    root_hash: str


def make(board: Board, root: Path, into: Path, epoch: int, options: str = "") -> Images:
    """Pack the tree at `root`; every file is dated `epoch` (Unix seconds).

    `options`: more words for the kernel, for trials.

    Raises:
        DeviceFault: it does not fit its partition, or a tool failed.

    """
    into.mkdir(parents=True, exist_ok=True)
    rootfs, boot = into / "rootfs.img", into / "boot.img"
    squash(root, rootfs, epoch, "-e", "boot/*", "-wildcards")
    offset = rootfs.stat().st_size
    root_hash = _verity(rootfs, offset)
    kernel = into / "boot"
    shutil.rmtree(kernel, ignore_errors=True)
    kernel.mkdir()
    for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd.img", "initrd.img-*")):
        found = sorted((root / "boot").glob(pattern))
        if len(found) != 1:
            raise DeviceFault(f"The tree holds {len(found)} files {pattern} in /boot; one is needed.")
        shutil.copyfile(found[0], kernel / name)
    (kernel / "slot.cfg").write_text(texts.slot_cfg(board, root_hash, offset, options))
    squash(kernel, boot, epoch, "-noD", "-noI", "-noF", "-noX", compressor="gzip")
    for image, most in ((rootfs, layout.ROOT_SIZE), (boot, layout.BOOT_SIZE)):
        if image.stat().st_size > most:
            raise DeviceFault(f"{image.name} is {image.stat().st_size >> 20} MiB, more than its {most >> 20} MiB.")
    return Images(boot, rootfs, root_hash)


def squash(tree: Path, image: Path, epoch: int, *more: str, compressor: str = "zstd") -> None:
    """Pack `tree` into a squashfs, anew."""
    image.unlink(missing_ok=True)
    level = ["-Xcompression-level", "6"] if compressor == "zstd" else []
    command = ["mksquashfs", str(tree), str(image), "-comp", compressor, *level, "-quiet", "-no-progress", "-noappend"]
    command += ["-all-time", str(epoch), "-mkfs-time", str(epoch), "-no-exports", *more]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise DeviceFault(f"mksquashfs: {ended.stderr[-500:]}")


def _verity(image: Path, offset: int) -> str:
    command = ["veritysetup", "format", f"--hash-offset={offset}", f"--salt={SALT}", f"--uuid={UUID}"]
    ended = subprocess.run([*command, str(image), str(image)], capture_output=True, text=True)
    match = re.search(r"Root hash:\s+([0-9a-f]{64})", ended.stdout)
    if ended.returncode or not match:
        raise DeviceFault(f"veritysetup: {ended.stderr[-500:]}")
    return match.group(1)
