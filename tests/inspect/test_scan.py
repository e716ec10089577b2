"""Real scan workers: what they find, what they may do, how their deaths end."""

from __future__ import annotations

import gc
import gzip
import hashlib
import os
import random
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import yara

from sekisho.inspect import scan
from sekisho.inspect.scan import MAX_WAITING, Pool
from sekisho.inspect.scanner import Scanner
from sekisho.inspect.streams import registry
from sekisho.inspect.worker import MESSAGE_BYTES, Job, Mapped, Object, Result, Worker, messages

EICAR = b"X5O!P%@AP" + rb"[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
RULES = 'rule Eicar { strings: $a = "EICAR-STANDARD-ANTIVIRUS-TEST-FILE" condition: $a }'
SLOW = "rule Slow { condition: for all i in (0..100000000) : (uint8(i % 10) != 0x41 or filesize > 0) }"
WAIT_S = 40.0


def rules_of(result: Result) -> list[str]:
    """What was found, in whichever object."""
    return [rule for seen in result.objects for rule in seen.rules]


def compiled(target: Path, *sources: str) -> Path:
    externals = {"filename": "", "filepath": "", "extension": ""}
    yara.compile(source="\n".join(sources), externals=externals).save(str(target))
    return target


class Bench:
    """A pool and the loop that drives it."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.results: dict[int, Result] = {}

    def until(self, fact: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not fact():
            assert time.monotonic() < deadline, "it did not come about"
            self.pool.tick()
            with selectors.DefaultSelector() as selector:
                for fd in self.pool.fds():
                    selector.register(fd, selectors.EVENT_READ)
                for key, _ in selector.select(0.05):
                    self.pool.handle(key.fd)
            for result in self.pool.results():
                assert result.id not in self.results, "a job was answered twice"
                self.results[result.id] = result

    def submit(self, ident: int, data: bytes, what: str = "file", **more: object) -> None:
        fd = os.memfd_create("job")
        os.write(fd, data)
        job = {"id": ident, "what": what, "length": len(data)} | more
        self.pool.submit(Job(**job), fd)  # type: ignore[arg-type]  # the test's own values

    def ask(self, ident: int, data: bytes, what: str = "file", **more: object) -> Result:
        self.submit(ident, data, what, **more)
        self.until(lambda: ident in self.results)
        return self.results[ident]


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("rules") / "rules", RULES)


@pytest.fixture
def bench(rules: Path) -> Iterator[Bench]:
    pool = Pool(1, 512, rules)
    try:
        bench = Bench(pool)
        bench.until(lambda: pool.ready == 1)
        yield bench
    finally:
        pool.close()


def test_it_finds_in_every_form_a_receiver_could_see(bench: Bench) -> None:
    assert rules_of(bench.ask(1, EICAR)) == ["Eicar"]
    assert rules_of(bench.ask(2, b"clean")) == []
    assert rules_of(bench.ask(3, b"")) == []
    packed = gzip.compress(EICAR)
    body = b"".join(b"%x\r\n%b\r\n" % (len(packed[i : i + 9]), packed[i : i + 9]) for i in range(0, len(packed), 9))
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-encoding: gzip\r\n\r\n"
    asked = b"GET /a.exe HTTP/1.1\r\nHost: files.example\r\n\r\n"
    result = bench.ask(4, head + body + b"0\r\n\r\n", "stream", app="http", asked=asked)
    (seen,) = result.objects
    assert (seen.rules, seen.size, seen.complete, seen.reason) == (["Eicar"], len(EICAR), True, "")
    assert (seen.sha256, seen.name, seen.host) == (hashlib.sha256(EICAR).hexdigest(), "a.exe", "files.example")
    clean = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    part = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhe"
    result = bench.ask(5, clean + part, "stream", app="http")
    assert (rules_of(result), result.finished, result.end) == ([], len(clean), len(clean) + len(part) + 7)
    assert [(o.size, o.complete, o.start) for o in result.objects] == [(5, True, 0), (2, False, len(clean))]


def test_an_upload_is_looked_at_in_every_member(bench: Bench) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.com"\r\n\r\n' + EICAR + b"\r\n--b--\r\n"
    head = b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % len(form) + form
    result = bench.ask(1, whole, "stream", app="http", to_server=True)
    assert [(o.rules, o.name) for o in result.objects] == [(["Eicar"], "x.com")]


def test_what_has_two_readings_says_so_and_is_still_looked_at(bench: Bench) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 9000\r\n\r\n"
    (doubted,) = bench.ask(1, head + b"clean", "stream", app="http").objects
    assert (doubted.reason, doubted.complete, doubted.rules) == ("unparsable", False, [])
    (found,) = bench.ask(2, head + EICAR, "stream", app="http").objects
    assert (found.rules, found.reason) == (["Eicar"], "")
    packed = b"HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n" + gzip.compress(EICAR)
    assert rules_of(bench.ask(3, packed, "stream", app="http")) == ["Eicar"]


def test_the_answer_to_head_has_no_body_and_a_stream_of_nobody_is_one_object(bench: Bench) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n"
    result = bench.ask(1, head, "stream", app="http", asked=b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (result.finished, result.end) == (len(head), 0)
    for ident, app in enumerate(("ftp-data", "", "nobody knows"), 2):
        (seen,) = bench.ask(ident, b"x" + EICAR, "stream", app=app).objects
        assert (seen.rules, seen.complete, seen.size) == (["Eicar"], False, len(EICAR) + 1)


def test_of_many_objects_the_bad_one_is_told(bench: Bench) -> None:
    clean = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx" * 94
    bad = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(EICAR) + EICAR
    result = bench.ask(1, clean + bad, "stream", app="http")
    assert len(result.objects) == 95
    assert (result.objects[-1].rules, result.finished) == (["Eicar"], len(clean + bad))


def test_every_object_of_one_look_is_told_also_when_they_fill_many_messages(bench: Bench) -> None:
    head = b'HTTP/1.1 200 OK\r\ncontent-disposition: attachment; filename="%d-%s"\r\ncontent-length: 4\r\n\r\n%04d'
    clean = b"".join(head % (number, b"n" * 240, number) for number in range(1000))
    result = bench.ask(1, clean, "stream", app="http")
    assert (len(msgspec.msgpack.encode(result)) > MESSAGE_BYTES, result.error, result.finished) == (
        True,
        "",
        len(clean),
    )
    assert [seen.name.partition("-")[0] for seen in result.objects] == [str(number) for number in range(1000)]
    assert len({seen.sha256 for seen in result.objects}) == 1000
    assert rules_of(bench.ask(2, b"x" + EICAR, "stream")) == ["Eicar"], "the same worker goes on"


def test_more_than_can_be_told_is_damage_and_one_too_large_to_tell_as_well() -> None:
    many = Result(1, [Object("", 1, name="n" * 256) for _ in range(3000)], finished=9)
    parts = [msgspec.msgpack.decode(message, type=Result) for message in messages(many)]
    assert sum(len(part.objects) for part in parts) == 3000
    assert [part.goes_on for part in parts] == [True] * (len(parts) - 1) + [False] and parts[-1].finished == 9
    (told,) = messages(Result(1, [Object("", 1, name="n" * MESSAGE_BYTES)]))
    assert msgspec.msgpack.decode(told, type=Result).error == "damaged"


def test_any_bytes_of_any_protocol_are_answered(bench: Bench) -> None:
    rng = random.Random(7)
    tokens = [
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n",
        b"+OK\r\n",
        b"* 1 FETCH (BODY[] {9}\r\n",
        b"DATA\r\n",
        b".\r\n",
        b"\0\xff",
    ]
    for number, app in enumerate((*registry.APPS, "smb", "http2", "http2-ws") * 6):
        data = b"".join(rng.choice([*tokens, rng.randbytes(9)]) for _ in range(20))
        result = bench.ask(number + 1, data, "stream", app=app, to_server=number % 2 == 0)
        assert result.error in ("", "damaged")
        assert result.finished <= len(data)
    assert bench.pool.lost == 0


def test_a_job_longer_than_its_file_is_cut_to_it(bench: Bench) -> None:
    assert rules_of(bench.ask(1, EICAR, length=1 << 30)) == ["Eicar"]


def test_a_killed_workers_job_is_tried_once_more(bench: Bench) -> None:
    (pid,) = bench.pool.pids()
    os.kill(pid, signal.SIGSTOP)
    bench.submit(1, EICAR)
    os.kill(pid, signal.SIGKILL)
    bench.until(lambda: 1 in bench.results)
    assert rules_of(bench.results[1]) == ["Eicar"]
    assert bench.pool.lost == 1
    assert bench.pool.pids() != [pid]


def test_a_job_that_kills_two_workers_is_given_up(bench: Bench) -> None:
    (first,) = bench.pool.pids()
    os.kill(first, signal.SIGSTOP)
    bench.submit(1, EICAR)
    os.kill(first, signal.SIGKILL)
    bench.until(lambda: bool(bench.pool.pids()) and bench.pool.pids() != [first])
    (second,) = bench.pool.pids()
    os.kill(second, signal.SIGKILL)
    bench.until(lambda: 1 in bench.results or bench.pool.ready == 1)
    if 1 not in bench.results:
        bench.until(lambda: 1 in bench.results)
        assert rules_of(bench.results[1]) == ["Eicar"], "the second had not taken it yet"
    assert rules_of(bench.ask(2, EICAR)) == ["Eicar"]


def test_without_workers_jobs_do_not_pile_up(tmp_path: Path) -> None:
    """Rules that cannot be loaded: the queue is bounded, its descriptors too, and every job is answered."""
    pool = Pool(1, 512, tmp_path / "absent")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for ident in range(MAX_WAITING + 40):
        pool.submit(Job(ident, "file", 0), os.memfd_create("job"))
    assert [(r.id, r.error) for r in pool.results()] == [(MAX_WAITING + n, "worker_lost") for n in range(40)]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + MAX_WAITING
    pool.close()


def test_a_stuck_worker_is_killed_at_its_deadline(bench: Bench) -> None:
    (pid,) = bench.pool.pids()
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    bench.submit(1, EICAR, timeout_s=1)
    bench.until(lambda: 1 in bench.results)
    assert bench.results[1].error == "timeout"
    assert 2 < time.monotonic() - began < 6
    assert rules_of(bench.ask(2, EICAR)) == ["Eicar"]


def test_a_slow_rule_times_out_and_the_worker_lives(tmp_path: Path) -> None:
    pool = Pool(1, 512, compiled(tmp_path / "slow", SLOW))
    try:
        bench = Bench(pool)
        bench.until(lambda: pool.ready == 1)
        (pid,) = pool.pids()
        assert [seen.reason for seen in bench.ask(1, b"x" * 100, timeout_s=1).objects] == ["timeout"]
        assert pool.pids() == [pid]
    finally:
        pool.close()


def test_new_rules_replace_the_workers_and_no_job_is_lost(bench: Bench, tmp_path: Path) -> None:
    bench.pool.size = 2
    bench.until(lambda: bench.pool.ready == 2)
    before = set(bench.pool.pids())
    bench.pool.rules = compiled(tmp_path / "new", RULES.replace("Eicar ", "Eicar2 "))
    for ident in range(1, 41):
        bench.submit(ident, EICAR)
        bench.until(lambda ident=ident: len(bench.results) >= ident - 4)  # type: ignore[misc]  # bound now
    bench.until(lambda: len(bench.results) == 40)
    bench.until(lambda: bench.pool.ready == 2 and not before & set(bench.pool.pids()))
    assert {r.error for r in bench.results.values()} == {""}
    assert rules_of(bench.ask(100, EICAR)) == ["Eicar2"]
    assert bench.pool.lost == 0


def test_a_worker_with_the_new_rules_is_asked_first(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that was withdrawn does not judge on while one worker after the other is replaced."""
    monkeypatch.setattr(scan, "CANARY_S", 60.0)  # with which the new one may be busy when a file comes
    bench.pool.size = 2
    bench.until(lambda: bench.pool.ready == 2)
    before = set(bench.pool.pids())
    bench.pool.rules = compiled(tmp_path / "new", RULES.replace("Eicar ", "Eicar2 "))
    bench.until(lambda: bench.pool.ready == 3)
    ident = 0
    while before & set(bench.pool.pids()):
        ident += 1
        assert rules_of(bench.ask(ident, EICAR)) == ["Eicar2"]
        bench.pool.tick()
    assert ident, "there was a while with both"


def test_memory_beyond_the_limit_is_an_outcome_of_the_file(rules: Path) -> None:
    pool = Pool(1, 160, rules)
    try:
        bench = Bench(pool)
        bench.until(lambda: pool.ready == 1)
        bomb = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(bytes(400 << 20), 1)
        assert bench.ask(1, bomb, "stream", app="http", limit=1 << 30).error in ("damaged", "worker_lost")
        assert rules_of(bench.ask(2, EICAR)) == ["Eicar"]
    finally:
        pool.close()


TRIES = """
import os, resource, socket, sys
from sekisho.inspect import worker
worker.confine(512)
def refused(what):
    try:
        what()
    except OSError as err:
        return err.errno == 1
    return False
tries = {
    "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "unix": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    "fork": os.fork,
    "execve": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getppid(), 0),
    "unlink": lambda: os.unlink("/tmp/none"),
    "setuid": lambda: os.setuid(0),
    "ptrace": lambda: os.listdir("/proc"),
}
wrong = [name for name, what in tries.items() if not refused(what)]
try:
    held = bytearray(600 << 20)
    wrong.append("memory")
except MemoryError:
    pass
os.write(1, (" ".join(wrong) or "sealed").encode())
os._exit(0)
"""


def test_a_confined_process_can_do_nothing_but_think() -> None:
    done = subprocess.run([sys.executable, "-I", "-c", TRIES], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("sealed", "")
    assert done.returncode == 0


def test_a_confined_root_is_nobody() -> None:
    code = "from sekisho.inspect import worker\nimport os\nworker.confine(512)\nos._exit(os.geteuid() == 0)"
    assert subprocess.run([sys.executable, "-I", "-c", code], check=False).returncode == 0


def test_an_ordinary_look_collects_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full collection takes longer than a look at a small page."""
    with compiled(tmp_path / "rules", RULES).open("rb") as source:
        worker = Worker(Scanner(source))
    monkeypatch.setattr(gc, "collect", lambda: pytest.fail("the view was still in use"))
    fd = os.memfd_create("page")
    os.write(fd, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
    with Mapped(fd, 64) as data:
        result = worker.run(Job(1, "stream", 64, app="http"), data)
    assert result.finished
