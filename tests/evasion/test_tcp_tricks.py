"""However a sender cuts, repeats, reorders or contradicts its segments and fragments, a known file does not pass.

A hand-made TCP end sends to a real client (curl), and one uploads to real servers (POST, mail). Where all copies of
a byte agree the clean twin arrives whole; where bytes are told to be urgent, cutting is as good an answer.
"""

from __future__ import annotations

import itertools
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import clients
import pytest
import rawserver
import tcp_tricks
from _pytest.mark import ParameterSet

from sekisho.lab.lab import Lab
from sekisho.lab.layout import CLIENT4, CLIENT6, SERVER4, SERVER6
from sekisho.lab.samples import EICAR

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

PORT = 9000
WITHIN_S = 10
AT_ONCE = 6
HOSTS = (SERVER4, SERVER6)
MAY_BE_CUT = frozenset(
    {"urgent", "fin-early-then-more", *(name for name in tcp_tricks.TRICKS if name.startswith("refused-all-flags"))}
)
"""Also when every byte of it is clean: no honest sender does this."""
OPENED = ("by-67", "no-push", "reversed")
Case = tuple[str, str, str]
CASES: list[Case] = [(host, "plain", trick) for trick in tcp_tricks.TRICKS for host in HOSTS]
CASES += [(host, opening, trick) for opening in tcp_tricks.OPENINGS[1:] for trick in OPENED for host in HOSTS]
_numbers = itertools.count()


def sampled(name: str) -> bool:
    return zlib.crc32(name.encode()) % 4 == 0


NAMES = sorted({f"{opening}/{trick}" for _, opening, trick in CASES})
PARAMS = [pytest.param(name, marks=() if sampled(name) else pytest.mark.full) for name in NAMES]
UPLOADED = [f"{kind}/{trick}" for kind in ("post", "mail") for trick in tcp_tricks.TRICKS]
UPLOADED += [f"deaf-mail/{trick}" for trick in OPENED]


def sample_and_all(names: list[str]) -> list[ParameterSet]:
    sample = [name for name in names if sampled(name)]
    return [pytest.param(sample, id="sample"), pytest.param(names, id="all", marks=pytest.mark.full)]


@contextmanager
def raw_server(lab: Lab) -> Iterator[None]:
    """The hand-made end; the kernel keeps quiet about connections it does not know."""
    for tables, place, ports in itertools.product(
        ("iptables", "ip6tables"), ("wan", "lan"), ("9000:9099", "20000:23999")
    ):
        rule = ["OUTPUT", "-p", "tcp", "--sport", ports, "--tcp-flags", "RST", "RST", "-j", "DROP"]
        lab.run("wan" if place == "wan" else "lan", [tables, "-A", *rule], check=True)
    server = lab.popen("wan", [sys.executable, "-I", str(rawserver.__file__), str(PORT)])
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield
    finally:
        clients.ended(server)


@pytest.fixture(scope="module")
def through(box: Lab) -> Iterator[Lab]:
    with raw_server(box):
        yield box


@pytest.fixture(scope="module")
def beside(bare: Lab) -> Iterator[Lab]:
    with raw_server(bare):
        yield bare


def fetch(lab: Lab, jobs: Iterable[tuple[str, str, str, str]]) -> dict[tuple[str, str, str, str], tuple[int, bytes]]:
    """(host, opening, trick, bad or clean) -> curl's exit code and every byte it was left with."""

    def one(job: tuple[str, str, str, str]) -> tuple[int, bytes]:
        host, opening, trick, kind = job
        port = PORT + tcp_tricks.OPENINGS.index(opening)
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/{trick}/{kind}"
        done = lab.run("lan", ["curl", "-s", "-g", "--max-time", str(WITHIN_S), url], timeout_s=WITHIN_S + 20)
        return done.returncode, done.stdout

    jobs = list(jobs)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(jobs, pool.map(one, jobs), strict=True))


def body(trick: str) -> bytes:
    return rawserver.answer(f"/{trick}/clean", bad=False)[0].partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("name", PARAMS)
def test_no_order_of_segments_brings_the_file(through: Lab, name: str) -> None:
    opening, trick = name.split("/")
    got = fetch(through, [(host, opening, trick, kind) for host in HOSTS for kind in ("bad", "clean")])
    assert [job for job, (_, data) in got.items() if EICAR in data] == []
    if trick not in MAY_BE_CUT:
        cleans = {job: result for job, result in got.items() if job[3] == "clean"}
        assert [job for job, result in cleans.items() if result != (0, body(trick))] == []


@pytest.mark.parametrize("names", sample_and_all(NAMES))
def test_the_tricks_bring_it_where_no_box_is(beside: Lab, names: list[str]) -> None:
    got = fetch(beside, [(host, *name.split("/"), "bad") for name in names for host in HOSTS])  # type: ignore[misc]
    worked = [job for job, (_, data) in got.items() if EICAR in data]
    print(f"{len(worked)} of {len(got)} tricks bring the file over a bare bridge")
    assert len(worked) > len(got) * 0.8


def send(lab: Lab, names: list[str], v6: bool) -> dict[tuple[str, bool], str]:
    """Upload each bad and clean; (name, bad) -> what the server said."""
    tasks = [(name, bad) for name in names for bad in (True, False)]
    mac = lab.run("wan", ["cat", "/sys/class/net/eth0/address"]).stdout.decode().strip()
    asked = {
        "here": CLIENT6 if v6 else CLIENT4,
        "there": SERVER6 if v6 else SERVER4,
        "mac": mac,
        "tasks": [[*name.split("/"), bad] for name, bad in tasks],
        "first": next(_numbers) * 600,
    }
    argv = [sys.executable, "-I", str(Path(rawserver.__file__).with_name("rawclient.py"))]
    done = lab.run("lan", argv, stdin=json.dumps(asked).encode(), timeout_s=400, check=True)
    return dict(zip(tasks, (json.loads(line) for line in done.stdout.splitlines()), strict=True))


def stored(lab: Lab) -> list[bytes]:
    return [
        file.read_bytes()
        for folder in (lab.lay.uploads, lab.lay.mail)
        for file in folder.iterdir()
        if file.name[0] != "."
    ]


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
@pytest.mark.parametrize("names", sample_and_all(UPLOADED))
def test_no_order_of_segments_takes_the_file_out(through: Lab, names: list[str], v6: bool) -> None:
    for folder in (through.lay.uploads, through.lay.mail):
        for file in folder.iterdir():
            file.unlink()
    said = send(through, names, v6)
    arrived = stored(through)
    assert [name for name in names if any(f"{name}/bad".encode() in data and EICAR in data for data in arrived)] == []
    missing = [name for name in names if not any(f"{name}/clean\r\n".encode() in data for data in arrived)]
    assert [(name, said[name, False]) for name in missing if name.split("/")[1] not in MAY_BE_CUT] == []


def test_uploads_arrive_where_no_box_is(beside: Lab) -> None:
    names = [name for name in UPLOADED if sampled(name)]
    send(beside, names, v6=False)
    arrived = [data for data in stored(beside) if EICAR in data]
    assert len(arrived) > len(names) * 0.8
