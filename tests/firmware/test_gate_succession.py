"""The gate goes from one process to the next under traffic: no file passes unscanned, none is broken, no event missing.

A real gate with real workers, a real engine; releases whose programs end themselves at one step of the handover.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sekisho.appliance.core.errors import DeviceFault, PeerError
from sekisho.appliance.core.settings import Paths, Settings, load
from sekisho.appliance.status import try_read
from sekisho.firmware.switch import switching
from sekisho.firmware.switch.services import Running
from sekisho.inspect import succession
from sekisho.lab import office, releases
from sekisho.lab.client import Mail, Web, marked
from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4, SERVER6, SHAPES
from sekisho.lab.load import Load
from sekisho.lab.switching import Supervised
from sekisho.telemetry.events import Bypass, FileVerdict

pytestmark = [pytest.mark.lab]

NAMES = ("1-00000000aaaa", "2-00000000bbbb")
SLOW_BYTES, SLOW_RATE = 20_000_000, 1_500_000
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
_numbers = itertools.count(1)


class Box:
    """A box whose daemons run what a link names, and its gate's successions."""

    def __init__(self, lab: Lab, root: Path) -> None:
        self.lab, self.root, self.services = lab, root, Supervised(lab)
        self.link = root / "venv"
        self.releases = [releases.make(root, name) for name in NAMES]
        self.point(self.releases[0])

    def point(self, release: Path) -> None:
        fresh = self.link.with_name("fresh")
        fresh.symlink_to(release / "venv")
        fresh.replace(self.link)

    @property
    def settings(self) -> Settings:
        return load(self.lab.lay.box_settings)

    def gate(self) -> Running:
        found = self.services.look("inspect")
        assert found is not None
        return found

    def away(self) -> tuple[float, float]:
        """Seconds so far in which engine and gate were away, by the box's own account."""
        status = try_read(self.settings)
        assert status is not None
        engine, gate = (part.seconds(time.monotonic()) for part in (status.engine_bypass, status.gate_bypass))
        return round(engine, 2), round(gate, 2)

    def away_by_now(self) -> tuple[float, float]:
        """`away`, of an account that was written after this call."""
        asked = time.monotonic()

        def written() -> bool:
            status = try_read(self.settings)
            return status is not None and status.at_mono > asked

        self.lab.wait(written, "the box gives no account", 10)
        return self.away()

    def absent(self, since: int) -> bool:
        """Whether the centre heard, after so many events, that nobody was at the queue."""
        told = [row.event for row in self.lab.events(since)]
        return any(isinstance(one, Bypass) and one.part == "gate" and one.reason == "absent" for one in told)

    def succeed(self, release: Path | None = None) -> None:
        """Have another process at the gate; returns when it is, or when it is said that none will be."""
        if release is not None:
            self.point(release)
        before, tries = self.gate(), succession.said(self.settings).tries
        self.services.succeed("inspect")

        def over() -> bool:
            now, said = self.gate(), succession.said(self.settings)
            return (now.ready and now.pid not in (0, before.pid)) or (said.tries > tries and said.state != "preparing")

        self.lab.wait(over, "nothing is heard of a successor", 130)

    def runs(self, release: Path) -> None:
        """The gate says that it is of this release."""
        self.lab.wait(lambda: self.gate().release == release.name, "the gate is of another release", 30)

    def answers(self) -> bool:
        """A gate is open, by its own word."""
        with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as link:
            link.settimeout(1)
            link.connect(str(self.settings.inspect_socket))
            with link.makefile("rb") as answer:
                return bool(json.loads(answer.readline())["open"])
        return False

    def back(self) -> None:
        """It inspects, whatever happened before."""
        self.lab.wait(self.answers, "no gate answers", 120)
        self.lab.wait_ready(60)
        self.lab.wait(self.lab.inspecting, "the box does not inspect", 60)

    def handovers_ms(self) -> list[int]:
        """From the last packet one process read to the first of the next, as the former measured it."""
        log = (self.lab.lay.logs / "inspect.log").read_text()
        return [int(ms) for ms in re.findall(r"handed over in (\d+) ms", log)]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    root = tmp_path_factory.mktemp("opt")
    with Lab(f"gs{os.getpid()}") as lab:
        made = Box(lab, root)
        lab.up({"firmware": {"link": str(made.link), "releases": str(root)}})
        yield made


@dataclass
class Asking:
    """Malicious files asked for without a pause, each on a connection of its own, while something happens."""

    lab: Lab
    ports: list[tuple[str, int]] = field(default_factory=list)
    """(server, the office's port) of the connections, each of which is to be told about once."""
    whole: list[tuple[str, int]] = field(default_factory=list)
    """Those of files that were delivered."""
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Asking:
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def enough(self) -> bool:
        return len(self.ports) >= 16

    def _ask(self) -> None:
        while not self._over.is_set():
            paths = [f"/identity/bad/{size}.bin?mark=gs.{next(_numbers)}" for size in ("1k", "300k") * 4]
            tasks = [Web((SERVER4, SERVER6)[n % 2], SHAPES, [path]) for n, path in enumerate(paths)]
            got = [done.got[0] for done in office.perform(self.lab, tasks)]
            ends = [(task.host, one.port) for task, one in zip(tasks, got, strict=True)]
            self.ports += ends
            self.whole += [end for end, one in zip(ends, got, strict=True) if one.eicar]


def told(lab: Lab, since: int) -> Counter[tuple[str, int, str]]:
    """How often the centre was told of each stopped file, by its server, the receiver's port and its content."""
    files = [row.event for row in lab.events(since) if isinstance(row.event, FileVerdict)]
    stopped = [file for file in files if file.outcome == "blocked"]
    return Counter((file.flow.src_ip, file.flow.dst_port, file.sha256) for file in stopped)


def gapless(lab: Lab) -> bool:
    """Every number of every epoch is at the centre, from the first to the last."""
    numbers: dict[tuple[str, str], set[int]] = {}
    for row in lab.events():
        numbers.setdefault((row.box, row.epoch), set()).add(row.seq)
    return all(len(seen) == max(seen) - min(seen) + 1 for seen in numbers.values())


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(3, marks=pytest.mark.timeout(240)),
        pytest.param(20, marks=[pytest.mark.full, pytest.mark.timeout(1200)]),
    ],
    ids=["sample", "twenty"],
)
def test_successors_under_load_let_no_malicious_file_through_break_none_and_lose_no_event(box: Box, count: int) -> None:
    lab, away, since = box.lab, box.away(), len(box.lab.events())
    mark = f"slow.{next(_numbers)}"
    slow = Web(SERVER4, SHAPES, [f"/identity/clean/20m.bin?mark={mark}"], rate=SLOW_RATE)
    mail = Mail(SERVER6, [[("clean", 1000), ("clean", 1_000_000)]], mark, piece_pause_s=0.5)
    with (
        Load(lab) as load_,
        Asking(lab) as asking,
        office.Busy(lab, [slow]) as download,
        office.Busy(lab, [mail]) as post,
    ):
        for to in itertools.islice(itertools.cycle(reversed(box.releases)), count):
            former = box.gate()
            box.succeed(to)
            box.runs(to)
            assert box.gate().pid != former.pid, succession.said(box.settings)
        (file,), (letter,) = download.result(90)[0].got, post.result(90)[0].got
        went = load_.end()
    print(f"handed over in {box.handovers_ms()[-count:]} ms; {len(asking.ports)} malicious files asked for; {went}")
    stood_still = (
        box.away_by_now() != away
    )  # a machine of others may stand still so long that the watchdog takes it for a hang
    assert stood_still or not (asking.whole or went.bad.got), "delivered whole"
    assert (file.end, file.sha256) == ("whole", hashlib.sha256(marked(False, SLOW_BYTES, mark)).hexdigest()), file
    assert (letter.end, letter.answer) == ("whole", "250"), letter
    assert (went.lost, went.broken) == (0, 0)
    assert len(asking.ports) > 5 * count
    stopped = set(asking.ports) - set(asking.whole)
    lab.wait(lambda: gapless(lab) and {end[:2] for end in told(lab, since)} >= stopped, "an outcome is missing", 60)
    assert set(told(lab, since).values()) == {1}, "told more than once"
    assert not box.absent(since), "not for a moment without a gate"


@pytest.mark.timeout(240)
def test_a_file_whose_first_part_the_former_process_saw_is_stopped_by_its_successor(box: Box) -> None:
    path = f"/identity/bad/20m.bin?mark=gs.{next(_numbers)}"
    with office.Busy(box.lab, [Web(SERVER4, SHAPES, [path], rate=SLOW_RATE // 4)]) as busy:
        box.lab.wait(lambda: established(box.lab), "the download does not begin", 10)
        former = box.gate().pid
        box.succeed()
        assert box.gate().pid != former and busy.still(), "nothing was tested"
        (got,) = busy.result(90)[0].got
    assert got.end != "whole" and not got.eicar


def established(lab: Lab) -> bool:
    lines = lab.run("lan", ["ss", "-Htn", "state", "established"]).stdout.decode().splitlines()
    return any(line.split()[3].endswith(f":{SHAPES}") for line in lines)


def broken(box: Box, number: int, module: str, text: str, instead: str) -> Path:
    """A release in which one place of one module reads otherwise."""
    release = releases.make(box.root, f"{number}-0000bad0{number:04x}")
    path = releases.module(release, f"sekisho.inspect.{module}")
    source = path.read_text()
    assert source.count(text) == 1, text
    path.write_text(source.replace(text, instead))
    return release


PROVEN = "    def proven(self) -> bool:\n"
SUCCESSORS = {
    "ends before it is ready": ("daemon", "import argparse\n", "raise SystemExit(4)\n"),
    "ends with everything in its hands": ("succession", "self._socket.send(_TAKEN)", KILL),
    "hangs with everything in its hands": ("succession", "self._socket.send(_TAKEN)", "time.sleep(300)"),
    "does not find its canary": ("scan", PROVEN, f"{PROVEN}        return False\n"),
    "says what nobody understands": (
        "succession", "self._socket.send(msgspec.msgpack.encode(hello))", 'self._socket.send(b"\\xff")',
    ),
}  # fmt: skip
SAMPLE = {"ends with everything in its hands", "hangs with everything in its hands"}


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=() if how in SAMPLE else pytest.mark.full) for how in SUCCESSORS]
)
@pytest.mark.timeout(240)
def test_a_successor_that_does_not_come_leaves_the_former_process_at_work(box: Box, how: str) -> None:
    bad = broken(box, 100 + list(SUCCESSORS).index(how), *SUCCESSORS[how])
    before, away, since = box.gate(), box.away(), len(box.lab.events())
    kept = box.link.readlink().parent
    try:
        with Load(box.lab) as load_, Asking(box.lab) as asking:
            box.succeed(bad)
            went = load_.end()
        assert box.gate() == before and succession.said(box.settings).state == "refused"
        assert went.broken == 0 and (box.away_by_now() != away or not asking.whole)
        box.lab.wait(lambda: gapless(box.lab), "an event is missing at the centre", 60)
        assert not box.absent(since)
    finally:
        box.point(kept)
    box.succeed()
    assert box.gate().pid != before.pid, "another one comes"


@pytest.mark.full
@pytest.mark.timeout(240)
def test_a_slow_machine_that_writes_all_down_and_gives_it_in_its_time_is_taken_for_no_hang(box: Box) -> None:
    """Neither part takes as long as the watchdog waits, both together do."""
    freezes = "former = self.effects.gate.freeze()"
    slow = broken(box, 150, "daemon", freezes, f"time.sleep(0.45); {freezes}")
    giving = releases.module(slow, "sekisho.inspect.succession")
    begins = "link, until = self._link(), "
    assert giving.read_text().count(begins) == 1
    giving.write_text(giving.read_text().replace(begins, f"time.sleep(0.4); {begins}"))
    kept = box.link.readlink().parent
    box.succeed(slow)
    box.runs(slow)
    away, before = box.away_by_now(), box.gate().pid
    box.succeed(kept)
    box.runs(kept)
    assert box.gate().pid != before and box.away_by_now() == away


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_switch_to_a_release_whose_gate_does_not_come_is_taken_back(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = broken(box, 200, *SUCCESSORS["ends before it is ready"])
    before, kept = box.gate(), box.link.readlink().parent
    monkeypatch.setattr(switching, "ORDER", ("inspect",))
    with pytest.raises(DeviceFault, match=r"(?s)no successor.*former programs again"):
        switching.switch(bad, box.settings, box.services)
    assert box.gate() == before and box.link.readlink().parent == kept


def stopped_again(box: Box) -> None:
    """Every malicious file is stopped, as soon as the machine does not stand still for a while."""
    for _ in range(5):
        away = box.away()
        with Asking(box.lab) as asking:
            box.lab.wait(asking.enough, "nothing is answered", 60)
        if box.away_by_now() == away:
            assert not asking.whole, "delivered whole"
            return
    pytest.fail("the inspectors are led around again and again")


NAMED = 'sdnotify.notify(f"MAINPID={hello.pid}")'
LEAVE = "commands = self.engine.leave("
FATAL = {
    "the successor, as soon as the queue is its own": ("heir.taken()", f"heir.taken(), {KILL}"),
    "the predecessor, with everything sent": ("self.succession.go()", KILL),
    "the predecessor, before it named its successor": (NAMED, KILL),
    "the predecessor, before it has told its last": (LEAVE, f"{KILL}; {LEAVE}"),
}


@pytest.mark.parametrize(
    "who", [pytest.param(who, marks=pytest.mark.full if "named" not in who else ()) for who in FATAL]
)
@pytest.mark.timeout(240)
def test_a_death_in_the_middle_is_a_bypass_that_is_counted_and_ends(box: Box, who: str) -> None:
    fatal = broken(box, 300 + list(FATAL).index(who), "daemon", *FATAL[who])
    role = "predecessor" if "predecessor" in who else "successor"
    kept = box.link.readlink().parent
    if role == "predecessor":
        box.succeed(fatal)
        assert box.gate().pid
        box.runs(fatal)
    away, before, since = box.away(), box.gate().pid, len(box.lab.events())
    box.point(kept if role == "predecessor" else fatal)
    with Asking(box.lab) as asking:
        box.services.succeed("inspect")
        box.lab.wait(lambda: not Path(f"/proc/{before}").exists(), "it does not end", 130)
        box.point(kept)
        box.back()
    assert box.away_by_now() > away or not asking.whole, "what passed is accounted for"
    stopped_again(box)
    box.lab.wait(lambda: gapless(box.lab), "an event is missing at the centre", 60)
    assert box.absent(since) == ("last" not in who), (
        "the successor was at work by then, or nobody was, and that is told"
    )


@pytest.mark.full
@pytest.mark.timeout(240)
def test_a_release_whose_gate_remembers_otherwise_takes_the_queue_without_a_gap(box: Box) -> None:
    """What is held is given up, and sent again; files under way go on, seen from their middle."""
    other = broken(
        box, 400, "gate", "    return int(_load().gate_format())\n", "    return 4711\n"
    )  # fmt: skip
    kept, away, since = box.link.readlink().parent, box.away(), len(box.lab.events())
    with Load(box.lab) as load_, Asking(box.lab) as asking:
        for to in (other, kept):
            box.succeed(to)
            box.runs(to)
        went = load_.end()
    assert (went.lost, went.broken) == (0, 0) and (box.away_by_now() != away or not (asking.whole or went.bad.got))
    box.lab.wait(lambda: gapless(box.lab), "an event is missing at the centre", 60)
    assert not box.absent(since)


def test_what_cannot_be_asked_says_nothing(tmp_path: Path) -> None:
    nowhere = Settings(box="b", paths=Paths(run=str(tmp_path), state=str(tmp_path)))
    assert succession.said(nowhere) == succession.Said()
    with pytest.raises(PeerError):
        succession.Succession(nowhere, tmp_path).go()
