"""A whole box under a real systemd: Debian as a customer's box has it, the product set up on it, two cables.

systemd-nspawn boots it in a network namespace of its own. What it writes lies over a tree that is made once and kept
below build/system; a cut of the power is SIGKILL to everything at once, and the next start finds the disk as it was.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from releases import Centre

from sekisho.center import pki
from sekisho.firmware.build import bundle, lock, wheels
from sekisho.firmware.build.bundle import Terms
from sekisho.firmware.content import Content, Machine
from sekisho.firmware.image import debian
from sekisho.firmware.keeper import journal
from sekisho.firmware.keeper.desk import Shown
from sekisho.firmware.keeper.journal import Journal
from sekisho.firmware.published import Release
from sekisho.firmware.switch.services import said
from sekisho.lab.net import command
from sekisho.signatures.depot import serve

ROOT: Final = Path(__file__).parents[3]
KEPT: Final = ROOT / "build" / "system"
HERE: Final[Machine] = "arm64" if platform.machine() == "aarch64" else "amd64"
PYTHON: Final = f"{platform.python_version_tuple()[0]}.{platform.python_version_tuple()[1]}"
PACKAGES: Final = (
    *("systemd", "systemd-sysv", "dbus", "kmod", "procps", "ca-certificates"),
    *("python3", "python3-venv", "suricata", "iptables", "nftables", "iproute2", "ethtool", "zstd"),
    *("libseccomp2", "libnetfilter-queue1", "libmnl0", "libarchive13"),
)
BOX4, CLIENT4, SERVER4 = "10.79.0.2", "10.79.0.10", "10.79.0.1"
CGROUPS: Final = [path for name in ("systemd", "unified") if (path := Path("/sys/fs/cgroup") / name).is_dir()]
"""Of a machine with control groups of the first kind, where systemd is not the first process."""
VENV: Final = "/usr/lib/sekisho/venv"
EPOCH: Final = 1_795_000_000
DAEMONS: Final = ("signatures", "portal_agent", "jobs", "telemetry", "appliance", "inspect", "firmware")
SETTINGS: Final = f"""\
box = "box-1"
[bridge]
addresses = ["{BOX4}/24"]
gateways = ["{SERVER4}"]
[inspection]
home_networks = ["{CLIENT4}/32"]
queues = 1
scan_workers = 1
[signatures]
channel = "https://{SERVER4}"
channel_ca = "/etc/sekisho/channel-ca.pem"
[firmware]
trial_s = 60.0
steady_s = 2.0
"""


class Parts:
    """What boxes are made of: the tree, the wheels, our own wheel of this work tree."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.tree = KEPT / f"{debian.codename()}-{HERE}"
        renamed = {"libarchive13": "libarchive13t64"} if debian.codename() == "trixie" else {}
        wanted = [renamed.get(name, name) for name in PACKAGES]
        done = self.tree.with_suffix(".done")
        if not done.exists() or done.read_text() != " ".join(wanted):
            done.unlink(missing_ok=True)
            debian.make(wanted, self.tree)
            done.write_text(" ".join(wanted))
        pins = lock.needed(
            (ROOT / "requirements.lock").read_text(), (ROOT / "pyproject.toml").read_text(), HERE, PYTHON
        )
        self.others = wheels.gather(pins, HERE, PYTHON, KEPT / "wheels")
        source = scratch / "source"
        source.mkdir(parents=True)
        tracked = command(["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"]).splitlines()
        for name in tracked:
            if (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, source / name)
        self.own = wheels.own(wheels.Commit(source, "", EPOCH), HERE, scratch / "own")
        self.product = scratch / "product"
        self._set_up()

    def _set_up(self) -> None:
        """As docs/firmware.md says."""
        upper, work, merged = self.product, self.scratch / "work", self.scratch / "merged"
        for folder in (upper, work, merged):
            folder.mkdir()
        command(
            [
                "mount",
                "-t",
                "overlay",
                "overlay",
                "-o",
                f"lowerdir={self.tree},upperdir={upper},workdir={work}",
                str(merged),
            ]
        )
        try:
            given = merged / "root/wheels"
            given.mkdir()
            for wheel in (self.own, *self.others):
                shutil.copy(wheel, given)
            inside = [
                "systemd-nspawn",
                "--quiet",
                "--register=no",
                "--keep-unit",
                "--private-network",
                "-D",
                str(merged),
            ]
            command_long([*inside, "python3", "-m", "venv", VENV])
            named = [f"/root/wheels/{wheel.name}" for wheel in (self.own, *self.others)]
            command_long(
                [*inside, f"{VENV}/bin/pip", "install", "-qq", "--no-index", "--no-deps", "--no-compile", *named]
            )
            shutil.rmtree(given)
            command_long([*inside, f"{VENV}/bin/sekisho", "firmware", "set-up", "--box", "box-1"])
        finally:
            command(["umount", str(merged)])

    def bundle(self, counter: int, folder: Path, changed: dict[str, Callable[[str], str]] | None = None) -> Release:
        """A release of this work tree; `changed`: modules (dotted) and what is made of their text.

        One that is changed takes others' packages from where the system's own programs have them: it is installed in
        seconds then, and is a trial of something else.
        """
        own = self._changed(folder / "own", changed or {})
        others = self.others if changed is None else [self._borrowed(folder / "others")]
        content = Content(counter=counter, version=f"1.{counter}", hardware=HERE, machine=HERE, python=PYTHON)
        listed = folder / "requirements.txt"
        all_of = (own, *others)
        listed.write_text("".join(wheels.requirement(*wheels.named(one), [wheels.digest(one)]) for one in all_of))
        files = {f"wheels/{one.name}": one for one in all_of} | {"requirements.txt": listed}
        path = folder / f"{counter}.tar.zst"
        bundle.pack(content, files, EPOCH, path)
        made = bundle.describe(content, files, EPOCH, path, Terms())
        bundle.write(made, folder)
        return made

    def _borrowed(self, folder: Path) -> Path:
        folder.mkdir()
        made = folder / "borrowed-1.0-py3-none-any.whl"
        told = {
            "borrowed.pth": f"{VENV}/lib/python{PYTHON}/site-packages\n",
            "borrowed-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: borrowed\nVersion: 1.0\n",
            "borrowed-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        told["borrowed-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in told)
        with zipfile.ZipFile(made, "w") as out:
            for name, text in told.items():
                out.writestr(zipfile.ZipInfo(name), text)
        return made

    def _changed(self, folder: Path, changed: dict[str, Callable[[str], str]]) -> Path:
        folder.mkdir(parents=True)
        paths = {dotted.replace(".", "/") + ".py": change for dotted, change in changed.items()}
        made = folder / self.own.name
        with zipfile.ZipFile(self.own) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as out:
            assert paths.keys() <= set(source.namelist())
            for entry in source.infolist():
                data = source.read(entry)
                if entry.filename in paths:
                    data = paths[entry.filename](data.decode()).encode()
                if entry.filename.endswith("/RECORD"):
                    rows = data.decode().splitlines(keepends=True)
                    data = "".join(
                        f"{row.split(',')[0]},,\n" if row.split(",")[0] in paths else row for row in rows
                    ).encode()
                out.writestr(entry, data)
        return made


def command_long(argv: Sequence[str], timeout_s: float = 300) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr[-2000:]}{done.stdout[-1000:]}"
    return done.stdout


class Box:
    """One box with an office and an internet at its cables. `close` takes all of it away."""

    def __init__(self, parts: Parts, root: Path, name: str, over: Box | None = None) -> None:
        """`over`: another box, switched off, whose disk this one begins with."""
        self.parts, self.root, self.name = parts, root, name
        self.lan, self.wan, self.own = f"{name}-lan", f"{name}-wan", f"{name}-box"
        self._manager: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self.server: subprocess.Popen[bytes] | None = None
        for netns, address in ((self.lan, CLIENT4), (self.wan, SERVER4)):
            command(["ip", "netns", "add", netns])
            command(["ip", "-n", netns, "link", "set", "lo", "up"])
            command(["ip", "-n", netns, "link", "add", "eth0", "type", "bridge"])
            command(["ip", "-n", netns, "addr", "add", f"{address}/24", "dev", "eth0"])
            command(["ip", "-n", netns, "link", "set", "eth0", "up"])
        for folder in ("upper", "work", "disk"):
            (root / folder).mkdir(parents=True)
        self.disk = root / "disk"
        below = [*([over.root / "upper"] if over is not None else []), parts.product, parts.tree]
        lower = f"lowerdir={':'.join(map(str, below))},upperdir={root / 'upper'},workdir={root / 'work'}"
        command(["mount", "-t", "overlay", "overlay", "-o", lower, str(self.disk)])

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.server is not None:
            self.server.terminate()
            self.server.wait(30)
        self.cut()
        for netns in (self.lan, self.wan):
            subprocess.run(["ip", "netns", "del", netns], check=False)
        subprocess.run(["umount", str(self.disk)], check=False)
        shutil.rmtree(f"/run/systemd/nspawn/propagate/{self.name}", ignore_errors=True)
        for group in CGROUPS:
            for left in sorted(group.glob(f"{self.name}/**/"), reverse=True):
                with suppress(OSError):
                    left.rmdir()

    def serve(self, centre: Centre) -> None:
        """What the centre publishes, by the server that publishes it, on the internet's side."""
        pki.create_ca(self.root / "authority", "channel")
        made = pki.issue(self.root / "authority", "updates", "server", (SERVER4,))
        run = self.root / "server"
        run.mkdir()
        config = run / "nginx.conf"
        config.write_text(serve.alone(serve.config(centre.depot.tree.directory, made.cert, made.key), run, "root"))
        argv = ["ip", "netns", "exec", self.wan, "nginx", "-c", str(config)]
        self.server = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        etc = self.disk / "etc/sekisho"
        shutil.copy(made.ca, etc / "channel-ca.pem")
        (etc / "updates-root.json").write_bytes(centre.depot.trusted)
        (etc / "box.toml").write_text(SETTINGS)

    # Its power

    def boot(self) -> None:
        """On; returns when systemd answers."""
        self._another_boot()
        command(["ip", "netns", "add", self.own])
        for port, netns in (("eth-lan", self.lan), ("eth-wan", self.wan)):
            command(
                ["ip", "link", "add", port, "netns", self.own, "type", "veth", "peer", "name", port, "netns", netns]
            )
            command(["ip", "-n", netns, "link", "set", port, "master", "eth0", "up"])
            command(["ip", "-n", self.own, "link", "set", port, "up"])
            for one in (netns, self.own):
                off = [word for what in ("tso", "gso", "gro", "tx", "sg") for word in (what, "off")]
                command(["ip", "netns", "exec", one, "ethtool", "-K", port, *off])
        argv = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", f"--machine={self.name}"]
        argv += [f"--network-namespace-path=/run/netns/{self.own}", "--link-journal=no", "--resolv-conf=off"]
        argv += ["--capability=CAP_NET_ADMIN"]  # a namespace that nspawn makes itself would have it, and no name
        with (self.root / "console.log").open("ab") as console:
            env = os.environ | {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}
            self._manager = subprocess.Popen(
                [*self._apart(), *argv, "-D", str(self.disk)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=env,
            )
        until(self._answers, "systemd does not answer", 60)

    def _another_boot(self) -> None:
        """A unit with a /proc of its own sees the boot of the machine below, which is the same every time."""
        (self.disk / "etc/boot_id").write_text(f"{uuid.uuid4()}\n")
        for name in ("firmware", "jobs"):
            folder = self.disk / f"etc/systemd/system/sekisho-{name}.service.d"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "boot.conf").write_text(
                "[Service]\nBindReadOnlyPaths=/etc/boot_id:/proc/sys/kernel/random/boot_id\n"
            )

    def _apart(self) -> list[str]:
        """In a control group of its own: two boxes at once would take each other's processes for their own."""
        for group in CGROUPS:
            (group / self.name).mkdir(exist_ok=True)
        enter = "".join(f"echo $$ >{group / self.name}/cgroup.procs && " for group in CGROUPS)
        return ["sh", "-c", f'{enter}exec "$@"', "sh"]

    def _answers(self) -> bool:
        assert self._manager is not None and self._manager.poll() is None, (self.root / "console.log").read_text()[
            -2000:
        ]
        told = Path(f"/proc/{self._manager.pid}/task/{self._manager.pid}/children").read_text().split()
        self._leader = int(told[0]) if told else 0
        return bool(told) and self.run("systemctl", "show", "-p", "Version", check=False).returncode == 0

    def cut(self) -> None:
        """Everything that runs in it is gone at this instant; its disk stays as it is."""
        if self._manager is None:
            return
        if self._leader:
            with suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGKILL)
            until(lambda: not Path(f"/proc/{self._leader}").exists(), "it does not die", 60)  # after all the others
        self._manager.kill()
        self._manager.wait(30)
        self._manager, self._leader = None, 0
        for port, netns in (("eth-lan", self.lan), ("eth-wan", self.wan)):  # with the namespace they go some time later
            subprocess.run(["ip", "-n", netns, "link", "del", port], check=False)
        subprocess.run(["ip", "netns", "del", self.own], check=False)

    @property
    def on(self) -> bool:
        return self._manager is not None

    def off(self) -> None:
        """In order, as somebody who holds the button; returns when it is off."""
        self.run("systemctl", "--no-block", "poweroff")
        assert self._manager is not None
        self._manager.wait(120)
        self._leader = 0
        self.cut()

    def run(self, *argv: str, check: bool = True, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """A command in it, as root."""
        assert self._leader
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "--"]
        done = subprocess.run([*enter, *argv], capture_output=True, text=True, errors="replace", timeout=timeout_s)
        assert not check or done.returncode == 0, f"{argv}: {done.stderr}{done.stdout}"
        return done

    # What it says

    def sekisho(self, *words: str) -> str:
        return self.run("/opt/sekisho/venv/bin/sekisho", *words, timeout_s=300).stdout

    def shown(self) -> Shown:
        return msgspec.json.decode(self.sekisho("firmware", "status", "--json"), type=Shown)

    def journal(self) -> Journal:
        """What the firmware daemon wrote down last: read from the disk, it costs the box nothing."""
        return journal.load(self.disk / "var/lib/sekisho-firmware/keeper.json")

    def unit(self, name: str) -> dict[str, str]:
        told = self.run("systemctl", "show", f"sekisho-{name}.service").stdout
        return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)

    def log(self, *units: str) -> str:
        picked = [word for name in units for word in ("-u", f"sekisho-{name}.service")]
        return self.run("journalctl", "--no-pager", "-o", "short-monotonic", *picked, check=False).stdout

    def releases(self) -> dict[str, str]:
        """What each daemon says it runs; empty: the system's own programs, or it is not ready."""
        return {name: said(self.unit(name).get("StatusText", "")) for name in DAEMONS}

    def active(self) -> bool:
        units = [f"sekisho-{name}.service" for name in DAEMONS]
        return self.run("systemctl", "is-active", *units, check=False).stdout.split() == ["active"] * len(units)

    def link(self) -> str:
        return (self.disk / "opt/sekisho/venv").readlink().parent.name


def until(fact: Callable[[], Any], what: str, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not fact():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@contextmanager
def pinging(box: Box) -> Iterator[Path]:
    """The office asks the internet ten times a second; what became of it is in the file afterwards."""
    log = box.root / "ping.log"
    argv = ["ip", "netns", "exec", box.lan, "ping", "-q", "-i", "0.1", SERVER4]
    with log.open("wb") as out:
        asking = subprocess.Popen(argv, stdout=out, stderr=out)
        try:
            yield log
        finally:
            asking.send_signal(signal.SIGINT)
            asking.wait(30)
