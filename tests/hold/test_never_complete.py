"""A malicious file never arrives complete, its clean twin arrives bit for bit, and the centre is told the truth.

`SEKISHO_TRIES=200` (`make soak`) keeps the whole promise: 200 tries of every size, shape and place in the
connection. Without it the same ground is covered with fewer tries of each.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import os
from collections import Counter
from contextlib import ExitStack, closing

import pytest

from sekisho.center.store import Store
from sekisho.lab import office
from sekisho.lab.client import Ftp, Mail, Part, Post, Web, marked
from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4, SERVER6, SHAPES
from sekisho.lab.samples import EICAR, SIZES
from sekisho.telemetry.events import FileVerdict

SOAK = int(os.environ.get("SEKISHO_TRIES", "0"))
HOUR = 3600
pytestmark = [pytest.mark.lab, pytest.mark.timeout(4 * HOUR if SOAK else 90)]

SHAPES_ALL = ("identity", "chunked", "gzip", "gzip-chunked", "close")
HOSTS = (SERVER4, SERVER6)
DEFAULT_TRIES = {"1k": 20, "300k": 20, "20m": 2}
BATCH = {"1k": 100, "300k": 100, "20m": 5}
"""Mails, or pairs of files on the FTP server, at a time: they lie in memory."""
PLACES = {"first": 0, "third": 2}


def tries(size: str) -> int:
    """Of each shape and place; v4 and v6 take turns."""
    return SOAK or DEFAULT_TRIES[size]


class Account:
    """Compares what the client met with what the centre was told since the test began, by the client's port."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._began = dt.datetime.now(dt.UTC)
        self._seen = len(lab.events())
        self._verdicts: list[FileVerdict] = []

    def told(self, app: str) -> list[FileVerdict]:
        """Of this test's own time; what an earlier one left to come is none of it."""
        new = self._lab.events(self._seen)
        self._seen += len(new)
        self._verdicts += [
            row.event
            for row in new
            if isinstance(row.event, FileVerdict) and dt.datetime.fromisoformat(row.event.at) >= self._began
        ]
        return [event for event in self._verdicts if event.app == app]

    def check(self, app: str, bad: Counter[int], clean: Counter[int], *, more_clean: bool = False) -> None:
        """Every malicious file "blocked" once and in quarantine, every clean one "clean" once, and nothing else.

        `more_clean`: what follows a malicious attachment may have been looked at as well.
        """

        def heard() -> bool:
            outcomes = Counter(event.outcome for event in self.told(app))
            return outcomes["blocked"] >= bad.total() and outcomes.total() >= bad.total() + clean.total()

        self._lab.wait(heard, f"the centre has not heard of {bad.total()} stopped and {clean.total()} clean files", 30)
        met: dict[str, Counter[int]] = {"blocked": Counter(), "clean": Counter()}
        for event in self.told(app):
            port = event.flow.src_port if app == "smtp" else event.flow.dst_port
            assert event.outcome in met, event
            assert bool(event.quarantine) == (event.outcome == "blocked"), event
            met[event.outcome][port] += 1
        assert met["blocked"] == bad
        assert clean <= met["clean"], clean - met["clean"]
        assert more_clean or met["clean"] == clean


@pytest.fixture
def account(lab: Lab) -> Account:
    return Account(lab)


def sha(bad: bool, size: str, mark: str) -> str:
    return hashlib.sha256(marked(bad, SIZES[size], mark)).hexdigest()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shape", SHAPES_ALL)
@pytest.mark.parametrize("size", ["1k", "300k", "20m"])
def test_http(lab: Lab, account: Account, size: str, shape: str, place: str) -> None:
    before = "identity" if shape == "close" else shape
    tasks, marks = [], []
    for number in range(tries(size)):
        host = HOSTS[number % 2]
        mark = f"{size}.{shape}.{place}.{number:04}"
        paths = [f"/{before}/clean/{size}.bin?mark={mark}.{n}" for n in range(PLACES[place])]
        tasks.append(Web(host, SHAPES, [*paths, f"/{shape}/bad/{size}.bin?mark={mark}"]))
        marks.append(mark)
    bad: Counter[int] = Counter()
    clean: Counter[int] = Counter()
    for mark, done in zip(marks, office.perform(lab, tasks, 4 * HOUR if SOAK else 80), strict=True):
        *twins, last = done.got
        assert len(twins) == PLACES[place], (mark, done)
        for number, twin in enumerate(twins):
            assert (twin.end, twin.sha256) == ("whole", sha(False, size, f"{mark}.{number}")), (mark, number, twin)
            clean[twin.port] += 1
        assert not last.eicar and last.size < SIZES[size], (mark, last)
        assert last.end in ("reset", "short"), (mark, last)
        bad[last.port] += 1
    print(f"{size} {shape} {place}: {bad.total()} malicious stopped, {clean.total()} clean whole")
    account.check("http", bad, clean)


@pytest.mark.parametrize("shape", SHAPES_ALL)
@pytest.mark.parametrize("size", ["1k", "300k", "20m"])
def test_the_clean_twin_in_the_malicious_ones_place(lab: Lab, account: Account, size: str, shape: str) -> None:
    marks = [f"twin.{size}.{shape}.{number}" for number in range(max(1, tries(size) // 2))]
    tasks = [Web(HOSTS[n % 2], SHAPES, [f"/{shape}/clean/{size}.bin?mark={mark}"]) for n, mark in enumerate(marks)]
    ports: Counter[int] = Counter()
    for mark, done in zip(marks, office.perform(lab, tasks, HOUR if SOAK else 80), strict=True):
        (got,) = done.got
        assert (got.end, got.sha256) == ("whole", sha(False, size, mark)), (mark, got)
        ports[got.port] += 1
    account.check("http", Counter(), ports)


@pytest.mark.parametrize("size", ["1k", "300k", "20m"])
def test_mail(lab: Lab, account: Account, size: str) -> None:
    if size == "20m" and not SOAK:
        pytest.skip("an attachment of 20 MB is part of `make soak`")
    clean: list[Part] = [("clean", 1000), ("clean", SIZES[size])]
    bad: list[Part] = [("clean", 1000), ("bad", SIZES[size]), ("clean", 2000)]
    count = SOAK or 100
    refusals: Counter[int] = Counter()
    for first in range(0, count, BATCH[size]):
        numbers = range(first, min(count, first + BATCH[size]))
        before = {path.name for path in lab.lay.mail.iterdir()}
        tasks = [Mail(HOSTS[n % 2], [clean, bad], f"mail.{size}.{n}") for n in numbers]
        sent = []
        for number, done in zip(numbers, office.perform(lab, tasks, HOUR if SOAK else 80), strict=True):
            good, refused = done.got
            assert (good.end, good.answer) == ("whole", "250"), (number, good)
            assert refused.answer == "554", (number, refused)
            assert good.port == refused.port, "one connection carries both"
            sent.append(good.sha256)
            refusals[refused.port] += 1
        arrived = [path for path in lab.lay.mail.iterdir() if path.name not in before]
        assert sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in arrived) == sorted(sent)
        for path in arrived:
            path.unlink()
    account.check("smtp", refusals, Counter({port: 3 * times for port, times in refusals.items()}), more_clean=True)
    print(f"mail {size}: {count} infected refused, {count} clean delivered byte for byte")


@pytest.mark.parametrize("passive", [True, False], ids=["passive", "active"])
@pytest.mark.parametrize("size", ["1k", "300k", "20m"])
def test_ftp(lab: Lab, account: Account, size: str, passive: bool) -> None:
    count = SOAK or {"1k": 20, "300k": 20, "20m": 2}[size]
    bad: Counter[int] = Counter()
    clean: Counter[int] = Counter()
    for first in range(0, count, BATCH[size]):
        marks = [f"ftp.{passive}.{number:04}" for number in range(first, min(count, first + BATCH[size]))]
        tasks = [_offered(lab, size, mark, n, passive) for n, mark in enumerate(marks)]
        for mark, done in zip(marks, office.perform(lab, tasks, HOUR if SOAK else 80), strict=True):
            good, stopped = done.got
            assert (good.end, good.sha256) == ("whole", sha(False, size, mark)), good
            assert not stopped.eicar and stopped.size < SIZES[size] and stopped.end != "whole", stopped
            clean[good.port] += 1
            bad[stopped.port] += 1
    account.check("ftp-data", bad, clean)


def _offered(lab: Lab, size: str, mark: str, slot: int, passive: bool) -> Ftp:
    """Put a clean file and its twin on the FTP server, and the task to fetch both."""
    paths = []
    for bad in (False, True):
        file = lab.lay.www / f"{'bad' if bad else 'clean'}-{slot}.bin"
        file.write_bytes(marked(bad, SIZES[size], mark))
        paths.append(file.name)
    return Ftp(HOSTS[slot % 2], paths, passive)


@pytest.mark.parametrize("size", ["1k", "300k"])
def test_an_upload_of_a_malicious_file_is_stopped_too(lab: Lab, size: str) -> None:
    before = len(list(lab.lay.uploads.iterdir()))
    tasks = [Post(HOSTS[n % 2], SHAPES, "/upload", SIZES[size], bad=n % 4 > 1, mark=f"up.{n:03}") for n in range(40)]
    for task, done in zip(tasks, office.perform(lab, tasks), strict=True):
        (got,) = done.got
        assert (got.end == "whole") == (not task.bad), (task, got)
    assert len(list(lab.lay.uploads.iterdir())) - before == 20


def test_a_connection_from_the_same_port_after_a_cut_is_looked_at_too(lab: Lab, account: Account) -> None:
    """12 s later the kernel has forgotten the connection that was cut; the engine must have, too."""
    ports = range(61_000, 61_010)

    def visit(mark: str) -> list[Web]:
        return [
            Web(HOSTS[n % 2], SHAPES, [f"/identity/bad/300k.bin?mark={mark}.{n}"], from_port=port)
            for n, port in enumerate(ports)
        ]

    bad: Counter[int] = Counter()
    for mark in ("early", "late"):
        if bad:
            lab.wait(lambda: not conntracked(lab, ports), "the kernel has not forgotten the connections", 30)
        for done in office.perform(lab, visit(mark)):
            (got,) = done.got
            assert got.end in ("reset", "short") and not got.eicar and got.size < 300_000, got
            bad[got.port] += 1
    account.check("http", bad, Counter())


def conntracked(lab: Lab, ports: range) -> bool:
    """The box's kernel still knows a connection from one of these ports."""
    table = lab.run("box", ["cat", "/proc/net/nf_conntrack"]).stdout.decode()
    return any(f"sport={port} " in table for port in ports)


@pytest.mark.parametrize("host", [SERVER4, f"[{SERVER6}]"])
def test_a_real_client_is_left_with_less_and_told_so(lab: Lab, host: str) -> None:
    for shape in SHAPES_ALL:
        for name, promised in (("clean", {0}), ("bad", {18, 52, 56})):
            url = f"http://{host}:{SHAPES}/{shape}/{name}/300k.bin?mark=curl.{shape}"
            done = lab.run("lan", ["curl", "-gs", "--compressed", "--max-time", "20", url])
            assert done.returncode in promised, (shape, done.returncode)
            if name == "clean":
                assert hashlib.sha256(done.stdout).hexdigest() == sha(False, "300k", f"curl.{shape}")
            else:
                assert EICAR not in done.stdout and len(done.stdout) < 300_000


def test_many_at_once(lab: Lab, account: Account) -> None:
    """Eight computers, clean and malicious files side by side."""
    with ExitStack() as stack:
        busy = [
            stack.enter_context(
                office.Busy(
                    lab,
                    [
                        Web(HOSTS[n % 2], SHAPES, [f"/{shape}/{kind}/300k.bin?mark=many.{who}.{n}"])
                        for n, (shape, kind) in enumerate(itertools.product(SHAPES_ALL, ("clean", "bad")))
                    ],
                )
            )
            for who in range(8)
        ]
        bad: Counter[int] = Counter()
        clean: Counter[int] = Counter()
        for who, one in enumerate(busy):
            for number, done in enumerate(one.result()):
                (got,) = done.got
                if number % 2:
                    assert not got.eicar and got.size < 300_000 and got.end != "whole", got
                    bad[got.port] += 1
                else:
                    assert (got.end, got.sha256) == ("whole", sha(False, "300k", f"many.{who}.{number}")), got
                    clean[got.port] += 1
    account.check("http", bad, clean)


def test_the_centre_misses_nothing(lab: Lab) -> None:
    with closing(Store(lab.lay.center_store, read_only=True)) as store:
        assert store.missing() == []
        assert store.declared() == []
