"""A connection that nobody recognises passes the gate with its first bytes, and lives whatever becomes of the gate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from sekisho.appliance.core import marks
from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4, SERVER6

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

PORT = 7007
LITTLE, MORE, MUCH = 100, 5_000, 70_000
"""Bytes; after `MUCH` of them nobody asks about a connection any more."""
ECHO = f"""
import asyncio
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
async def main():
    async with await asyncio.start_server(echo, ["0.0.0.0", "::"], {PORT}) as server:
        print("ready", flush=True)
        await server.serve_forever()
asyncio.run(main())
"""
TALK = f"""
import os, socket, sys
link = socket.create_connection((sys.argv[1], {PORT}), timeout=8)
print(link.getsockname()[1], flush=True)
for line in sys.stdin:
    sent = bytes([1]) + os.urandom(int(line) - 1).replace(b"/", b"_")
    link.sendall(sent)
    heard = b""
    while len(heard) < len(sent):
        heard += link.recv(65536) or sys.exit("closed")
    print("same" if heard == sent else "other", flush=True)
"""


class Line:
    """One connection that is kept open."""

    def __init__(self, lab: Lab, host: str) -> None:
        argv = lab.inside("lan", [sys.executable, "-I", "-c", TALK, host])
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def connected(self) -> int:
        """Its port, once it is open."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def begin(self, size: int) -> None:
        assert self.process.stdin is not None
        print(size, file=self.process.stdin, flush=True)

    def heard(self) -> bool:
        """What was sent came back."""
        assert self.process.stdout is not None
        return self.process.stdout.readline() == "same\n"

    def says(self, size: int) -> bool:
        self.begin(size)
        return self.heard()


@contextmanager
def ended(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def lines(lab: Lab) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        server = lab.popen("wan", [sys.executable, "-I", "-c", ECHO])
        stack.enter_context(ended(server))
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield stack


def opened(lab: Lab, stack: ExitStack, host: str) -> Line:
    line = Line(lab, host)
    stack.enter_context(ended(line.process))
    return line


def unknown(lab: Lab, port: int) -> bool:
    """Whether the kernel asks the gate about what this client sends."""
    table = lab.run("box", ["cat", "/proc/net/nf_conntrack"]).stdout.decode()
    (entry,) = [row for row in table.splitlines() if f"sport={port} dport={PORT}" in row]
    return bool(int(entry.partition("mark=")[2].split()[0]) & marks.UNKNOWN)


@pytest.mark.parametrize("host", [SERVER4, SERVER6])
def test_the_kernel_asks_about_the_beginning_only(lab: Lab, lines: ExitStack, host: str) -> None:
    line = opened(lab, lines, host)
    port = line.connected()
    assert unknown(lab, port)
    assert line.says(LITTLE)
    assert unknown(lab, port)
    assert line.says(MUCH)
    assert not unknown(lab, port)
    assert line.says(MUCH)


@pytest.mark.parametrize("host", [SERVER4, SERVER6])
def test_it_talks_on_over_a_hung_and_a_dead_gate_and_after_it_is_back(lab: Lab, lines: ExitStack, host: str) -> None:
    """What a gate that does not look lets by ends the watch: afterwards the next bytes would seem to be early."""
    before = opened(lab, lines, host)
    port = before.connected()
    assert before.says(LITTLE)
    old = lab.kill("inspect", signal.SIGSTOP)
    try:
        meanwhile = opened(lab, lines, host)
        before.begin(MORE)
        assert meanwhile.connected()
        assert meanwhile.says(MORE)
        assert before.heard()
    finally:
        os.kill(old, signal.SIGCONT)
    assert not unknown(lab, port)
    lab.wait(lab.inspecting, "the box does not inspect", 15)
    after = opened(lab, lines, host)
    after.connected()
    assert all(line.says(MORE) for line in (before, meanwhile, after))
    os.kill(old, signal.SIGKILL)
    assert after.says(MORE)
    lab.wait(lambda: lab.pid("inspect") not in (0, old), "inspect is not back", 15)
    lab.wait(lab.inspecting, "the box does not inspect", 15)
    assert all(line.says(size) for size in (MORE, MUCH) for line in (before, meanwhile, after))
