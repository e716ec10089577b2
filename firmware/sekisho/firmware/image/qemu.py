"""A box in QEMU: its disk, its two cables, its console, a shell of a trial image; and its power switch.

KVM is used where the processor has it; without it QEMU translates, some ten times slower. Waits end with a fact or
raise `Late`; how long they wait is the caller's business.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sekisho.firmware.image.flash import Flash
from sekisho.firmware.image.wire import Wire

FIRMWARE: Final = {
    "amd64": (Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")),
    "arm64": (Path("/usr/share/AAVMF/AAVMF_CODE.fd"), Path("/usr/share/AAVMF/AAVMF_VARS.fd")),
}
MEMORY_MIB: Final = 1536
ASK_AGAIN_S: Final = 5.0
STEP: Final = 1
"""Where QEMU translates, the box's clock counts instructions, 2^1 ns each: half a thousand million a second, as a slow
board. A busy host makes it wait, but no watchdog of the box bites and no time-out of it ends for that reason; and its
own account of its start (`systemd-analyze`) is the same on every host.
"""


class Late(AssertionError):
    """What was waited for did not come."""


def accelerated(board: str) -> bool:
    """Whether the host runs this board's machine code itself."""
    if {"amd64": "x86_64", "arm64": "aarch64"}[board] != os.uname().machine or not os.access("/dev/kvm", os.W_OK):
        return False
    return board != "amd64" or bool(re.search(r"\b(vmx|svm)\b", Path("/proc/cpuinfo").read_text()))


class Machine:
    """One box. `folder` holds what it needs; `disk` is written to."""

    def __init__(self, board: str, disk: Path, folder: Path, extra: Path | None = None) -> None:
        self._board, self._folder, self._extra = board, folder, extra
        self.flash = Flash(disk, folder / "disk.sock")
        self.wire = Wire(folder)
        self.console = folder / "console.log"
        self.console.touch()
        self._process: subprocess.Popen[bytes] | None = None
        self._shell: socket.socket | None = None
        self.started = 0.0
        """Monotonic instant of the last `on`."""
        shutil.copyfile(FIRMWARE[board][1], folder / "vars.fd")

    def on(self) -> None:
        """Power on."""
        self.flash.on()
        self.wire.forget()
        self._mark = self.console.stat().st_size
        log = (self._folder / "qemu.log").open("ab")
        self._process = subprocess.Popen(
            ["nice", "-n", "15", *self._command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        self.started = time.monotonic()

    def cut(self, seed: int = 0) -> int:
        """Power off, at once: sectors that were written and never flushed, and are lost now."""
        self._kill()
        return self.flash.cut(seed)

    def close(self) -> None:
        self._kill()
        self.wire.close()
        self.flash.close()

    def _kill(self) -> None:
        if self._shell is not None:
            self._shell.close()
            self._shell = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _command(self) -> list[str]:
        code, _ = FIRMWARE[self._board]
        fast = accelerated(self._board)
        if self._board == "amd64":
            command = ["qemu-system-x86_64", "-machine", f"q35,accel={'kvm' if fast else 'tcg'}"]
            command += ["-cpu", "host" if fast else "EPYC", "-device", "i6300esb", "-vga", "none"]
        else:
            command = ["qemu-system-aarch64", "-machine", f"virt,gic-version=max,accel={'kvm' if fast else 'tcg'}"]
            command += ["-cpu", "host" if fast else "cortex-a72", "-device", "i6300esb"]
        command += [
            "-m",
            str(MEMORY_MIB),
            "-smp",
            "2" if fast else "1",
            "-display",
            "none",
            "-monitor",
            "none",
            "-nic",
            "none",
        ]
        command += ["-action", "watchdog=reset", "-no-user-config", "-serial", "chardev:console"]
        command += ["-chardev", f"file,id=console,append=on,path={self.console}"]
        command += ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
        command += ["-drive", f"if=pflash,format=raw,file={self._folder / 'vars.fd'}"]
        command += ["-blockdev", f"driver=nbd,node-name=disk,server.type=unix,server.path={self._folder / 'disk.sock'}"]
        command += ["-device", "virtio-blk-pci,drive=disk,bootindex=0"]
        command += ["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=shell"]
        command += ["-chardev", f"socket,id=shell,server=on,wait=off,path={self._folder / 'shell.sock'}"]
        if self._extra:
            command += ["-drive", f"if=none,id=extra,format=raw,readonly=on,file={self._extra}"]
            command += ["-device", "virtio-blk-pci,drive=extra,serial=extra"]
        return command + self.wire.arguments({"lan": "0x10", "wan": "0x11"})

    def said(self) -> str:
        """The console since the last `on`."""
        with self.console.open("rb") as source:
            source.seek(self._mark)
            return source.read().decode("utf-8", "replace")

    def standings(self) -> list[dict[str, Any]]:
        """What the box said of its slots since the last `on` (`firmware.bootcheck`)."""
        return [json.loads(found) for found in re.findall(r"sekisho: (\{.*\})", self.said())]

    def wait(self, fact: Callable[[], Any], within_s: float, what: str) -> Any:
        """The first true answer of `fact`.

        Raises:
            Late: none within `within_s`, or the machine ended; with the end of the console.

        """
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if found := fact():
                return found
            if self._process is not None and self._process.poll() is not None:
                break
            time.sleep(0.2)
        raise Late(f"{what}: not within {within_s:.0f} s\n{self.said()[-3000:]}")

    def standing(self, within_s: float, **fields: Any) -> dict[str, Any]:
        """The first thing it says of itself since `on` that has these values."""

        def fits() -> dict[str, Any] | None:
            return next((s for s in self.standings() if all(s.get(k) == v for k, v in fields.items())), None)

        found: dict[str, Any] = self.wait(fits, within_s, f"standing {fields}")
        return found

    def shell(self, script: str, within_s: float = 120.0) -> tuple[int, str]:
        """Run `script` as root in a trial image; its exit code and what it printed."""
        link = self._shell or self._connect(within_s)
        mark = f"done-{time.monotonic_ns()}"
        link.sendall(f"({script}) 2>&1; echo {mark[:4]}''{mark[4:]} $?\n".encode())
        heard = b""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if match := re.search(rf"{mark} (\d+)\s*\n".encode(), heard):
                return int(match.group(1)), heard[: match.start()].decode("utf-8", "replace")
            try:
                heard += link.recv(65536)
            except TimeoutError:
                continue
        raise Late(f"{script}: no end within {within_s:.0f} s; {heard[-500:]!r}")

    def _connect(self, within_s: float) -> socket.socket:
        """Until the shell answers: it starts some time after the machine."""
        link = socket.socket(socket.AF_UNIX)
        link.connect(str(self._folder / "shell.sock"))
        link.settimeout(1.0)
        end = time.monotonic() + within_s
        heard = b""
        asked = 0.0
        while b"ready-now" not in heard:
            now = time.monotonic()
            if now > end:
                link.close()
                raise Late(f"the shell does not answer\n{self.said()[-2000:]}")
            try:
                if now - asked > ASK_AGAIN_S:
                    asked = now
                    link.sendall(b"stty -echo; echo ready'-'now\n")
                heard += link.recv(65536)
            except TimeoutError:
                continue  # nobody reads or writes there yet
        self._shell = link
        return link
