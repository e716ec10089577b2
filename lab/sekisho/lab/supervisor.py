"""Keeps one lab's programs running, as a service manager would on a real box.

Each program runs in its own network namespace and session, logs to its own file, and is started again
0.3 s after it died. Only the main process is watched, or the one that it has named in its place (sd_notify
MAINPID=): what a killed program leaves running (an engine, a worker) stays, as with KillMode=process. `start` and
`stop` of single programs come over a unix socket.
SIGTERM stops everything. Started by `Lab.up`: `python -m sekisho.lab.supervisor PLAN.json`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec

from sekisho.lab.layout import ENV_MARK, Layout
from sekisho.lab.ports import listening
from sekisho.lab.program import Plan, Program, Reply, Request, Running, State

RESTART_AFTER_S = 0.3
STOP_WITHIN_S = 8.0
READY_POLL_S = 0.02
MAX_LINE_BYTES = 4096

log = logging.getLogger(__name__)


class _Keeper:
    """One program's life. `wanted` is what we were asked for, `state` is what is."""

    def __init__(self, lay: Layout, program: Program, *, stopped: bool) -> None:
        self.program = program
        self.state: State = "stopped" if stopped else "starting"
        self.starts = 0
        self.pid = 0
        self.said = ""
        self._heir = 0
        """The process that the program named in its place."""
        self._lay = lay
        self._wanted = asyncio.Event()
        if not stopped:
            self._wanted.set()
        self._notify = lay.root / "notify" / program.name
        self._notify.parent.mkdir(exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(self._notify))
        self._notify.chmod(0o777)
        asyncio.get_running_loop().add_reader(self._socket, self._heard)

    def running(self) -> Running:
        return Running(self.program.name, self.program.place, self.state, self.pid, self.starts, self.said)

    def start(self) -> None:
        if not self._wanted.is_set():
            self.state = "starting"
            self._wanted.set()

    def stop(self) -> None:
        self._wanted.clear()
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
        elif self.state == "dead":  # by itself, a moment ago: nobody starts it again
            self.state = "stopped"

    async def keep(self) -> None:
        while True:
            await self._wanted.wait()
            await self._live()
            self.state = "dead" if self._wanted.is_set() else "stopped"
            log.info("%s ended", self.program.name)
            await asyncio.sleep(RESTART_AFTER_S)

    async def _live(self) -> None:
        self.state, self.said, self._heir = "starting", "", 0
        self.starts += 1
        env = os.environ | {
            "NOTIFY_SOCKET": str(self._notify),
            "WATCHDOG_USEC": "30000000",
            ENV_MARK: self._lay.name,
        }
        place = self.program.place
        inside = () if place == "host" else ("ip", "netns", "exec", self._lay.netns(place))
        with (self._lay.logs / f"{self.program.name}.log").open("ab") as out:
            child = await asyncio.create_subprocess_exec(
                *(*inside, *self.program.argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=env,
                cwd=self._lay.root,
                start_new_session=True,
            )
        self.pid = child.pid
        if not self._wanted.is_set():
            child.terminate()
        try:
            while self.program.ports and not listening(child.pid).issuperset(self.program.ports):
                try:
                    await asyncio.wait_for(child.wait(), READY_POLL_S)
                except TimeoutError:
                    continue
                return
            if self.program.ports:
                self.state = "ready"
            await child.wait()
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._heard()  # what it said last
            await self._heirs()
        finally:
            if child.returncode is None:
                await _end(child)
            self._end_heir()
            self.pid = 0

    async def _heirs(self) -> None:
        """Until the last one that was named main process has ended; none is a child of this process."""
        while self._heir:
            try:
                fd = os.pidfd_open(self._heir)
            except ProcessLookupError:
                return
            ended, heir = asyncio.Event(), self._heir
            asyncio.get_running_loop().add_reader(fd, ended.set)
            try:
                await ended.wait()
            finally:
                asyncio.get_running_loop().remove_reader(fd)
                os.close(fd)
            if heir == self._heir:
                self._heir = 0

    def _end_heir(self) -> None:
        if self._heir:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._heir, signal.SIGTERM)
            self._heir = 0

    def _heard(self) -> None:
        lines = self._socket.recv(MAX_LINE_BYTES).split(b"\n")
        for line in lines:
            if line.startswith(b"STATUS="):
                self.said = line.removeprefix(b"STATUS=").decode(errors="replace")
            if line.startswith(b"MAINPID="):
                self.pid = self._heir = int(line.removeprefix(b"MAINPID="))
        if b"READY=1" in lines:
            self.state = "ready"


async def _end(child: asyncio.subprocess.Process) -> None:
    child.terminate()
    try:
        await asyncio.wait_for(child.wait(), STOP_WITHIN_S)
    except TimeoutError:
        child.kill()
        await child.wait()


class _Control:
    """Answers requests on the command socket."""

    def __init__(self, keepers: dict[str, _Keeper]) -> None:
        self._keepers = keepers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 5)
            writer.write(msgspec.json.encode(self._answer(line)) + b"\n")
            await writer.drain()
        except (TimeoutError, ValueError, OSError) as err:
            log.warning("control request dropped: %s", err)
        finally:
            writer.close()

    def _answer(self, line: bytes) -> Reply:
        try:
            request = msgspec.json.decode(line, type=Request)
        except msgspec.DecodeError as err:
            return Reply(error=str(err))
        if request.do != "status":
            keeper = self._keepers.get(request.name)
            if keeper is None:
                return Reply(error=f"no program called {request.name!r}")
            keeper.start() if request.do == "start" else keeper.stop()
        return Reply([keeper.running() for keeper in self._keepers.values()])


async def supervise(plan: Plan) -> None:
    """Run until SIGTERM; returns when every program has ended."""
    lay = Layout(plan.lab)
    keepers = {program.name: _Keeper(lay, program, stopped=program.name in plan.stopped) for program in plan.programs}
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    server = await asyncio.start_unix_server(_Control(keepers).serve, lay.control, limit=MAX_LINE_BYTES)
    async with server, asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(keeper.keep(), name=name) for name, keeper in keepers.items()]
        await ended.wait()
        for task in running:
            task.cancel()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(supervise(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)))


if __name__ == "__main__":
    main()
