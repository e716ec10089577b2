"""The pool of scan workers: jobs out, results back, the dead and the stuck replaced.

Owns the children. A job whose worker died is tried once more on another; then its result says
"worker_lost". Nothing here blocks: `submit` and `handle` return at once, `fds` are to be polled.
"""

from __future__ import annotations

import array
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sekisho.inspect.worker import MAX_OBJECTS, MESSAGE_BYTES, Job, Object, Result

log = logging.getLogger(__name__)

START_TIMEOUT_S = 30.0
RESPAWN_S = 0.5
MAX_WAITING = 256


@dataclass
class _Task:
    job: Job
    fd: int
    tries: int = 0
    objects: list[Object] = field(default_factory=list)
    """Those of a result that has come in part."""

    def close(self) -> None:
        os.close(self.fd)


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    sock: socket.socket
    rules: str
    started: float
    ready: bool = False
    task: _Task | None = None
    deadline: float = 0.0


@dataclass
class Pool:
    """`size` workers, each with one job at a time; jobs wait in order."""

    size: int
    memory_mb: int
    rules: Path
    """The compiled rules of the set in force; changing it replaces the workers one by one."""
    fleet: int = -1
    """Descriptor of the fleet's bad files (fleet.Published), if there is such a list."""
    lost: int = 0
    submitted: int = 0
    _workers: list[_Worker] = field(default_factory=list)
    _queue: deque[_Task] = field(default_factory=deque)
    _done: list[Result] = field(default_factory=list)
    _spawn_after: float = 0.0

    def fds(self) -> list[int]:
        """What to poll for results."""
        return [w.sock.fileno() for w in self._workers]

    @property
    def busy(self) -> int:
        return sum(w.task is not None for w in self._workers) + len(self._queue)

    @property
    def idle(self) -> bool:
        """Nothing to do, and every worker has the rules in force."""
        rules = str(self.rules)
        return not self.busy and len(self._workers) == self.size and all(w.rules == rules for w in self._workers)

    @property
    def waiting(self) -> int:
        """Jobs that no worker has begun."""
        return len(self._queue)

    @property
    def ready(self) -> int:
        """Workers that can look at something now."""
        return sum(w.ready for w in self._workers)

    def pids(self) -> list[int]:
        return [w.process.pid for w in self._workers]

    def submit(self, job: Job, fd: int) -> None:
        """Queue a job; `fd` becomes the pool's and is closed with it.

        With `MAX_WAITING` jobs in the queue (no worker can start) the answer is "worker_lost" at once.
        """
        self.submitted += 1
        if len(self._queue) >= MAX_WAITING:
            _Task(job, fd).close()
            self._done.append(Result(job.id, error="worker_lost"))
            return
        self._queue.append(_Task(job, fd))
        self._feed()

    def handle(self, fd: int) -> None:
        """A worker's socket is readable: take its result, or see that it is gone."""
        worker = next((w for w in self._workers if w.sock.fileno() == fd), None)
        if worker is None:
            return
        try:
            message = worker.sock.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._bury(worker, "worker_lost")
        elif not worker.ready:
            worker.ready = True
        elif worker.task is not None:
            self._finish(worker, message)
        self._feed()

    def results(self) -> list[Result]:
        """Results since the last call."""
        done, self._done = self._done, []
        return done

    def tick(self) -> None:
        """Kill what is stuck, replace what is missing or runs an old set. Call about ten times a second."""
        now = time.monotonic()
        for worker in list(self._workers):
            stuck = worker.task is not None and now > worker.deadline
            unborn = not worker.ready and now > worker.started + START_TIMEOUT_S
            if stuck or unborn:
                self._bury(worker, "timeout")
        outdated = [w for w in self._workers if w.rules != str(self.rules) and w.ready and w.task is None]
        if (outdated and self.ready > 1) or (outdated and len(self._workers) == 1):
            self._bury(outdated[0], "")
        if len(self._workers) < self.size and now >= self._spawn_after:
            self._spawn()
        self._feed()

    def close(self) -> None:
        for worker in self._workers:
            worker.sock.close()
            worker.process.kill()
            worker.process.wait()
        self._workers.clear()
        for task in self._queue:
            task.close()
        self._queue.clear()

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._spawn_after = time.monotonic() + RESPAWN_S
        try:
            rules_fd = os.open(self.rules, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as err:
            log.error("no compiled YARA rules at %s: %s", self.rules, err.strerror)
            ours.close()
            theirs.close()
            return
        fleet = self.fleet if self.fleet < 0 else os.dup(self.fleet)
        fds = [theirs.fileno(), rules_fd, fleet]
        with contextlib.suppress(OSError):
            fds.append(os.open(self.rules.with_name("known.bin"), os.O_RDONLY | os.O_CLOEXEC))
        command = [sys.executable, "-I", "-m", "sekisho.inspect.worker", str(self.memory_mb), *map(str, fds)]
        process = subprocess.Popen(
            command,
            pass_fds=[fd for fd in fds if fd >= 0],
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", ""), "MALLOC_ARENA_MAX": "1"},
            preexec_fn=None,
        )
        theirs.close()
        for fd in fds[1:]:
            if fd >= 0:
                os.close(fd)
        self._workers.append(_Worker(process, ours, str(self.rules), time.monotonic()))

    def _feed(self) -> None:
        for worker in self._workers:
            if not self._queue:
                return
            if worker.task is None and worker.ready:
                self._give(worker, self._queue.popleft())

    def _give(self, worker: _Worker, task: _Task) -> None:
        worker.task = task
        worker.deadline = time.monotonic() + task.job.timeout_s * 2 + 1
        fds = array.array("i", [task.fd]).tobytes()
        try:
            worker.sock.sendmsg([msgspec.msgpack.encode(task.job)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        except OSError:
            self._bury(worker, "worker_lost")

    def _finish(self, worker: _Worker, message: bytes) -> None:
        task = worker.task
        if task is None:
            return
        try:
            result = msgspec.msgpack.decode(message, type=Result)
        except msgspec.MsgspecError:
            result = Result(task.job.id, error="worker_lost")
        if result.id != task.job.id or len(task.objects) > 2 * MAX_OBJECTS:
            result = Result(task.job.id, error="worker_lost")
        task.objects += result.objects
        if result.goes_on:
            return
        result.objects = task.objects
        result.outdated = worker.rules != str(self.rules)
        worker.task = None
        task.close()
        self._done.append(result)

    def _bury(self, worker: _Worker, why: str) -> None:
        self._workers.remove(worker)
        worker.sock.close()
        worker.process.send_signal(signal.SIGKILL)
        worker.process.wait()
        task = worker.task
        if why:
            self.lost += 1
            log.warning("scan worker %d ended (%s) with status %s", worker.process.pid, why, worker.process.returncode)
        if task is None:
            return
        if why == "worker_lost" and task.tries == 0:
            task.tries, task.objects = 1, []
            self._queue.appendleft(task)
        else:
            task.close()
            self._done.append(Result(task.job.id, error=why or "worker_lost"))
