"""Which YARA rules the scan workers work with, said only of what they tried: loads, refusals, muting, a lost set."""

from __future__ import annotations

import hashlib
import os
import selectors
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import yara

from sekisho.appliance.core import standing
from sekisho.appliance.core.settings import Settings, parse
from sekisho.appliance.core.standing import Standing
from sekisho.inspect.scan import Pool
from sekisho.inspect.scanner import Scanner
from sekisho.inspect.telling import Telling
from sekisho.inspect.worker import CANARY, Job, Result, Worker

TEST_FILE = 'rule sekisho_eicar { strings: $a = "EICAR-STANDARD-ANTIVIRUS-TEST-FILE" condition: $a }'
WORM = 'rule Worm { strings: $a = "SK-WORM" condition: $a }'
EVERYTHING = "rule Everything { condition: true }"
WAIT_S = 40.0


class Scan:
    """A pool, what it says, and the loop that drives both."""

    def __init__(self, directory: Path, workers: int = 2) -> None:
        self.directory = directory
        self.settings: Settings = parse(f'box="a"\n[paths]\nrun="{directory}/run"\nstate="{directory}/state"')
        self.pool = Pool(workers, 512, self.set("one", TEST_FILE))
        self.telling = Telling(self.settings, self.pool)
        self.results: dict[int, Result] = {}
        self.jobs = 0

    def set(self, name: str, *sources: str, damage: bool = False) -> Path:
        home = self.directory / "sets" / name
        home.mkdir(parents=True)
        path = home / "yara.compiled"
        externals = {"filename": "", "filepath": "", "extension": ""}
        yara.compile(source="\n".join(sources), externals=externals).save(str(path))
        said = {"id": name, "yara_rules": len(sources), "yara_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        (home / "set.json").write_bytes(msgspec.json.encode(said))
        if damage:
            data = bytearray(path.read_bytes())
            data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
            path.write_bytes(data)
        return path

    def turn(self) -> None:
        self.pool.tick()
        self.telling.turn()
        with selectors.DefaultSelector() as selector:
            for fd in self.pool.fds():
                selector.register(fd, selectors.EVENT_READ)
            for key, _ in selector.select(0.05):
                self.pool.handle(key.fd)
        for result in self.pool.results():
            assert result.id not in self.results, "a job was answered twice"
            self.results[result.id] = result

    def until(self, fact: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not fact():
            assert time.monotonic() < deadline, f"it did not come about: {self.said()}"
            self.turn()

    def said(self) -> Standing:
        return standing.try_read(self.settings, "scanner") or Standing(at=0.0)

    def proven(self, name: str) -> bool:
        said = self.said()
        return said.proven and said.set_id == name

    def submit(self, data: bytes) -> int:
        self.jobs += 1
        fd = os.memfd_create("job")
        os.write(fd, data)
        self.pool.submit(Job(self.jobs, "file", len(data)), fd)
        return self.jobs

    def look(self, data: bytes) -> list[str]:
        job = self.submit(data)
        self.until(lambda: job in self.results)
        assert self.results[job].error == ""
        return [rule for seen in self.results[job].objects for rule in seen.rules]


@pytest.fixture
def scan(tmp_path: Path) -> Iterator[Scan]:
    scan = Scan(tmp_path)
    try:
        scan.until(lambda: scan.proven("one"))
        yield scan
    finally:
        scan.pool.close()


def test_a_new_set_is_in_force_when_every_worker_has_found_the_canary_with_it_and_no_file_is_lost(scan: Scan) -> None:
    first = scan.said()
    assert (first.rules, first.expected, first.loads, first.refused) == (1, 1, 1, "")
    jobs = [scan.submit(b"SK-WORM %d" % n) for n in range(30)]
    before = set(scan.pool.pids())
    scan.pool.rules = scan.set("two", TEST_FILE, WORM)
    least = 9

    def changed() -> bool:
        nonlocal least
        least = min(least, scan.pool.ready)
        return scan.proven("two")

    scan.until(changed)
    scan.until(lambda: all(job in scan.results for job in jobs))
    assert least == 2, "a newcomer is ready before an old worker goes"
    assert not before & set(scan.pool.pids()) and scan.pool.lost == 0
    assert all(scan.results[job].error == "" for job in jobs)
    said = scan.said()
    assert (said.rules, said.expected, said.loads, said.canary) == (2, 2, 2, "caught")
    assert scan.look(b"SK-WORM") == ["Worm"]


@pytest.mark.parametrize("trouble", ["damaged", "absent", "blind", "barks at everything", "no compiled rules"])
def test_a_set_no_worker_can_work_with_is_refused_and_the_last_good_one_goes_on(scan: Scan, trouble: str) -> None:
    before = set(scan.pool.pids())
    match trouble:
        case "damaged":
            bad = scan.set("bad", TEST_FILE, WORM, damage=True)
        case "absent":
            bad = scan.directory / "sets" / "bad" / "yara.compiled"
        case "blind":
            bad = scan.set("bad", WORM)
        case "barks at everything":
            bad = scan.set("bad", TEST_FILE, EVERYTHING)
        case _:
            bad = scan.set("bad", TEST_FILE)
            bad.write_bytes(b"a web page")
    scan.pool.rules = bad
    scan.until(lambda: scan.said().refused == "bad")
    said = scan.said()
    assert said.set_id == "one" and said.proven and said.why and said.loads == 2
    assert before <= set(scan.pool.pids()), "who looks at files was left alone"
    assert scan.look(CANARY) == ["sekisho_eicar"]
    scan.pool.rules = scan.directory / "sets" / "one" / "yara.compiled"
    scan.turn()
    assert scan.said().refused == "" and scan.said().proven, "the good one is wanted again"
    scan.pool.rules = bad
    scan.until(lambda: scan.said().refused == "bad")
    scan.pool.rules = scan.set("three", TEST_FILE, WORM)
    scan.until(lambda: scan.proven("three"))
    assert scan.said().refused == ""


def test_a_set_the_memory_does_not_hold_is_refused(scan: Scan) -> None:
    scan.pool.memory_mb = 24
    scan.pool.rules = scan.set("large", TEST_FILE, WORM)
    scan.until(lambda: scan.said().refused == "large")
    assert scan.proven("one") and "memory" in scan.said().why


def test_workers_that_die_come_back_with_the_last_good_set_though_its_files_are_gone(scan: Scan) -> None:
    shutil.rmtree(scan.directory / "sets" / "one")
    scan.pool.rules = scan.directory / "sets" / "gone" / "yara.compiled"
    scan.until(lambda: scan.said().refused == "gone")
    before = set(scan.pool.pids())
    for pid in before:
        os.kill(pid, 9)
    scan.until(lambda: scan.pool.ready == 2 and not before & set(scan.pool.pids()))
    assert scan.look(CANARY) == ["sekisho_eicar"] and scan.proven("one")


def test_a_muted_rule_counts_for_nothing_from_the_next_file_on_even_where_it_was_seen_before(scan: Scan) -> None:
    scan.pool.rules = scan.set("two", TEST_FILE, WORM)
    scan.until(lambda: scan.proven("two"))
    pids = set(scan.pool.pids())
    assert scan.look(b"SK-WORM") == ["Worm"]
    scan.pool.muted = ("Worm", "nobody")
    assert scan.look(b"SK-WORM") == []
    scan.until(lambda: scan.said().muted == 1)
    said = scan.said()
    assert said.proven and (said.rules, said.expected) == (1, 1)
    scan.pool.muted = ()
    assert scan.look(b"SK-WORM") == ["Worm"]
    assert pids == set(scan.pool.pids()), "nothing was loaded for it"


def test_a_muted_canary_is_tried_all_the_same(scan: Scan) -> None:
    scan.pool.muted = ("sekisho_eicar",)
    at = scan.said().canary_at
    scan.until(lambda: scan.said().canary_at > at and scan.said().muted == 1)
    assert scan.said().canary == "caught"


def test_every_worker_is_tried_again_every_few_seconds(scan: Scan) -> None:
    began = time.monotonic()
    scan.until(lambda: scan.said().canary_at > began)
    assert time.monotonic() - began < 12


def test_a_machine_that_stood_still_for_a_second_does_not_make_a_set_blind(scan: Scan) -> None:
    class Stalled(Scanner):
        stalls = 0

        def catches(self, canary: bytes) -> bool:
            self.stalls -= 1
            return self.stalls < 0 and super().catches(canary)

    with (scan.directory / "sets" / "one" / "yara.compiled").open("rb") as source:
        scanner = Stalled(source)
    for stalls, caught in ((0, True), (1, True), (2, False)):
        scanner.stalls = stalls
        assert Worker(scanner).trial().caught is caught


def test_a_set_that_is_gone_when_it_would_be_in_force_is_no_load_after_the_other(tmp_path: Path) -> None:
    scan = Scan(tmp_path, workers=1)
    try:
        scan.pool.tick()
        shutil.rmtree(scan.directory / "sets" / "one")  # the workers have it open
        scan.until(lambda: scan.pool.ready == 1)
        loads = scan.pool.loads
        for _ in range(20):
            scan.turn()
        assert scan.pool.loads == loads and not scan.said().proven
    finally:
        scan.pool.close()
