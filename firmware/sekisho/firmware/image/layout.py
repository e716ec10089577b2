"""The disk every image has: GPT, a boot loader, its memory, two slots, and what stays.

The boot loader's memory (which slot first, how often each was tried) is GRUB's environment block, the only member of a
tar archive that is a partition: GRUB reads it as a file, and no file system has to be whole for it. It lies at a known
place (`firmware.slots`), is only ever written in place, and all that is in it fits into its first sector, which a disk
writes whole or not at all.
"""

from __future__ import annotations

import io
import tarfile
from typing import Final

import msgspec

from sekisho.firmware import slots

SECTOR: Final = 512
MIB: Final = 1 << 20

_LINUX: Final = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
_ESP: Final = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"


class Partition(msgspec.Struct, frozen=True):
    """One entry of the partition table; sizes in bytes."""

    label: str
    start: int
    size: int
    kind: str = _LINUX


BOOT_SIZE: Final = 96 * MIB
ROOT_SIZE: Final = 640 * MIB
"""A slot's two halves; an image that has grown beyond them is refused when it is built."""
DATA_SIZE: Final = 1024 * MIB
"""As built; the first boot makes it as large as the disk."""


def partitions(data_size: int = DATA_SIZE) -> list[Partition]:
    """In the order of their numbers, from 1: grub.cfg knows them by number."""
    made: list[Partition] = []
    at = MIB
    for label, size, kind in (
        ("esp", 64 * MIB, _ESP),
        ("env", MIB, _LINUX),
        ("boot-a", BOOT_SIZE, _LINUX),
        ("root-a", ROOT_SIZE, _LINUX),
        ("boot-b", BOOT_SIZE, _LINUX),
        ("root-b", ROOT_SIZE, _LINUX),
        ("data", data_size, _LINUX),
    ):
        made.append(Partition(label, at, size, kind))
        at += -(-size // MIB) * MIB
    return made


def disk_size(data_size: int = DATA_SIZE) -> int:
    """Bytes of the whole disk, the second partition table at its end included."""
    last = partitions(data_size)[-1]
    return last.start + last.size + MIB


def table(data_size: int = DATA_SIZE) -> str:
    """What `sfdisk` is told; identifiers are fixed, so that building twice gives the same bytes."""
    lines = ["label: gpt", "label-id: 5E6B1540-0000-4000-8000-000000000000"]
    for number, part in enumerate(partitions(data_size), 1):
        lines.append(
            f"start={part.start // SECTOR}, size={part.size // SECTOR}, type={part.kind}, name={part.label}, "
            f"uuid=5E6B1540-0000-4000-8000-{number:012}"
        )
    return "\n".join(lines) + "\n"


def environment() -> bytes:
    """The memory of a new disk, archive and all: slot A holds the image, the other one nothing yet."""
    block = slots.render(slots.Memory(("A", "B"), {"A": slots.Slot(True, 0), "B": slots.Slot(False, 0)}))
    member = tarfile.TarInfo("grubenv")
    member.size = len(block)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(block))
    return packed.getvalue()
