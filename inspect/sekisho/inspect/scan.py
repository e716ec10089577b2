"""The pool of scan workers: jobs out, results back, the dead and the stuck replaced.

Owns the children. Another set of rules comes in with one worker more: once that has read it whole and found the canary
with it, it is asked before the old ones, and these are replaced one after the other, none in the middle of a file. A
set that no worker can begin with is refused, and the last good one stays, held open here: its file may be gone. A job
whose worker died is tried once more on another; then its result says "worker_lost". Nothing here blocks: `submit` and
`handle` return at once, `fds` are to be polled.
"""

from __future__ import annotations

import array
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

from sekisho.inspect.compiled import Compiled, opened
from sekisho.inspect.worker import MAX_OBJECTS, MESSAGE_BYTES, Job, Object, Result, Trial

log = logging.getLogger(__name__)

START_TIMEOUT_S = 30.0
RESPAWN_S = 0.5
MAX_WAITING = 256
CANARY_S = 3.0
BIRTHS = 2
"""Workers that do not begin with a new set, before it is refused."""


@dataclass
class _Task:
    job: Job
    fd: int
    tries: int = 0
    objects: list[Object] = field(default_factory=list)
    """Those of a result that has come in part."""

    def close(self) -> None:
        if self.fd >= 0:
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
    trial: Trial | None = None
    tried: float = 0.0

    @property
    def free(self) -> bool:
        return self.ready and self.task is None


@dataclass
class Pool:
    """`size` workers, each with one job at a time; jobs wait in order."""

    size: int
    memory_mb: int
    rules: Path
    """The compiled rules of the set in force; changing it replaces the workers one by one."""
    fleet: int = -1
    """Descriptor of the fleet's bad files (fleet.Published), if there is such a list."""
    muted: tuple[str, ...] = ()
    """Names of rules whose matches count for nothing, from the next job on."""
    lost: int = 0
    submitted: int = 0
    loads: int = 0
    """Sets that were taken or refused so far."""
    refused: str = ""
    """The file that was refused since the last success, and why."""
    why: str = ""
    _workers: list[_Worker] = field(default_factory=list)
    _queue: deque[_Task] = field(default_factory=deque)
    _done: list[Result] = field(default_factory=list)
    _spawn_after: float = 0.0
    _good: Compiled | None = None
    """The last rules that every worker had, and found the canary with."""
    _unborn: int = 0
    _wanted: str = ""

    def fds(self) -> list[int]:
        """What to poll for results."""
        return [w.sock.fileno() for w in self._workers]

    @property
    def busy(self) -> int:
        return sum(w.task is not None for w in self._workers) + len(self._queue)

    @property
    def idle(self) -> bool:
        """Nothing to do, and every worker has the rules in force."""
        return not self.busy and len(self._workers) == self.size and all(w.rules == self._target for w in self._workers)

    @property
    def _target(self) -> str:
        """What workers are to have: what is wanted, unless that was refused."""
        wanted = str(self.rules)
        return self._good.path if self._good is not None and self.refused == wanted else wanted

    @property
    def good(self) -> Compiled | None:
        """What every worker has, or had until the change that goes on; None before the first."""
        return self._good

    def trials(self) -> list[tuple[Trial | None, float]]:
        """What the last trial showed, and when, of each worker that has the good rules."""
        good = self._good.path if self._good is not None else ""
        return [(w.trial, w.tried) for w in self._workers if w.ready and w.rules == good]

    @property
    def waiting(self) -> int:
        """Jobs that no worker has begun."""
        return len(self._queue)

    @property
    def ready(self) -> int:
        """Workers that can look at something now."""
        return sum(w.ready for w in self._workers)

    @property
    def proven(self) -> bool:
        """Every worker is there, has the rules in force and found its canary with them."""
        fit = [w for w in self._workers if w.ready and w.rules == self._target and w.trial and w.trial.caught]
        return len(fit) == len(self._workers) == self.size

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
            self._born(worker, message)
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
        if str(self.rules) != self._wanted:
            self._wanted, self._unborn = str(self.rules), 0
            gone_back = self._good is not None and self._good.path == self._wanted
            if gone_back or self.refused == self._wanted:  # or asked for again
                self.refused = self.why = ""
                self.loads += gone_back
        self._renew(now)
        self._feed()
        for worker in self._workers:
            if worker.free and now - worker.tried >= CANARY_S:
                worker.tried = now
                self._give(worker, _Task(Job(0, "canary", 0, timeout_s=2), -1, tries=1))

    def _renew(self, now: float) -> None:
        """Bring the workers to `size`, all with the same rules; a newcomer with others is one more for a while."""
        target = self._target
        old = [w for w in self._workers if w.rules != target]
        born = all(w.ready for w in self._workers)
        if len(self._workers) > self.size:
            spare = next((w for w in (old or self._workers) if w.free), None)
            if spare is not None and born:
                self._bury(spare, "")
        elif (len(self._workers) < self.size or (old and born)) and now >= self._spawn_after:
            self._spawn()
        if len(self._workers) == self.size and all(w.ready and w.rules == target for w in self._workers):
            self._settle(target)

    def _settle(self, target: str) -> None:
        if self._good is not None and self._good.path == target:
            return
        found = Compiled.open(target)
        if found is None:  # gone since the workers read it: something else is wanted soon
            return
        if self._good is not None:
            self._good.close()
        self._good = found
        self.loads += 1
        self.refused = self.why = ""

    def _born(self, worker: _Worker, message: bytes) -> None:
        """A worker's first message: what it has read, and whether it works."""
        worker.ready, worker.tried = True, time.monotonic()
        try:
            worker.trial = msgspec.msgpack.decode(message, type=Trial)
        except msgspec.MsgspecError:
            worker.trial = Trial(0)
        if self._good is None or worker.rules == self._good.path:
            return  # nothing better is there
        if not worker.trial.caught:
            self._refuse(worker.rules, "the scan workers do not find the canary file with it")
            self._bury(worker, "")
        elif worker.trial.sha256 not in ("", Compiled.said(worker.rules).yara_sha256 or worker.trial.sha256):
            self._refuse(worker.rules, "its compiled rules are damaged")
            self._bury(worker, "")

    def _refuse(self, path: str, why: str) -> None:
        self.refused, self.why = path, f"The YARA rules were refused: {why}."
        self.loads += 1
        log.error("%s %s", path, self.why)

    def close(self) -> None:
        for worker in self._workers:
            worker.sock.close()
            worker.process.kill()
            worker.process.wait()
        self._workers.clear()
        for task in self._queue:
            task.close()
        self._queue.clear()
        if self._good is not None:
            self._good.close()
            self._good = None

    def _spawn(self) -> None:
        target = self._target
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._spawn_after = time.monotonic() + RESPAWN_S
        try:
            rules_fd, known_fd = self._good.again() if self._good and self._good.path == target else opened(target)
        except OSError as err:
            log.error("no compiled YARA rules at %s: %s", target, err.strerror)
            ours.close()
            theirs.close()
            self._stillborn(target, f"they cannot be read: {err.strerror}")
            return
        fleet = self.fleet if self.fleet < 0 else os.dup(self.fleet)
        fds = [theirs.fileno(), rules_fd, fleet]
        if known_fd >= 0:
            fds.append(known_fd)
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
        self._workers.append(_Worker(process, ours, target, time.monotonic()))

    def _stillborn(self, path: str, why: str) -> None:
        """A worker did not begin with these rules; others go on with the last good ones."""
        if self._good is None or path == self._good.path or path != self._target:
            return
        self._unborn += 1
        if self._unborn >= BIRTHS:
            self._refuse(path, why)

    def _feed(self) -> None:
        target = self._target
        # What has the rules in force first: a rule that was withdrawn judges no more files than it must.
        for worker in sorted(self._workers, key=lambda w: w.rules != target):
            if not self._queue:
                return
            if worker.task is None and worker.ready:
                self._give(worker, self._queue.popleft())

    def _give(self, worker: _Worker, task: _Task) -> None:
        worker.task = task
        worker.deadline = time.monotonic() + task.job.timeout_s * 2 + 1
        task.job.muted = self.muted
        fds = array.array("i", [task.fd] if task.fd >= 0 else []).tobytes()
        try:
            worker.sock.sendmsg(
                [msgspec.msgpack.encode(task.job)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
            )
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
        result.outdated = worker.rules != self._target
        worker.task = None
        task.close()
        if task.job.what == "canary":
            self._tried(worker, result.trial or Trial(0))
        else:
            self._done.append(result)

    def _tried(self, worker: _Worker, trial: Trial) -> None:
        """A worker that no longer finds what it found before is replaced."""
        before, worker.trial, worker.tried = worker.trial, trial, time.monotonic()
        if before is not None and before.caught and not trial.caught:
            self._bury(worker, "canary_missed")

    def _bury(self, worker: _Worker, why: str) -> None:
        self._workers.remove(worker)
        worker.sock.close()
        worker.process.send_signal(signal.SIGKILL)
        worker.process.wait()
        task = worker.task
        if why:
            self.lost += 1
            log.warning("scan worker %d ended (%s) with status %s", worker.process.pid, why, worker.process.returncode)
        if why and not worker.ready:
            self._stillborn(worker.rules, f"the scan workers cannot begin with it ({why}): damaged, or out of memory")
        if task is None:
            return
        if why == "worker_lost" and task.tries == 0:
            task.tries, task.objects = 1, []
            self._queue.appendleft(task)
        else:
            task.close()
            if task.job.what != "canary":
                self._done.append(Result(task.job.id, error=why or "worker_lost"))
