"""The root tree: Debian of the release this machine runs, from the sources this machine has, as few packages as do.

No server is named here: whatever mirror or proxy the machine's owner chose is used, and nothing of it stays in the
image. Needs root.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.firmware.build.lock import PROCESSOR
from sekisho.firmware.content import Machine
from sekisho.firmware.image import texts
from sekisho.firmware.image.boards import Board

PACKAGES: Final = (
    *("systemd", "systemd-sysv", "systemd-timesyncd", "dbus", "udev", "kmod", "initramfs-tools", "busybox"),
    *("cryptsetup-bin", "rauc", "rauc-service", "e2fsprogs", "fdisk", "ca-certificates", "zstd"),
    *("python3", "suricata", "iptables", "nftables", "iproute2", "ethtool"),
    *("libseccomp2", "libnetfilter-queue1", "libmnl0", "libarchive13"),
)
LEFT_OUT: Final = (
    *("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"),
    *(f"/lib/modules/*/kernel/{part}/*" for part in ("sound", "drivers/gpu", "drivers/media", "drivers/net/wireless")),
)
"""Nobody reads it there, and no box has it."""
MACHINES: Final[dict[str, Machine]] = {"x86_64": "amd64", "aarch64": "arm64"}
REGISTERED: Final = Path("/proc/sys/fs/binfmt_misc")
INDEX: Final = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)"

log = logging.getLogger(__name__)


def codename() -> str:
    """Of the release this machine runs."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def pick(index: str, release: str) -> list[str]:
    """Source lines out of what `apt-get indextargets` prints: Debian's own suites of `release`, `main` alone."""
    suites = {release, *(f"{release}-{kind}" for kind in ("security", "updates", "backports"))}
    found: dict[str, None] = {}
    for line in index.splitlines():
        uri, suite, component = ([*line.split("|"), "", ""])[:3]
        if suite in suites and component == "main":
            found[f"deb {uri} {suite} main"] = None
    return list(found)


def sources(release: str) -> str:
    """The sources of `release` that the machine's apt has.

    Raises:
        DeviceFault: it has none.

    """
    command = ["apt-get", "indextargets", "Created-By: Packages", "--format", INDEX]
    lines = pick(subprocess.run(command, check=True, capture_output=True, text=True).stdout, release)
    if not lines:
        raise DeviceFault(f"This machine's apt knows no source of Debian {release}.", "Run apt-get update once.")
    return "\n".join(lines) + "\n"


def bootstrap(board: Board, root: Path) -> None:
    """Make the tree at `root`, anew.

    Raises:
        DeviceFault: this machine cannot run programs of the board's processor, or a package cannot be had.

    """
    if board.arch != MACHINES.get(platform.machine()):
        translate(board)
    make([*packages(codename()), board.kernel, board.grub_package], root, board.arch)


def translate(board: Board, registered: Path = REGISTERED) -> None:
    """Have the kernel hand programs of the board's processor to QEMU (binfmt_misc), for as long as this machine runs.

    Where systemd starts the machine the package qemu-user-static has seen to it; a container has to be told.

    Raises:
        DeviceFault: it does not.

    """
    name = f"qemu-{PROCESSOR[board.arch]}"
    if not (registered / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(registered)], capture_output=True)
    if (registered / "register").exists() and not (registered / name).exists():
        subprocess.run(["/usr/lib/systemd/systemd-binfmt", f"{name}.conf"], capture_output=True)
    if not (registered / name).exists():
        raise DeviceFault(
            f"This machine has another processor than {board.name} and cannot run its programs.",
            f"Install qemu-user-static and load binfmt_misc, or run make image BOARD={board.name} on such a machine.",
        )


def make(wanted: list[str], root: Path, arch: Machine | None = None) -> None:
    """A tree of these packages at `root`, anew, with this machine's release, for `arch` or this machine's processor.

    Raises:
        DeviceFault: a package cannot be had.

    """
    release = codename()
    _let_go(root)
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    listed, pin = root.with_name("sources.list"), root.with_name("sekisho-pin")
    listed.write_text(sources(release))
    pin.write_text(texts.PIN.format(codename=release))
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--quiet"]
    command += [f"--include={','.join(wanted)}"] + ([f"--architectures={arch}"] if arch else [])
    command += [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
    command += [f"--setup-hook=copy-in {pin} /etc/apt/preferences.d", "--aptopt=Acquire::Check-Valid-Until false"]
    # The kernel's package makes no first stage: the image's own follows (`build.finish`).
    env = {**os.environ, "INITRD": "No"}
    ended = subprocess.run([*command, release, str(root), str(listed)], capture_output=True, text=True, env=env)
    if ended.returncode:
        raise DeviceFault(f"The system could not be put together: {ended.stderr[-1500:]}")


def _let_go(root: Path) -> None:
    """Unmount what a build that was killed left mounted below `root`: this machine's own, which is not to be removed.

    Raises:
        DeviceFault: a program still holds it.

    """
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for at in reversed([point for point in mounted if point.startswith(f"{root}/")]):
        if subprocess.run(["umount", at], capture_output=True).returncode:
            raise DeviceFault(f"{at} is still mounted.", "End what holds it (fuser -m), then build again.")


def packages(release: str) -> list[str]:
    """`PACKAGES` as `release` names them."""
    renamed = {"libarchive13": "libarchive13t64"} if release == "trixie" else {}
    return [renamed.get(name, name) for name in PACKAGES]


def strip(root: Path) -> None:
    """Take out what belongs to the building machine or to nobody: sources, indexes, identities, logs, build tools."""
    for name in (
        "etc/apt/sources.list",
        "etc/machine-id",
        "var/lib/dbus/machine-id",
        "etc/hostname",
        "etc/resolv.conf",
    ):
        (root / name).unlink(missing_ok=True)
    for name in ("var/lib/apt/lists", "var/cache/apt", "var/log", "etc/apt/sources.list.d", "etc/apt/preferences.d"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir()
    for key in (root / "etc").glob("ssh/ssh_host_*"):
        key.unlink()
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").write_text("sekisho\n")
    (root / "etc/resolv.conf").symlink_to("/run/systemd/resolve/resolv.conf")
