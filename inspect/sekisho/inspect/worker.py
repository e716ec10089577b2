"""The scan worker: the only place where hostile bytes are interpreted.

A child of inspect with nothing but one socket: no network, no files, no new processes (seccomp
allow-list), bounded memory, another user where possible. It gets a file descriptor per job and answers
with the names of the rules that matched. It is expected to die on some inputs; the parent survives.

Started as `python -I -m sekisho.inspect.worker MEMORY_MB SOCKET_FD RULES_FD [KNOWN_FD]`.
"""

from __future__ import annotations

import array
import gc
import hashlib
import mmap
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from typing import Literal

import msgspec
import pyseccomp

from sekisho.inspect import mailbox
from sekisho.inspect.fleet import Listed
from sekisho.inspect.neutralise import Patch
from sekisho.inspect.scanner import Limits, Scanner
from sekisho.inspect.streams import http2, registry
from sekisho.inspect.streams.found import MAX_MEMO, Found

MAX_OBJECTS = 8192
"""In one look; every one of them is told. More are no stream that anybody sends: the look fails as damaged."""
AGAIN_BYTES = 4 << 20
_WORTH = (
    b"MZ", b"\x7fELF", b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"%PDF", b"{\\rtf", b"#!", b"Rar!", b"7z\xbc\xaf",
    b"\x1f\x8b", b"MSCF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"L\0\0\0", b"X5O!P%@A",
)  # fmt: skip
CANARY = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!" + b"$H+H*"
"""The test file that every scanner in the world must find; put together here, so that this file is not taken for it."""
MESSAGE_BYTES = 192 << 10
"""Of one message; a result that needs more comes in several."""


class Job(msgspec.Struct, omit_defaults=True):
    """What to look at: an extracted `file`, or one direction of a `stream`."""

    id: int
    what: Literal["file", "stream", "canary"]
    """"canary": nothing is sent along; the rules are tried on what they must find, without any memory of it."""
    length: int
    app: str = ""
    to_server: bool = False
    asked: bytes = b""
    """HTTP: the beginning of the newest request. Others: both directions' memos (streams.found.memos)."""
    timeout_s: int = 10
    limit: int = 64 << 20
    expanded: int = 128 << 20
    depth: int = 6
    files: int = 5000
    name: str = ""
    skip: int = 0
    """Bytes at the beginning of a `file` that are not known and not looked at."""
    mend: bool = False
    """Mails: plan what replaces what must not be seen."""
    delivered: int = 0
    """Mails: stream offset behind the last byte that the receiver may have."""
    blank: int = -1
    """Mails: where the one begins of which the rest becomes filler; -1 = none does."""
    refuse: list[str] = []
    """Mails: reasons that are not to be seen either."""
    at: str = ""
    """Mails: the time, as people read it."""
    full: int = 0
    """Mails: as much of the unfinished one was looked at whole; 0 = nothing."""
    looked: int = 0
    """Mails: as much was there at the last look."""
    left: int = 0
    """Mails: how much of the unfinished one was still to come at the last look; 0 = not known."""
    stalled: bool = False
    """Mails: its sender has stopped."""
    muted: tuple[str, ...] = ()
    """Rules whose matches count for nothing."""


class Object(msgspec.Struct, omit_defaults=True):
    """One object in a stream; see streams.found.Found."""

    sha256: str
    size: int
    complete: bool = True
    start: int = 0
    rules: list[str] = []
    inner: str = ""
    reason: str = ""
    name: str = ""
    url: str = ""
    host: str = ""
    mail_from: str = ""
    mail_to: tuple[str, ...] = ()
    mail_subject: str = ""
    body_at: int = 0
    ranged: tuple[int, int, int] | None = None
    content: int = 0
    """Bytes of it in the stream from `body_at` on."""
    end: int = 0
    reasons: list[str] = []
    """All there are; `reason` is the one to tell."""
    again: bool = False
    """A program or a document, worth another look when the rules change."""
    broken: bool = False
    """It says how long it is, and is not that long (yet)."""
    mail: bool = False
    """A mail, which can be mended where it lies."""
    blanked: bool = False
    """A mail whose outcome has been told; what has come of it since becomes filler."""
    patches: list[Patch] = []
    left: int = 0
    """Bytes of it still to come; 0 = none, or not known."""
    more: bool = False
    """What is still to come of this mail must become filler."""
    taken: tuple[int, int] = (0, 0)
    """Where the original of what decided lies in the stream."""


class Trial(msgspec.Struct, omit_defaults=True, frozen=True):
    """What a worker's rules are, and whether they work. The first message of every worker is its first one."""

    loaded: int
    """Rules, the muted ones among them."""
    muted: int = 0
    caught: bool = False
    """The canary was recognised, and what is harmless was not."""
    sha256: str = ""
    """Of the compiled rules it read; in the first message only."""


class Result(msgspec.Struct, omit_defaults=True):
    """What was found. `error` is empty, "timeout" or "damaged"."""

    id: int
    objects: list[Object] = []
    error: str = ""
    end: int = 0
    """Spool offset at which the unfinished object ends by its own declaration; 0 = not declared."""
    finished: int = 0
    """Spool offset before which every object is complete."""
    app: str = ""
    """The protocol this direction has turned out to speak; empty = as asked."""
    opaque: bool = False
    """Nothing more can be read in this stream."""
    memo: bytes = b""
    """What the next look must know; empty = nothing new."""
    passes: int = 0
    """Not looked at whole this time: nothing has ended in the mail, and so many bytes of it may go on."""
    scan_ms: float = 0.0
    goes_on: bool = False
    """The rest of this result follows in another message."""
    outdated: bool = False
    """Set by the pool: the worker had other rules than those in force."""
    trial: Trial | None = None
    """Of a canary."""


_encoder = msgspec.msgpack.Encoder()


def _may_pass(job: Job, data: memoryview) -> tuple[int, int]:
    """(how much of a long object may go on before all of it is looked at again, 0 = look now; where one may end)."""
    if job.app == "http2":
        return http2.may_pass(data, memoryview(job.asked), full=job.full, looked=job.looked, limit=job.limit)
    passes = mailbox.may_pass(data, app=job.app, full=job.full, looked=job.looked, left=job.left, stalled=job.stalled)
    return passes, 0


class Worker:
    """Splits a stream and looks at every form of every object in it."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner

    def trial(self, sha256: str = "") -> Trial:
        """Try the rules on what they must find; again, should the machine have stood still for a second."""
        scanner = self._scanner
        caught = scanner.catches(CANARY) or scanner.catches(CANARY)
        return Trial(scanner.loaded, scanner.muted, caught, sha256)

    def run(self, job: Job, data: memoryview) -> Result:
        """Look at `data` as the job says. Never raises on content: what goes wrong is the result's `error`."""
        began = time.monotonic()
        result = Result(job.id)
        self._scanner.mute(job.muted)
        if job.what == "canary":
            result.trial = self.trial()
            return result
        limits = Limits(began + job.timeout_s, job.expanded, job.depth, job.files)
        try:
            if job.what == "file":
                data = data[job.skip :]
                finding = self._scanner.look(data, name=job.name, limits=limits)
                seen = Object(
                    finding.sha256, len(data), rules=finding.rules, inner=finding.inner, reason=finding.reason
                )
                result.objects.append(seen)
            else:
                self._stream(job, data, limits, result)
        except TimeoutError:
            result.error = "timeout"
        except (MemoryError, ValueError, RecursionError, OverflowError):
            result.error = "damaged"
        result.scan_ms = (time.monotonic() - began) * 1000
        return result

    def _stream(self, job: Job, data: memoryview, limits: Limits, result: Result) -> None:
        if job.full:
            result.passes, result.end = _may_pass(job, data)
            if result.passes:
                return
        split = registry.splitter(job.app, to_server=job.to_server)
        for found in split(data, memoryview(job.asked), limit=job.limit):
            result.end = found.expected
            result.opaque |= found.opaque
            result.app = found.becomes or result.app
            result.passes = found.passes or result.passes
            if 0 < len(found.memo) <= MAX_MEMO:
                result.memo = found.memo
            if found.complete:
                result.finished = max(result.finished, found.end)
            seen = self._mail(found, job, limits) if found.letter else self._object(found, job, limits)
            if len(result.objects) == MAX_OBJECTS and not seen.rules:
                result.error = "damaged"
                return
            result.objects.append(seen)
            if seen.rules and not seen.mail:
                return

    def _mail(self, found: Found, job: Job, limits: Limits) -> Object:
        blanked = job.blank == found.start
        if blanked and found.letter is not None:
            told = mailbox.rest(found.letter, job.delivered)
        else:
            told = mailbox.judge(
                found, lambda data, name: self._scanner.look(data, name=name[-128:], limits=limits),
                delivered=job.delivered, refuse=job.refuse, mend=job.mend, at=job.at,
            )  # fmt: skip
        return Object(
            mailbox.digest(told.content), len(told.content), found.complete, found.start,
            told.rules, told.inner, told.reason, told.name[:256],
            mail_from=found.mail_from[:256], mail_subject=found.mail_subject[:256],
            mail=True, left=found.letter.left if found.letter else 0, blanked=blanked,
            patches=told.patches, more=told.more, taken=told.taken,
        )  # fmt: skip

    def _object(self, found: Found, job: Job, limits: Limits) -> Object:
        first = found.parts[0] if found.parts else b""
        seen = Object(
            "", len(first), found.complete, found.start,
            name=found.name[:256], url=found.url[:2048], host=found.host[:256],
            mail_from=found.mail_from[:256], mail_to=tuple(to[:256] for to in found.mail_to[:16]),
            mail_subject=found.mail_subject[:256], body_at=found.body_at, ranged=found.ranged,
            content=len(found.parts[-1]) if found.body_at and found.parts else 0,
            broken=bool(found.expected and found.body_at), end=found.end,
            again=len(first) <= AGAIN_BYTES and bytes(first[:8]).startswith(_WORTH),
        )  # fmt: skip
        for part in found.parts:
            finding = self._scanner.look(part, name=found.name[-128:] or job.name, limits=limits)
            seen.sha256 = seen.sha256 or finding.sha256
            seen.reason = seen.reason or finding.reason
            seen.reasons += [reason for reason in finding.reasons if reason not in seen.reasons]
            if finding.rules:
                seen.rules, seen.inner, seen.reason = finding.rules, finding.inner, ""
                return seen
        if found.trouble:
            seen.reason = "unparsable"
        return seen


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


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """(message, file descriptors); an empty message when the parent is gone."""
    fds = array.array("i")
    message, ancillary, _, _ = sock.recvmsg(MESSAGE_BYTES, socket.CMSG_LEN(fds.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return message, list(fds)


class Mapped:
    """At most `length` bytes of a file, read-only, as a context manager; closes the descriptor."""

    def __init__(self, fd: int, length: int) -> None:
        size = min(length, os.fstat(fd).st_size)
        self._view = mmap.mmap(fd, size, prot=mmap.PROT_READ) if size else None
        self._bytes = memoryview(self._view if self._view is not None else b"")
        os.close(fd)

    def __enter__(self) -> memoryview:
        return self._bytes

    def __exit__(self, *_: object) -> None:
        if self._view is None:
            return
        try:
            self._bytes.release()
            self._view.close()
        except BufferError:  # a library's cycle still points into it: the collector unmaps it
            gc.collect()


def messages(result: Result) -> Iterator[bytes]:
    """The result as messages of at most MESSAGE_BYTES, in order."""
    whole = _encoder.encode(result)
    if len(whole) <= MESSAGE_BYTES:
        yield whole
    elif len(result.objects) > 1:
        half = len(result.objects) // 2
        yield from messages(Result(result.id, result.objects[:half], goes_on=True))
        yield from messages(msgspec.structs.replace(result, objects=result.objects[half:]))
    else:
        yield _encoder.encode(Result(result.id, error="damaged"))


def serve(sock: socket.socket, worker: Worker) -> None:
    """Answer jobs until the parent closes the socket."""
    decoder = msgspec.msgpack.Decoder(Job)
    while True:
        message, fds = _receive(sock)
        if not message:
            return
        job = decoder.decode(message)
        if fds:
            with Mapped(fds[0], job.length) as data:
                result = worker.run(job, data)
        else:
            result = worker.run(job, memoryview(b""))
        for message in messages(result):
            sock.send(message)


def warm(worker: Worker) -> None:
    """Imports and allocations that must happen before the door closes."""
    for app in registry.APPS:
        for to_server in (False, True):
            job = Job(0, "stream", 64, app=app, to_server=to_server, timeout_s=1)
            worker.run(job, memoryview(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nx"))


def main(argv: list[str]) -> int:
    sock = socket.socket(fileno=int(argv[1]))
    fleet = Listed(int(argv[3])) if int(argv[3]) >= 0 else None
    known = mmap.mmap(int(argv[4]), 0, prot=mmap.PROT_READ) if argv[4:] and os.fstat(int(argv[4])).st_size else b""
    # What the rules need counts too: a set that does not fit must fail here, not in the middle of a file.
    resource.setrlimit(resource.RLIMIT_AS, (int(argv[0]) << 20, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with os.fdopen(int(argv[2]), "rb") as source:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
        source.seek(0)
        scanner = Scanner(source, known, fleet)
    worker = Worker(scanner)
    warm(worker)  # imports and allocations before the door closes
    gc.collect()
    gc.freeze()  # what lives as long as the worker need not be walked each time something is collected
    confine(int(argv[0]))
    sock.send(_encoder.encode(worker.trial(sha256)))
    serve(sock, worker)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
