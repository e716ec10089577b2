"""`make image`: a disk for new boxes and a bundle for those at work, for one board.

    build/image/BOARD/tree            Debian, made when missing (`--fresh` makes it anew)
    build/image/BOARD/root            the same with our programs, as it is packed
    build/image/BOARD/COUNTER/        boot.img, rootfs.img, disk.img, COUNTER.raucb
    build/image/keys/                 the trial key, where no other is named

Needs root: the tree holds files of many users. The counter is the release's; the date of every file is the source's.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault, SekishoError
from sekisho.appliance.core.settings import DEFAULTS
from sekisho.firmware import units
from sekisho.firmware.image import bundle, debian, disk, programs, slot, texts
from sekisho.firmware.image.boards import BOARDS, Board

MASKED: Final = (
    *("suricata.service", "fstrim.timer", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "dpkg-db-backup.timer", "rauc-mark-good.service", "getty@tty1.service"),
    *("serial-getty@.service", "systemd-logind.service", "sys-fs-fuse-connections.mount", "modprobe@fuse.service"),
    *("proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service", "modprobe@drm.service", "dev-hugepages.mount"),
    *("modprobe@efi_pstore.service", "systemd-update-utmp.service"),
)
"""What nobody needs on a box, or what would act beside our own units: each costs time at every start."""

log = logging.getLogger("sekisho.image")


def tree(board: Board, project: Path, at: Path, *, fresh: bool = False) -> Path:
    """The root tree without anything of one release, made once.

    Raises:
        DeviceFault: see `debian.bootstrap` and `programs`.

    """
    done = at.with_name("tree.done")
    if fresh or not done.exists():
        done.unlink(missing_ok=True)
        log.info("Debian %s for %s", debian.codename(), board.name)
        debian.bootstrap(board, at)
        done.touch()
    return at


def finish(board: Board, project: Path, base: Path, root: Path, keyring: Path, *, console: bool = False) -> Path:
    """Make `root` from the tree `base`: our programs, units, settings and first stage.

    `console`: an image for trials, with a root shell on a virtual console that no real board has.
    """
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)
    wheelhouse = root.with_name("wheels")
    programs.gather(project, base, board.arch, wheelhouse, root.with_name("wheels-cache"))
    programs.install(root, wheelhouse)
    programs.compile_all(root)
    lay(board, project, root, keyring)
    if console:
        shutil.copy(project / "firmware/image/trial/sekisho-shell.service", root / "etc/systemd/system")
        inside(root, "systemctl", "enable", "-q", "sekisho-shell.service")
    shutil.copytree(project / "firmware/image/initramfs", root / "etc/initramfs-tools", dirs_exist_ok=True)
    (root / "etc/initramfs-tools/modules").write_text("\n".join(board.modules) + "\n")
    (root / "etc/initramfs-tools/conf.d/sekisho").write_text(texts.INITRAMFS)
    inside(root, "update-initramfs", "-c", "-k", "all")
    debian.strip(root)
    return root


def release(
    board: Board, project: Path, root: Path, folder: Path, counter: int, version: str, options: str = ""
) -> slot.Images:
    """Say in `root` which release it is, and pack it.

    Raises:
        DeviceFault: see `slot.make`.

    """
    folder.mkdir(parents=True, exist_ok=True)
    (root / "usr/lib/sekisho/image.json").write_text(texts.identity(board, counter, version))
    return slot.make(board, root, folder, epoch(project), options)


def lay(board: Board, project: Path, root: Path, keyring: Path) -> None:
    """Our files into the tree."""
    units.lay(root / programs.VENV / "lib", root / "usr/lib")
    shutil.copytree(project / "firmware/image/rootfs", root, dirs_exist_ok=True)
    shutil.copytree(project / "docs", root / "usr/share/sekisho/docs")
    ours = root / "usr/lib/sekisho"
    shutil.copy(keyring, ours / "keyring.pem")
    (ours / "box.toml").write_text(DEFAULTS.replace("{box}", "sekisho"))
    (root / "etc/rauc").mkdir(exist_ok=True)
    (root / "etc/rauc/system.conf").write_text(texts.system_conf(board))
    for name, text in texts.links(board).items():
        (root / "etc/systemd/network" / name).write_text(text)
    for folder in ("opt/sekisho", "etc/sekisho", "var/lib/sekisho-etc", "var/lib/sekisho-slots"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    inside(root, "systemd-sysusers")
    inside(
        root, "systemctl", "enable", "-q", "systemd-timesyncd.service", *units.started(root / "usr/lib/systemd/system")
    )
    inside(root, "systemctl", "mask", "-q", *MASKED)


def inside(root: Path, *command: str) -> None:
    """Run a program of the tree.

    Raises:
        DeviceFault: it failed.

    """
    ended = subprocess.run(["chroot", str(root), *command], capture_output=True, text=True)
    if ended.returncode:
        raise DeviceFault(f"{command[0]}: {ended.stderr[-800:]}")


def epoch(project: Path) -> int:
    """When the source was committed, Unix seconds."""
    told = subprocess.run(["git", "-C", str(project), "log", "-1", "--format=%ct"], capture_output=True, text=True)
    return int(told.stdout.strip() or 0)


def build(board: Board, project: Path, out: Path, counter: int, version: str, *, fresh: bool = False) -> Path:
    """Everything for one release; the folder it lies in.

    Raises:
        SekishoError: a step failed; the message says which.

    """
    keys = bundle.signer(out / "keys")
    base = tree(board, project, out / board.name / "tree", fresh=fresh)
    folder = out / board.name / str(counter)
    log.info("Image %s (%d)", version, counter)
    root = finish(board, project, base, out / board.name / "root", keys.cert)
    images = release(board, project, root, folder, counter, version)
    disk.make(board, images, root, project / "firmware/image/grub.cfg", folder / "disk.img")
    bundle.make(board, images, counter, version, keys, folder / f"{counter}.raucb")
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sekisho.firmware.image.build", description=__doc__)
    parser.add_argument("--board", choices=sorted(BOARDS), default="amd64")
    parser.add_argument("--counter", type=int, default=1)
    parser.add_argument("--version", default="0.1.0")
    parser.add_argument("--out", type=Path, default=Path("build/image"))
    parser.add_argument("--fresh", action="store_true", help="make the Debian tree anew")
    asked = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        made = build(
            BOARDS[asked.board], Path.cwd(), asked.out.resolve(), asked.counter, asked.version, fresh=asked.fresh
        )
    except SekishoError as err:
        sys.stderr.write(f"{err}\n")
        return 1
    log.info("%s", made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
