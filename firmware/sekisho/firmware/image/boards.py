"""What differs between the machines an image is built for. A new board is one more entry of `BOARDS`."""

from __future__ import annotations

from typing import Final

import msgspec

from sekisho.firmware.content import Machine


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of machine."""

    name: str
    """As in `published.Release.hardware`, and the end of RAUC's `compatible`."""
    arch: Machine
    """Debian's name of the architecture."""
    kernel: str
    """Debian's kernel package."""
    grub: str
    """GRUB's platform; its modules lie in `/usr/lib/grub/GRUB`."""
    grub_package: str
    efi: str
    """Where UEFI looks for the program of a disk without boot entries (UEFI 2.10, 3.5.1.1)."""
    console: str
    """The kernel's serial console."""
    lan: str
    """Where the two sockets are on the board (`udevadm info`, ID_PATH): they get the names of the settings."""
    wan: str
    modules: tuple[str, ...]
    """Kernel modules of the first stage: the disk's, and the watchdog's, so that it runs from the first second."""


_COMMON: Final = ("dm_mod", "dm_verity", "squashfs", "ext4", "virtio_pci", "virtio_blk", "nvme")

BOARDS: Final = {
    board.name: board
    for board in (
        Board(
            name="amd64",
            arch="amd64",
            kernel="linux-image-amd64",
            grub="x86_64-efi",
            grub_package="grub-efi-amd64-bin",
            efi="EFI/BOOT/BOOTX64.EFI",
            console="ttyS0,115200",
            lan="pci-0000:00:10.0",
            wan="pci-0000:00:11.0",
            modules=(*_COMMON, "ahci", "sd_mod", "i6300esb", "iTCO_wdt"),
        ),
        Board(
            name="arm64",
            arch="arm64",
            kernel="linux-image-arm64",
            grub="arm64-efi",
            grub_package="grub-efi-arm64-bin",
            efi="EFI/BOOT/BOOTAA64.EFI",
            console="ttyAMA0,115200",
            lan="pci-0000:00:10.0",
            wan="pci-0000:00:11.0",
            modules=(*_COMMON, "mmc_block", "sdhci", "i6300esb"),
        ),
    )
}
