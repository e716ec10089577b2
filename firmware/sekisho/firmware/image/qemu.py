"""A box in QEMU: its disk, its two cables, its console, a shell of a trial image; and its power switch.

KVM is used where it starts the board's firmware; else QEMU translates, some ten times slower. Waits end with a fact or
raise `Late`; how long they wait is the caller's business.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from sekisho.firmware.image.flash import Flash
from sekisho.firmware.image.wire import Wire

FIRMWARE: Final = {
    "amd64": (Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")),
    "arm64": (Path("/usr/share/AAVMF/AAVMF_CODE.fd"), Path("/usr/share/AAVMF/AAVMF_VARS.fd")),
}
PROGRAM: Final = {
    "amd64": ("qemu-system-x86_64", "-machine", "q35"),
    "arm64": ("qemu-system-aarch64", "-machine", "virt,gic-version=max"),
}
TRANSLATED: Final = {"amd64": "EPYC", "arm64": "cortex-a72"}
MEMORY_MIB: Final = 1536
ASK_AGAIN_S: Final = 5.0
STEP: Final = 1
"""A box whose clock is `counted`: every instruction takes it 2^1 ns, half a thousand million a second on one core, as
on a slow board. What it says of its own start (`systemd-analyze`) is then the same on every host, however busy.
"""
THAW_S: Final = 300.0
PROBE_S: Final = 20.0
ALIVE: Final = b"BdsDxe"
"""How the firmware's messages on the console begin once it looks for a disk."""


class Late(AssertionError):
    """What was waited for did not come."""


@functools.cache
def accelerated(board: str) -> bool:
    """Whether the host runs this board's machine code itself: a device that opens is not enough.

    Some hosts have a KVM that runs kernels of their own kind alone, and gives up at the firmware.
    """
    if {"amd64": "x86_64", "arm64": "aarch64"}[board] != os.uname().machine or not os.access("/dev/kvm", os.W_OK):
        return False
    command = [*PROGRAM[board], "-accel", "kvm", "-cpu", "host", "-m", "256", "-display", "none", "-nic", "none"]
    command += ["-monitor", "none", "-no-user-config", "-serial", "stdio"]
    command += ["-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE[board][0]}"]
    tried = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    end = time.monotonic() + PROBE_S
    heard = b""
    try:
        while tried.stdout is not None and ALIVE not in heard and (left := end - time.monotonic()) > 0:
            if not select.select([tried.stdout], [], [], left)[0]:
                break
            got = os.read(tried.stdout.fileno(), 4096)
            if not got:
                break
            heard += got
    finally:
        tried.kill()
        tried.wait()
    return ALIVE in heard


class Machine:
    """One box. `folder` holds what it needs; `disk` is written to. `counted`: see `STEP`."""

    def __init__(
        self, board: str, disk: Path, folder: Path, extra: Path | None = None, *, counted: bool = False
    ) -> None:
        self._board, self._folder, self._extra, self._counted = board, folder, extra, counted
        self.flash = Flash(disk, folder / "disk.sock")
        self.wire = Wire(folder)
        self.console = folder / "console.log"
        self.console.touch()
        self._process: subprocess.Popen[bytes] | None = None
        self._shell: socket.socket | None = None
        self.started = 0.0
        """Monotonic instant of the last `on`."""
        shutil.copyfile(FIRMWARE[board][1], folder / "vars.fd")

    def on(self, memory: Path | None = None) -> None:
        """Power on; with `memory` as it was when it was frozen."""
        self.flash.on()
        self.wire.forget()
        self._mark = self.console.stat().st_size
        for name in ("shell.sock", "qmp.sock"):
            (self._folder / name).unlink(missing_ok=True)
        command = self._command()
        if memory is not None:
            command += ["-incoming", f"exec:cat {memory}"]
        with (self._folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.started = time.monotonic()
        if memory is not None:
            with self._orders() as order:
                self.wait(lambda: order("query-status")["status"] == "paused", THAW_S, "thawed")
                order("cont")

    def restarted(self) -> None:
        """What it says and carries from here on belongs to its next start, which it makes itself."""
        self._mark = self.console.stat().st_size
        self.started = time.monotonic()
        self._hang_up()

    def freeze(self, into: Path) -> None:
        """Keep what the running box is, disk and memory, in the folder `into`, and switch it off. Write back first.

        Raises:
            Late: QEMU did not write its memory.

        """
        into.mkdir(parents=True, exist_ok=True)
        with self._orders() as order:
            order("stop")
            order("migrate", uri=f"exec:cat >{into / 'memory.new'}")
            self.wait(lambda: order("query-migrate").get("status") == "completed", THAW_S, "frozen")
        self._kill()
        subprocess.run(["cp", "--sparse=always", str(self.flash.image), str(into / "disk.img")], check=True)
        (into / "memory.new").rename(into / "memory")

    def _reach(self, name: str) -> socket.socket:
        """A socket of QEMU's, from the moment it listens."""

        def answers() -> socket.socket | None:
            link = socket.socket(socket.AF_UNIX)
            try:
                link.connect(str(self._folder / name))
            except OSError:
                link.close()
                return None
            return link

        found: socket.socket = self.wait(answers, THAW_S, f"QEMU's {name}")
        return found

    @contextlib.contextmanager
    def _orders(self) -> Iterator[Callable[..., dict[str, Any]]]:
        """QEMU's machine protocol (QMP): a function that gives one command and has its answer."""
        with self._reach("qmp.sock") as link:
            link.settimeout(THAW_S)
            with link.makefile("rw", encoding="utf-8") as words:

                def order(name: str, **told: str) -> dict[str, Any]:
                    words.write(json.dumps({"execute": name, "arguments": told}) + "\n")
                    words.flush()
                    while True:
                        answer = json.loads(words.readline())
                        if "error" in answer:
                            raise Late(f"{name}: {answer['error']}")
                        if "return" in answer:
                            found: dict[str, Any] = answer["return"]
                            return found

                words.readline()
                order("qmp_capabilities")
                yield order

    def cut(self, seed: int = 0) -> int:
        """Power off, at once: sectors that were written and never flushed, and are lost now."""
        self._kill()
        return self.flash.cut(seed)

    def close(self) -> None:
        self._kill()
        self.wire.close()
        self.flash.close()

    def _hang_up(self) -> None:
        if self._shell is not None:
            self._shell.close()
            self._shell = None

    def _kill(self) -> None:
        self._hang_up()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _command(self) -> list[str]:
        code, _ = FIRMWARE[self._board]
        command = [*PROGRAM[self._board], "-m", str(MEMORY_MIB), "-device", "i6300esb", "-vga", "none"]
        if self._counted:
            command += ["-accel", "tcg,thread=single,tb-size=512", "-smp", "1", "-icount", f"shift={STEP}"]
        elif accelerated(self._board):
            command += ["-accel", "kvm", "-smp", "2"]
        else:
            command += ["-accel", "tcg,thread=multi,tb-size=512", "-smp", "2"]
        host = accelerated(self._board) and not self._counted
        command += ["-cpu", "host" if host else TRANSLATED[self._board]]
        command += ["-display", "none", "-monitor", "none", "-nic", "none"]
        command += ["-action", "watchdog=reset", "-no-user-config", "-serial", "chardev:console"]
        command += ["-chardev", f"file,id=console,append=on,path={self.console}"]
        command += ["-drive", f"if=pflash,format=raw,readonly=on,file={code}"]
        command += ["-drive", f"if=pflash,format=raw,file={self._folder / 'vars.fd'}"]
        command += ["-blockdev", f"driver=nbd,node-name=disk,server.type=unix,server.path={self._folder / 'disk.sock'}"]
        command += ["-device", "virtio-blk-pci,drive=disk,bootindex=0"]
        command += ["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=shell"]
        command += ["-qmp", f"unix:{self._folder / 'qmp.sock'},server=on,wait=off"]
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
        mark = f"{time.monotonic_ns()}"
        link.sendall(f"echo 'be'gin-{mark}; ({script}) 2>&1; echo 'do'ne-{mark} $?\n".encode())
        heard = b""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if match := re.search(rf"begin-{mark}\r?\n(.*)done-{mark} (\d+)\r?\n".encode(), heard, re.DOTALL):
                return int(match.group(2)), match.group(1).decode("utf-8", "replace").replace("\r\n", "\n")
            try:
                heard += link.recv(65536)
            except TimeoutError:
                continue
        raise Late(f"{script}: no end within {within_s:.0f} s; {heard[-500:]!r}")

    def _connect(self, within_s: float) -> socket.socket:
        """Until the shell answers: it starts some time after the machine."""
        end = time.monotonic() + within_s
        link = self._reach("shell.sock")
        link.settimeout(1.0)
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
