"""What is in force after every kind of bad load, asked by command or by signal: the last good set, proven.

Nothing here believes the engine's replies: its counts are asked, and packets are sent through its queues.
"""

from __future__ import annotations

import ctypes
import lzma
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sekisho.appliance import canary, control, netfilter, rendering, watch
from sekisho.appliance.berth import Berth
from sekisho.appliance.core import marks, muting, standing
from sekisho.appliance.core.errors import PeerError
from sekisho.appliance.core.muting import Muting
from sekisho.appliance.core.settings import parse
from sekisho.appliance.core.standing import Standing
from sekisho.appliance.engine import Engine, RuleSet
from sekisho.appliance.watch import Watch
from sekisho.telemetry.events import Event, Health, Signatures

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "rules"
QUEUES = 2
CLONE_NEWNET = 0x40000000


def rules(count: int, word: str = "good", action: str = "alert") -> str:
    return "".join(
        f'{action} udp any any -> any any (msg:"{word} {n}"; content:"SK-{word}-{n}"; sid:{1000 + n}; rev:1;)\n'
        for n in range(count)
    )


class Care:
    """An engine under care, and its watch, in a network namespace of their own."""

    def __init__(self, directory: Path, wanted: RuleSet, extra: str = "") -> None:
        text = (
            f'box="h2"\n[inspection]\nqueues={QUEUES}\n{extra}[paths]\nrun="{directory}/run"\nstate="{directory}/state"'
        )
        self.settings = parse(text)
        for path in (self.settings.channel, self.settings.fleet):
            path.mkdir(parents=True)
        self.directory = directory
        self.said: list[Event] = []
        self.wanted = wanted
        self.engine = Engine(self.settings, lambda: self.wanted, self.said.append)
        self.watch = Watch(self.settings, self.engine, self.said.append, lambda: False)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        netfilter.install(netfilter.plan(QUEUES, fail_closed=False))
        watching = threading.Thread(target=self.watch.run, args=(self.stop,))
        watching.start()
        self.engine.run(self.stop)
        watching.join()

    def standing(self) -> Standing | None:
        return standing.try_read(self.settings, "engine")

    def in_force(self, set_id: str, count: int) -> bool:
        """Whether the engine is said to have that set and was tried since the call's begin."""
        now = self.standing()
        return now is not None and now.proven and (now.set_id, now.rules) == (set_id, count)

    def signatures(self) -> list[str]:
        return [event.state for event in self.said if isinstance(event, Signatures)]

    def health(self) -> list[str]:
        return [event.state for event in self.said if isinstance(event, Health)]

    def end(self) -> None:
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def made(directory: Path, name: str, text: str, count: int) -> RuleSet:
    path = directory / f"{name}.rules"
    path.write_text(text)
    return RuleSet(name, path, count)


BROKEN = "".join(f'alert udp any any -> any any (msg:"b"; nonsense{n}; sid:{5000 + n};)\n' for n in range(20))
GOOD = rules(5)
Spoil = Callable[[Path], object]


def directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILT: dict[str, tuple[Spoil, int]] = {
    "20 broken rules": (lambda path: path.write_text(GOOD + BROKEN), 25),
    "missing file": (lambda path: path.unlink(), 5),
    "empty file": (lambda path: path.write_text(""), 5),
    "unreadable file": (directory_instead, 5),
    "duplicate sids": (lambda path: path.write_text(GOOD + GOOD.splitlines()[0] + "\n"), 6),
    "cut short": (lambda path: path.write_text(GOOD[: len(GOOD) // 2]), 5),
    "a web page": (lambda path: path.write_text("<html>\n<body>captive portal</body>\n"), 2),
}
"""How a rule file is spoilt, and how many rules the set says it has."""


@pytest.fixture(scope="module")
def care(tmp_path_factory: pytest.TempPathFactory, waiting: Callable[..., Any]) -> Iterator[Care]:
    """Looked at four times as often as a box, but in the test that asks how long that takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "EVERY_S", watch.EVERY_S / 4)
        patch.setattr(watch, "COUNTERS_S", 0.1)
        yield from cared_for(tmp_path_factory, waiting)


def cared_for(tmp_path_factory: pytest.TempPathFactory, waiting: Callable[..., Any]) -> Iterator[Care]:
    directory = tmp_path_factory.mktemp("care")
    care = Care(directory, made(directory, "good", GOOD, 5))
    try:
        waiting(lambda: care.in_force("good", 5), 40, "a proven set")
        yield care
    finally:
        care.end()


def ask(care: Care, waiting: Callable[..., Any], wanted: RuleSet) -> Standing:
    """Load by command; what is said when that has ended."""
    before, starts = care.engine.account.loads, care.engine.state.starts
    care.wanted = wanted
    care.engine.request_reload()
    waiting(lambda: care.engine.account.loads > before and care.engine.state.phase == "running", 50, "the load's end")
    said = waiting(lambda: (now := care.standing()) and now.loads > before and now.canary_at and now, 10, "its word")
    assert isinstance(said, Standing) and care.engine.state.starts >= starts
    return said


def signal_engine(care: Care, waiting: Callable[..., Any]) -> None:
    """Somebody has the engine read its files again; returns when it has, or has ended over it."""
    pid, before = care.engine.state.pid, reload_time(care)
    os.kill(pid, signal.SIGUSR2)
    waiting(lambda: care.engine.state.pid != pid or reload_time(care) != before, 20, "the signal's reload")


def reload_time(care: Care) -> object:
    try:
        return control.ask(care.settings.control_socket, "ruleset-reload-time").message
    except PeerError:
        return None


def rule_file(care: Care) -> Path:
    load = care.engine.account.load
    assert load is not None
    return load.file


def back_in_force(
    care: Care, waiting: Callable[..., Any], began: float, silent: int, count: int = 5, bound_s: float = 30.0
) -> None:
    """The engine was noticed to be silent within 5 s, and has the good set again, proven, within `bound_s`."""
    waiting(lambda: care.signatures().count("silent") > silent, 5 - (time.monotonic() - began), "that it is silent")
    noticed = time.monotonic() - began
    waiting(lambda: care.signatures()[-1] == "repaired" and care.in_force("good", count), bound_s, "the repair")
    print(f"noticed {noticed:.1f} s, repaired {time.monotonic() - began:.1f} s")


def test_a_set_in_force_is_said_to_be_so_by_count_and_canary(care: Care) -> None:
    now = care.standing()
    assert now is not None and (now.canary, now.expected, now.failed, now.refused) == ("caught", 5, 0, "")
    assert "started" in care.health()


@pytest.mark.parametrize("how", SPOILT)
def test_by_command_a_bad_set_is_refused_and_the_last_good_one_is_in_force(
    care: Care, waiting: Callable[..., Any], how: str, tmp_path: Path
) -> None:
    spoil, count = SPOILT[how]
    bad = made(tmp_path, "bad", GOOD, count)
    spoil(bad.file)
    pid = care.engine.state.pid
    said = ask(care, waiting, bad)
    assert said.refused == "bad" and said.why and said.proven and (said.set_id, said.rules) == ("good", 5)
    assert care.engine.state.pid == pid, "live"


def test_by_command_a_good_set_is_in_force_and_forgives_what_was_refused(
    care: Care, waiting: Callable[..., Any], tmp_path: Path
) -> None:
    said = ask(care, waiting, made(tmp_path, "better", rules(7), 7))
    assert said.proven and (said.set_id, said.rules, said.refused, said.why) == ("better", 7, "", "")
    said = ask(care, waiting, made(tmp_path, "good", GOOD, 5))
    assert said.proven and said.set_id == "good"


def test_by_command_a_spoilt_configuration_is_written_anew(
    care: Care, waiting: Callable[..., Any], tmp_path: Path
) -> None:
    (care.settings.control_socket.parent / "suricata.yaml").write_text("%YAML 1.1\n---\n{ : [")
    said = ask(care, waiting, made(tmp_path, "good", GOOD, 5))
    assert said.proven and said.refused == ""


def test_by_command_a_huge_set_is_refused_unread(care: Care, waiting: Callable[..., Any], tmp_path: Path) -> None:
    huge = made(tmp_path, "huge", "", 5)
    with huge.file.open("wb") as out:
        out.truncate(rendering.MAX_SET_BYTES + 1)
    said = ask(care, waiting, huge)
    assert said.refused == "huge" and said.proven and said.set_id == "good"


def test_by_command_a_set_under_which_nothing_is_stopped_is_refused_though_it_loads_whole(
    care: Care, waiting: Callable[..., Any], tmp_path: Path
) -> None:
    blind = made(tmp_path, "blind", GOOD + "pass ip any any -> any any (sid:77; rev:1;)\n", 6)
    said = ask(care, waiting, blind)
    assert said.refused == "blind" and "got through" in said.why and said.proven and said.set_id == "good"


@pytest.mark.parametrize("by", ["command", "signal"])
def test_out_of_memory_in_a_load_the_last_good_set_is_in_force(
    care: Care, waiting: Callable[..., Any], tmp_path: Path, by: str
) -> None:
    pid = care.engine.state.pid
    status = Path(f"/proc/{pid}/status").read_text()
    pages = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize"))
    subprocess.run(["prlimit", f"--pid={pid}", f"--as={(pages << 10) + (2 << 20)}"], check=True)
    large = rules(4000, "large", "drop")
    if by == "command":
        said = ask(care, waiting, made(tmp_path, "large", large, 4000))
        assert said.refused == "large" and said.why
    else:
        rule_file(care).write_text(large)
        os.kill(pid, signal.SIGUSR2)
    waiting(lambda: care.engine.state.pid not in (0, pid) and care.in_force("good", 5), 40, "the good set")


def test_by_command_during_somebodys_reload_the_load_comes_after_it(
    care: Care, waiting: Callable[..., Any], tmp_path: Path
) -> None:
    many = made(tmp_path, "many", rules(1500, "many"), 1500)
    assert ask(care, waiting, many).proven
    os.kill(care.engine.state.pid, signal.SIGUSR2)  # reads fifteen hundred rules for a while
    said = ask(care, waiting, made(tmp_path, "good", GOOD, 5))
    assert said.proven and (said.set_id, said.rules) == ("good", 5)


@pytest.mark.parametrize(
    "how", [*list(SPOILT)[:5], *(pytest.param(n, marks=pytest.mark.full) for n in list(SPOILT)[5:])]
)
def test_by_signal_the_engine_falls_silent_which_is_noticed_and_repaired(
    care: Care, waiting: Callable[..., Any], how: str
) -> None:
    silent = care.signatures().count("silent")
    SPOILT[how][0](rule_file(care))
    signal_engine(care, waiting)
    began = time.monotonic()
    back_in_force(care, waiting, began, silent)


def test_by_signal_as_many_rules_of_another_set_are_noticed_by_the_canary(
    care: Care, waiting: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "EVERY_S", watch.EVERY_S * 4)
    silent = care.signatures().count("silent")
    rule_file(care).write_bytes(rules(5, "other").encode() + canary.rule("0123456789abcdef"))
    signal_engine(care, waiting)
    began = time.monotonic()
    back_in_force(care, waiting, began, silent)


@pytest.mark.parametrize("how", ["good", "bad yaml", "a huge file that nobody names"])
def test_by_signal_what_changes_nothing_is_no_trouble(care: Care, waiting: Callable[..., Any], how: str) -> None:
    told, pid = care.signatures(), care.engine.state.pid
    config = care.settings.control_socket.parent / "suricata.yaml"
    before = config.read_bytes()
    if how == "bad yaml":
        config.write_text("%YAML 1.1\n---\n{ : [")
    elif how.startswith("a huge"):
        (care.settings.control_socket.parent / "rules-0.rules").write_bytes(bytes(1 << 20))
    os.kill(pid, signal.SIGUSR2)
    looked = time.monotonic()
    waiting(lambda: (now := care.standing()) and now.canary_at > looked + 1, 10, "another look")
    config.write_bytes(before)
    assert care.in_force("good", 5) and care.signatures() == told and care.engine.state.pid == pid


def loads_begun(care: Care) -> int:
    """As the engine itself logs them."""
    return (care.settings.control_socket.parent / "engine.log").read_text().count("rule reload starting")


def test_by_signal_during_a_load_the_last_word_is_ours(care: Care, waiting: Callable[..., Any], tmp_path: Path) -> None:
    many = made(tmp_path, "many", rules(1500, "many"), 1500)
    before = loads_begun(care)
    care.wanted = many
    care.engine.request_reload()
    # Between the command and the load's begin a signal would hang the engine for good: its main loop then waits for
    # a load to end that it does not begin (suricata.c, SuricataMainLoop of 7.0).
    waiting(lambda: loads_begun(care) > before, 20, "the load's begin")
    os.kill(care.engine.state.pid, signal.SIGUSR2)
    waiting(lambda: care.in_force("many", 1500), 40, "the new set")
    assert ask(care, waiting, made(tmp_path, "good", GOOD, 5)).proven


@pytest.fixture
def hung(care: Care, hang: Callable[[Berth], None]) -> int:
    """Its engine hangs over somebody's load; its process id."""
    hang(care.engine._post.berth)
    return care.engine.state.pid


def test_an_engine_that_hangs_gets_no_other_set_and_the_one_beside_it_does(
    care: Care, waiting: Callable[..., Any], tmp_path: Path, hung: int
) -> None:
    starts = care.engine.state.starts
    assert ask(care, waiting, made(tmp_path, "more", rules(6, "more"), 6)).set_id == "more"
    assert care.engine.state.pid != hung and care.engine.state.starts == starts
    assert care.health()[-2:] == ["hangs", "renewed"]
    assert ask(care, waiting, made(tmp_path, "good", GOOD, 5)).proven


def test_a_set_that_does_not_load_beside_an_engine_that_hangs_is_refused_and_the_good_one_is_renewed(
    care: Care, waiting: Callable[..., Any], tmp_path: Path, hung: int
) -> None:
    starts = care.engine.state.starts
    said = ask(care, waiting, made(tmp_path, "bad", GOOD + BROKEN, 25))
    assert said.refused == "bad" and said.proven and said.set_id == "good"
    assert care.engine.state.pid != hung and care.engine.state.starts == starts


def test_a_muted_rule_is_out_and_one_on_trial_reports_within_seconds(
    care: Care, waiting: Callable[..., Any], tmp_path: Path
) -> None:
    drops = made(tmp_path, "drops", rules(4, "d", "drop"), 4)
    assert ask(care, waiting, drops).rules == 4
    began, pid = time.monotonic(), care.engine.state.pid
    muting.write(care.settings, "mine", Muting(sids=(1000, 999999), on_trial=(1001,)))
    waiting(lambda: (now := care.standing()) and now.proven and (now.rules, now.muted, now.soaking) == (3, 1, 1), 10)
    assert time.monotonic() - began < 10 and care.engine.state.pid == pid
    text = rule_file(care).read_text()
    assert "sid:1000;" not in text and text.count("drop ") == 3 and "alert udp" in text.splitlines()[0]
    muting.write(care.settings, "mine", Muting())
    waiting(lambda: care.in_force("drops", 4), 10, "all rules again")
    assert ask(care, waiting, made(tmp_path, "good", GOOD, 5)).proven


PAIR = """
import socket, sys
UDP = (socket.AF_INET, socket.SOCK_DGRAM)
with socket.socket(*UDP) as there, socket.socket(*UDP) as here:
    there.bind(("127.0.0.1", 0))
    there.settimeout(2)
    here.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(sys.argv[1]))
    for word in (b"SK-FIRST", b"SK-THEN", b"SK-END"):
        here.sendto(word, there.getsockname())
    found = []
    while not found or found[-1] != b"SK-END":
        found.append(there.recv(100))
    print(b" ".join(found).decode())
"""
"""Three packets of one connection through the engine's first queue; those that arrive."""


def test_a_muted_rule_that_another_needs_goes_on_in_silence(
    care: Care, waiting: Callable[..., Any], tmp_path: Path
) -> None:
    text = (
        'drop udp any any -> any any (msg:"first"; content:"SK-FIRST"; flowbits:set,sk.t; sid:1; rev:1;)\n'
        'drop udp any any -> any any (msg:"then"; content:"SK-THEN"; flowbits:isset,sk.t; sid:2; rev:1;)\n'
    )
    assert ask(care, waiting, made(tmp_path, "pair", text, 2)).proven
    send = ["nsenter", f"--net=/proc/{care.engine.state.pid}/ns/net", sys.executable, "-c", PAIR, str(marks.CANARY)]
    assert subprocess.run(send, capture_output=True, text=True, check=True).stdout == "SK-END\n"
    muting.write(care.settings, "centre", Muting(sids=(1,)))
    waiting(lambda: (now := care.standing()) and now.proven and now.muted == 1, 10, "the muting")
    alerts = care.settings.eve.read_text().count('"signature_id":1,')
    assert subprocess.run(send, capture_output=True, text=True, check=True).stdout == "SK-FIRST SK-END\n"
    assert care.settings.eve.read_text().count('"signature_id":1,') == alerts == 1
    muting.write(care.settings, "centre", Muting())
    assert ask(care, waiting, made(tmp_path, "good", GOOD, 5)).proven


def test_a_killed_engine_is_followed_by_one_with_the_last_proven_set(care: Care, waiting: Callable[..., Any]) -> None:
    pid = care.engine.state.pid
    os.kill(pid, signal.SIGKILL)
    waiting(lambda: (now := care.standing()) and not now.proven, 5, "that nothing is proven now")
    waiting(lambda: care.engine.state.pid not in (0, pid) and care.in_force("good", 5), 40, "the good set")


def stopped(care: Care) -> int:
    """Packets that the engine has counted as stopped; it sums every eight seconds."""
    message = control.ask(care.settings.control_socket, "dump-counters").message
    return int(message["ips"]["blocked"]) if isinstance(message, dict) else 0


def test_canaries_leave_nothing_behind_and_are_not_counted(care: Care, waiting: Callable[..., Any]) -> None:
    """The engine before this one was killed: nothing but canaries has passed this one."""
    waiting(lambda: stopped(care) > 0, 20, "the engine's own counting")
    began = time.monotonic()
    now = waiting(lambda: (now := care.standing()) and now.canary_at > began + 1 and now, 10, "a later look")
    assert (now.accepted, now.blocked) == (0, 0)
    assert "9000099" not in care.settings.eve.read_text(), "no alert"


@pytest.mark.full
@pytest.mark.timeout(600)
def test_twenty_thousand_rules_lost_are_noticed_within_five_seconds_and_back_within_thirty(
    tmp_path: Path, waiting: Callable[..., Any]
) -> None:
    found = sorted(SHARED.glob("*.rules.xz"))
    if not found:
        pytest.skip("the public rules are not here")
    lines = lzma.decompress(found[0].read_bytes()).decode().splitlines()
    real = [line for line in lines if line.strip() and not line.startswith("#") and "sid:2025232;" not in line]
    started = time.monotonic()
    care = Care(tmp_path, made(tmp_path, "good", "".join(f"{line}\n" for line in real), len(real)))
    try:
        waiting(lambda: care.in_force("good", len(real)), 300, "the set proven")
        busy_s = 2 * (time.monotonic() - started)  # a machine that has other work is measured by its own start
        rule_file(care).unlink()
        signal_engine(care, waiting)
        began = time.monotonic()
        back_in_force(care, waiting, began, 0, len(real), max(30.0, busy_s))
    finally:
        care.end()
