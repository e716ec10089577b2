"""The scan worker: the only place where hostile bytes are interpreted.

A child of inspect with nothing but one socket: no network, no files, no new processes (seccomp
allow-list), bounded memory, another user where possible. It gets a file descriptor per job and answers
with the names of the rules that matched. It is expected to die on some inputs; the parent survives.

Started as `python -I -m sekisho.inspect.worker SOCKET_FD RULES_FD MEMORY_MB`.
"""

from __future__ import annotations

import array
import hashlib
import mmap
import os
import resource
import socket
import sys
import time
from typing import Literal

import msgspec
import pyseccomp
import yara

from sekisho.inspect import framing

MAX_RULES = 16
MESSAGE_BYTES = 64 << 10


class Job(msgspec.Struct, omit_defaults=True):
    """What to look at: an extracted `file`, a raw response `stream`, or only the stream's `frame`."""

    id: int
    what: Literal["file", "stream", "frame"]
    length: int
    http: bool = False
    timeout_s: int = 10
    limit: int = 64 << 20
    name: str = ""


class Object(msgspec.Struct, omit_defaults=True):
    """One object in a stream."""

    sha256: str
    size: int
    complete: bool = True


class Result(msgspec.Struct, omit_defaults=True):
    """What was found. `error` is empty, "timeout" or "damaged"."""

    id: int
    rules: list[str] = []
    error: str = ""
    end: int = 0
    finished: int = 0
    sha256: str = ""
    size: int = 0
    objects: list[Object] = []
    scan_ms: float = 0.0


class Scanner:
    """YARA over the forms a receiver could see."""

    def __init__(self, rules: yara.Rules) -> None:
        self._rules = rules

    def run(self, job: Job, data: memoryview) -> Result:
        """Look at `data` as the job says. Never raises on content: what goes wrong is the result's `error`."""
        began = time.monotonic()
        result = Result(job.id)
        try:
            if job.what == "frame":
                result.end = framing.expected_end(data, http=job.http)
            elif job.what == "file":
                result.rules = self._match(data, job)
            else:
                self._stream(data, job, result)
        except yara.TimeoutError:
            result.error = "timeout"
        except (yara.Error, MemoryError, ValueError, RecursionError):
            result.error = "damaged"
        result.scan_ms = (time.monotonic() - began) * 1000
        return result

    def _stream(self, data: memoryview, job: Job, result: Result) -> None:
        for found in framing.objects(data, http=job.http, limit=job.limit):
            rules = self._match(found.body, job)
            if not rules and found.body is not found.raw:
                rules = self._match(found.raw, job)
            if rules or len(found.body):
                seen = Object(hashlib.sha256(found.body).hexdigest(), len(found.body), found.complete)
                if rules:
                    result.rules, result.sha256, result.size = rules, seen.sha256, seen.size
                    return
                if len(result.objects) < MAX_RULES:
                    result.objects.append(seen)
            if found.complete:
                result.finished = found.end
            else:
                result.end = found.end

    def _match(self, data: bytes | memoryview, job: Job) -> list[str]:
        if not len(data):
            return []
        externals = {"filename": job.name, "filepath": "", "extension": job.name.rpartition(".")[2].lower()}
        matches = self._rules.match(data=data, timeout=max(1, job.timeout_s), externals=externals)
        return [m.rule for m in matches if "private" not in m.tags][:MAX_RULES]


_ALLOWED = (
    "read readv recvmsg recvfrom sendmsg sendto write poll ppoll mmap munmap mremap mprotect madvise brk close "
    "fstat newfstatat lseek futex exit exit_group rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack "
    "clock_gettime clock_nanosleep nanosleep gettimeofday getrandom getpid gettid sched_yield dup fcntl tgkill"
).split()


def confine(memory_mb: int) -> None:
    """Give up everything a scan does not need; irreversible.

    Raises:
        OSError: the kernel refused; the worker must not look at anything then.

    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ERRNO(1))
    for name in _ALLOWED:
        try:
            rules.add_rule(pyseccomp.ALLOW, name)
        except (OSError, ValueError):
            continue  # a call this architecture does not have
    rules.load()


def _receive(sock: socket.socket) -> tuple[bytes, int]:
    """(message, file descriptor); an empty message when the parent is gone."""
    fds = array.array("i")
    message, ancillary, _, _ = sock.recvmsg(MESSAGE_BYTES, socket.CMSG_LEN(fds.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: fds.itemsize])
    return message, fds[0] if fds else -1


def serve(sock: socket.socket, scanner: Scanner) -> None:
    """Answer jobs until the parent closes the socket."""
    decoder, encoder = msgspec.msgpack.Decoder(Job), msgspec.msgpack.Encoder()
    while True:
        message, fd = _receive(sock)
        if not message:
            return
        job = decoder.decode(message)
        size = min(job.length, os.fstat(fd).st_size)
        if size:
            with mmap.mmap(fd, size, prot=mmap.PROT_READ) as view:
                data = memoryview(view)
                result = scanner.run(job, data)
                data.release()
        else:
            result = Result(job.id)
        os.close(fd)
        sock.send(encoder.encode(result))


def main(argv: list[str]) -> int:
    sock = socket.socket(fileno=int(argv[0]))
    with os.fdopen(int(argv[1]), "rb") as source:
        rules = yara.load(file=source)
    scanner = Scanner(rules)
    warm = memoryview(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nx")
    scanner.run(
        Job(0, "stream", len(warm), http=True, timeout_s=1), warm
    )  # imports and allocations before the door closes
    confine(int(argv[2]))
    sock.send(b"ready")
    serve(sock, scanner)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
