"""The files made for one image: what depends on the board, the counter or a hash. The rest lies in `firmware/image`."""

from __future__ import annotations

import json
from typing import Final

from sekisho.firmware.image.boards import Board

INITRAMFS: Final = "MODULES=list\nCOMPRESS=zstd\nRESUME=none\nFSTYPE=squashfs\n"
"""Of initramfs-tools: the board's modules and nothing it finds on the building machine."""
PIN: Final = "Package: suricata libhtp2\nPin: release n={codename}-backports\nPin-Priority: 600\n"
"""The engine is newer than the distribution's (setup/apt.sh says from which version on)."""


def compatible(board: Board) -> str:
    """What RAUC compares: an image of another product or board is refused."""
    return f"sekisho-{board.name}"


def system_conf(board: Board) -> str:
    """RAUC's settings. Only bundles whose every block is checked; installing is not activating."""
    return f"""\
[system]
compatible={compatible(board)}
bootloader=custom
bundle-formats=-plain
activate-installed=false
statusfile=/var/lib/sekisho-slots/rauc.status
max-bundle-download-size=1073741824

[keyring]
path=/usr/lib/sekisho/keyring.pem

[handlers]
pre-install=/usr/lib/sekisho/floor
bootloader-custom-backend=/usr/lib/sekisho/bootloader

[slot.rootfs.0]
device=/dev/disk/by-partlabel/root-a
type=raw
bootname=A

[slot.boot.0]
device=/dev/disk/by-partlabel/boot-a
type=raw
parent=rootfs.0

[slot.rootfs.1]
device=/dev/disk/by-partlabel/root-b
type=raw
bootname=B

[slot.boot.1]
device=/dev/disk/by-partlabel/boot-b
type=raw
parent=rootfs.1
"""


def slot_cfg(board: Board, root_hash: str, offset: int, more: str = "") -> str:
    """Read by GRUB beside the kernel it belongs to; `offset` is where in the root's partition its hash tree begins."""
    if len(root_hash) != 64 or not set(root_hash) <= set("0123456789abcdef"):
        raise ValueError(f"not a root hash: {root_hash[:80]!r}")
    options = f"console={board.console} panic=10 quiet loglevel=4 rootfstype=squashfs {more}".strip()
    return f'set verity={root_hash}:{offset}\nset options="{options}"\n'


def manifest(board: Board, counter: int, version: str) -> str:
    """RAUC's manifest of a bundle with both halves of a slot; RAUC itself adds their hashes and signs it."""
    return f"""\
[update]
compatible={compatible(board)}
version={version}
build={counter}

[bundle]
format=verity

[image.boot]
filename=boot.img

[image.rootfs]
filename=rootfs.img
"""


def identity(board: Board, counter: int, version: str) -> str:
    """`image.json`, in the image and in its bundle: what it is."""
    return json.dumps({"counter": counter, "version": version, "hardware": board.name}, sort_keys=True) + "\n"


def links(board: Board) -> dict[str, str]:
    """systemd.link files: both sockets get the names of the settings, and merge no packets (the appliance insists)."""
    alone = "GenericReceiveOffload=no\nLargeReceiveOffload=no\n"
    return {
        f"10-{name}.link": f"[Match]\nPath={path}\n\n[Link]\nName={name}\n{alone}"
        for name, path in (("eth-lan", board.lan), ("eth-wan", board.wan))
    }
