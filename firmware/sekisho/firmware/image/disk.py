"""The disk of a new box: slot A holds the image, slot B nothing, data is empty; as one sparse file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.firmware.image import layout
from sekisho.firmware.image.boards import Board
from sekisho.firmware.image.slot import Images

GRUB_MODULES: Final = "normal part_gpt fat squash4 ext2 linux echo test regexp loadenv reboot sleep configfile tar"
_DATA_UUID: Final = "5e6b1540-0000-4000-8000-0000000000da"


def make(board: Board, images: Images, root: Path, grub_cfg: Path, disk: Path) -> None:
    """Write `disk`, anew. `root` is the tree: GRUB's modules and the first content of `/var` come from it.

    Raises:
        DeviceFault: a tool failed.

    """
    disk.parent.mkdir(parents=True, exist_ok=True)
    disk.unlink(missing_ok=True)
    with disk.open("wb") as out:
        out.truncate(layout.disk_size())
    _run(["sfdisk", "--quiet", str(disk)], layout.table())
    parts = {part.label: part for part in layout.partitions()}
    esp, data = disk.with_suffix(".esp"), disk.with_suffix(".data")
    loader(board, root, grub_cfg, esp)
    _data(root, data)
    placed = {"esp": esp, "boot-a": images.boot, "root-a": images.rootfs, "data": data}
    with disk.open("r+b") as out:
        for label, image in placed.items():
            _copy(image, out.fileno(), parts[label].start)
        out.seek(parts["env"].start)
        out.write(layout.environment())
    esp.unlink()
    data.unlink()


def loader(board: Board, root: Path, grub_cfg: Path, esp: Path) -> None:
    """An EFI system partition with nothing but GRUB, its configuration inside the program."""
    program = esp.with_suffix(".efi")
    command = ["grub-mkstandalone", f"--directory={root}/usr/lib/grub/{board.grub}", f"--format={board.grub}"]
    command += [f"--install-modules={GRUB_MODULES}", f"--modules={GRUB_MODULES}", "--locales=", "--themes=", "--fonts="]
    _run([*command, f"--output={program}", f"boot/grub/grub.cfg={grub_cfg}"])
    esp.unlink(missing_ok=True)
    with esp.open("wb") as out:
        out.truncate(next(part.size for part in layout.partitions() if part.label == "esp"))
    _run(["mkfs.vfat", "-F", "32", "-s", "1", "-n", "ESP", "-i", "5E6B1540", str(esp)])
    _run(["mmd", "-i", str(esp), "::EFI", "::EFI/BOOT"])
    _run(["mcopy", "-i", str(esp), str(program), f"::{board.efi}"])
    program.unlink()


def _data(root: Path, image: Path) -> None:
    """An ext4 with what `/var` holds in the tree."""
    image.unlink(missing_ok=True)
    size = next(part.size for part in layout.partitions() if part.label == "data")
    command = ["mke2fs", "-q", "-t", "ext4", "-L", "data", "-U", _DATA_UUID, "-E", f"hash_seed={_DATA_UUID}"]
    _run([*command, "-d", str(root / "var"), str(image), f"{size >> 10}k"])


def _copy(image: Path, disk: int, at: int) -> None:
    """Copy the parts of `image` that hold something."""
    with image.open("rb") as source:
        end = source.seek(0, os.SEEK_END)
        here = 0
        while here < end:
            try:
                here = os.lseek(source.fileno(), here, os.SEEK_DATA)
            except OSError:
                return
            stop = os.lseek(source.fileno(), here, os.SEEK_HOLE)
            os.lseek(disk, at + here, os.SEEK_SET)
            while here < stop:
                here += os.sendfile(disk, source.fileno(), here, min(stop - here, 16 << 20))


def _run(command: list[str], told: str | None = None) -> None:
    program = shutil.which(command[0]) or f"/usr/sbin/{command[0]}"
    ended = subprocess.run([program, *command[1:]], input=told, capture_output=True, text=True)
    if ended.returncode:
        raise DeviceFault(f"{command[0]}: {(ended.stderr or ended.stdout)[-800:]}")
