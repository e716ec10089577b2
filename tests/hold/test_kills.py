"""Each process of the product killed or stopped under traffic: nothing breaks, nothing is lost, inspection is back."""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from sekisho.appliance.core.settings import load
from sekisho.center.store import Store
from sekisho.lab import office
from sekisho.lab.client import Got, Mail, Web, marked
from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4, SERVER6, SHAPES
from sekisho.telemetry.events import Bypass
from sekisho.telemetry.spool_view import SpoolView

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

SIZE = 20_000_000
RATE = 3_000_000
LOST_PINGS = 5
BACK_WITHIN_S = 1.0
TRIES = 20
MEANWHILE = 150
ONE_BY_ONE = ("suricata", "inspect", "worker 0", "worker 1", "appliance", "telemetry", "mosquitto", "center")

_numbers = itertools.count(1)


def pid(lab: Lab, name: str) -> int:
    """Process id, also of "worker 0" and "worker 1"; 0 while there is none."""
    if not name.startswith("worker"):
        return lab.pid(name)
    with closing(socket.socket(socket.AF_UNIX)) as link:
        link.settimeout(5)
        try:
            link.connect(str(load(lab.lay.box_settings).inspect_socket))
            with link.makefile("rb") as answer:
                workers = sorted(json.loads(answer.readline())["workers"])
        except OSError:
            return 0
    number = int(name.split()[1])
    return int(workers[number]) if number < len(workers) else 0


@contextmanager
def pings(lab: Lab, interval_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """A ping from the office to the internet that says when each answer came."""
    argv = ["ping", "-D", "-i", str(interval_s), SERVER4]
    process = subprocess.Popen(lab.inside("lan", argv), stdout=subprocess.PIPE, env=lab.env())
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, list[float]]:
    """(lost, when each answer came) of a ping that is told to end now."""
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=20)[0].decode()
    sent, received = re.findall(r"(\d+) packets transmitted, (\d+) received", text)[0]
    return int(sent) - int(received), [float(stamp) for stamp in re.findall(r"^\[([\d.]+)\] \d+ bytes", text, re.M)]


@contextmanager
def traffic(lab: Lab) -> Iterator[tuple[office.Busy, office.Busy, str]]:
    """A slow download and a mail in pieces, both under way; and the download's mark."""
    mark = f"slow.{next(_numbers)}"
    web = Web(SERVER4, SHAPES, [f"/identity/clean/20m.bin?mark={mark}"], rate=RATE)
    mail = Mail(SERVER6, [[("clean", 1000), ("clean", 1_000_000)]], mark, piece_pause_s=0.1)
    with office.Busy(lab, [web]) as download, office.Busy(lab, [mail]) as sending:
        lab.wait(lambda: under_way(lab) >= {"25", str(SHAPES)}, "the traffic does not start", 10)
        yield download, sending, mark


def under_way(lab: Lab) -> set[str]:
    """Servers' ports of the office's connections."""
    lines = lab.run("lan", ["ss", "-Htn", "state", "established"]).stdout.decode().splitlines()
    return {line.split()[3].rpartition(":")[2] for line in lines}


def unbroken(download: office.Busy, sending: office.Busy, mark: str) -> None:
    """Both came to their proper end."""
    (file,) = download.result(60)[0].got
    assert (file.end, file.sha256) == ("whole", hashlib.sha256(marked(False, SIZE, mark)).hexdigest()), file
    (letter,) = sending.result(60)[0].got
    assert (letter.end, letter.answer) == ("whole", "250"), letter


def fetch_bad(lab: Lab, count: int) -> list[Got]:
    """Fetch malicious files nobody has seen, each on a connection of its own."""
    paths = [f"/identity/bad/300k.bin?mark=kill.{next(_numbers)}" for _ in range(count)]
    tasks = [Web((SERVER4, SERVER6)[n % 2], SHAPES, [path]) for n, path in enumerate(paths)]
    return [done.got[0] for done in office.perform(lab, tasks)]


def blocked_again(lab: Lab) -> None:
    """Every one of the next malicious files is stopped; else everything the box knows about the one that was not."""
    leaked = [got for got in fetch_bad(lab, TRIES) if got.eicar]
    assert not leaked, "\n\n".join([str(leaked), *evidence(lab, leaked[0].port)])


def evidence(lab: Lab, port: int) -> Iterator[str]:
    """The connection's mark, the journals, the logs and the engine's counters."""
    table = lab.run("box", ["cat", "/proc/net/nf_conntrack"]).stdout.decode().splitlines()
    yield "\n".join(line for line in table if f"sport={port} " in line)
    settings = load(lab.lay.box_settings)
    for name in ("appliance", "inspect"):
        journal = settings.journals / f"{name}.jsonl"
        yield "\n".join([name, *journal.read_text().splitlines()[-12:]])
        yield lab.log_tail(name, 30)
    counters = lab.run("box", ["suricatasc", "-c", "dump-counters", str(settings.control_socket)])
    yield counters.stdout.decode()[-6000:]
    for tool in ("iptables", "ip6tables"):
        yield lab.run("box", [f"{tool}-save", "-c"]).stdout.decode()


def all_told(lab: Lab) -> None:
    """Nothing waits on the box, and no number is missing at the centre."""

    def settled() -> bool:
        with closing(SpoolView(load(lab.lay.box_settings).spool)) as spool:
            if sum(lane.rows for lane in spool.waiting()):
                return False
            last = spool.next_seq() - 1
        with closing(Store(lab.lay.center_store, read_only=True)) as store:
            return not store.missing() and [stream.upto for stream in store.streams()] == [last]

    lab.wait(settled, "the centre does not have every event", 20)


def bypasses(lab: Lab, part: str, since: dt.datetime) -> list[Bypass]:
    return [
        row.event
        for row in lab.events()
        if isinstance(row.event, Bypass) and row.event.part == part and dt.datetime.fromisoformat(row.event.at) >= since
    ]


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_kill_9_breaks_no_connection_and_loses_nothing(lab: Lab, name: str) -> None:
    since = dt.datetime.now(dt.UTC)
    with ExitStack() as stack:
        download, sending, mark = stack.enter_context(traffic(lab))
        ping = stack.enter_context(pings(lab, 0.002))
        old = pid(lab, name)
        assert old
        os.kill(old, signal.SIGKILL)
        lab.wait(lambda: pid(lab, name) not in (0, old), f"{name} is not back", 15)
        lab.wait_ready(30)
        lab.wait(lab.inspecting, "the box does not inspect", 15)
        assert download.still(), "the download was over before the process was back: nothing was tested"
        blocked_again(lab)
        unbroken(download, sending, mark)
        lost, answers = ended(ping)
    assert len(answers) > 500
    assert lost <= LOST_PINGS
    all_told(lab)
    part = {"suricata": "engine", "inspect": "gate"}.get(name)
    if part:
        told = bypasses(lab, part, since)
        assert [event.state for event in told] == ["began", "ended"]
        assert told[-1].seconds > 0


@pytest.mark.parametrize("name", ["appliance", "telemetry", "mosquitto", "center"])
def test_the_death_of_one_that_does_not_inspect_lets_nothing_through_meanwhile(lab: Lab, name: str) -> None:
    paths = [f"/identity/bad/300k.bin?mark=meanwhile.{next(_numbers)}" for _ in range(MEANWHILE)]
    tasks = [Web((SERVER4, SERVER6)[n % 2], SHAPES, [path]) for n, path in enumerate(paths)]
    with office.Busy(lab, tasks) as busy:
        lab.wait(lambda: str(SHAPES) in under_way(lab), "the traffic does not start", 10)
        old = lab.kill(name)
        lab.wait(lambda: lab.pid(name) not in (0, old), f"{name} is not back", 15)
        lab.wait_ready(30)
        leaked = [done.got[0] for done in busy.result() if done.got[0].eicar]
    assert not leaked, "\n\n".join([str(leaked), *evidence(lab, leaked[0].port)])
    all_told(lab)


@pytest.mark.parametrize(("name", "part"), [("suricata", "engine"), ("inspect", "gate")])
def test_a_hung_inspector_is_led_around_within_a_second_and_is_back_within_a_second(
    lab: Lab, name: str, part: str
) -> None:
    since = dt.datetime.now(dt.UTC)
    with ExitStack() as stack:
        download, sending, mark = stack.enter_context(traffic(lab))
        ping = stack.enter_context(pings(lab, 0.01))
        hung = pid(lab, name)
        assert hung
        os.kill(hung, signal.SIGSTOP)
        try:
            stopped_at = time.monotonic()
            assert one_clean(lab), "no file passes"
            flows_s = time.monotonic() - stopped_at
            lab.wait(lambda: bool(bypasses(lab, part, since)), "the centre has not heard of the bypass", 10)
        finally:
            os.kill(hung, signal.SIGCONT)
        went_on = began = time.monotonic()
        while fetch_bad(lab, 1)[0].eicar:
            assert began - went_on < BACK_WITHIN_S, "not inspected again"
            began = time.monotonic()
        back_s = began - went_on
        blocked_again(lab)
        unbroken(download, sending, mark)
        _, answers = ended(ping)
    silence = max(later - earlier for earlier, later in itertools.pairwise(answers))
    assert silence < 1.0, f"no ping was answered for {silence:.2f} s"
    print(f"{name}: a file passed after {flows_s:.2f} s, silence {silence:.2f} s, back after {back_s:.2f} s")
    all_told(lab)
    assert [event.state for event in bypasses(lab, part, since)] == ["began", "ended"]


def one_clean(lab: Lab) -> bool:
    """A new connection, started now, brings a clean file."""
    (done,) = office.perform(lab, [Web(SERVER4, SHAPES, ["/identity/clean/1k.bin"])])
    return done.got[0].end == "whole"
