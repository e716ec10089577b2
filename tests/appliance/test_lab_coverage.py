"""Every byte that crossed a real box is accounted for, each in its class: the ports' own counters are the judge."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import dpkt
import msgspec
import pytest

from sekisho.appliance.core.settings import load
from sekisho.appliance.coverage import State
from sekisho.appliance.netfilter import GATE_QUEUE
from sekisho.appliance.watchdog import parse_queues
from sekisho.lab import layout
from sekisho.lab.lab import Lab
from sekisho.telemetry.events import Coverage, Device, Event

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

WATCHDOG_S = 0.15
"""The watchdog looks ten times a second; what changes in between is noticed so late."""
SENDING_S = 7
FRAME = 1200 + 8 + 20 + 14
SEND_UDP = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
until = time.monotonic() + float(sys.argv[1])
sent = []
while time.monotonic() < until:
    sock.sendto(bytes(1200), ("10.77.0.1", int(sys.argv[2])))
    sent.append(time.time())
    time.sleep(0.0005)
print(*sent)
"""
FLOODED = 11000
FLOOD_UDP = f"""
import os, signal, socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("10.77.0.1", 9))
send, body, engine = sock.send, bytes(100), int(sys.argv[1])
os.setpriority(os.PRIO_PROCESS, 0, -20)
os.kill(engine, signal.SIGSTOP)
try:
    for _ in range({FLOODED}):
        try:
            send(body)
        except ConnectionRefusedError:
            send(body)
finally:
    os.kill(engine, signal.SIGCONT)
"""
"""Quicker than the watchdog calls an engine hung, also on a busy machine: what waits for nobody takes 0.15 s."""
SEND_FRAMES = """
import socket
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
for _ in range(2000):
    sock.send(bytes.fromhex("0277000000010277000000" + "10" + "88b5") + bytes(1000))
"""

REPLAY = """
import socket, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
for frame in sys.argv[1:]:
    sock.send(bytes.fromhex(frame))
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(f"x{os.getpid()}-coverage") as made:
        made.up()
        yield made


class Measured:
    """What one step added: to the ports' counters, and to the client's and everybody's tally."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.before = self._now()
        self.off_s: float = self.before[1]["off_seconds"]

    def _now(self) -> tuple[int, dict[str, Any]]:
        told = self.told()
        return self._ports(), told

    def _ports(self) -> int:
        text = self.lab.run("box", ["sh", "-c", "cat /sys/class/net/eth-[lw]an/statistics/tx_bytes"]).stdout
        return sum(map(int, text.split()))

    def told(self) -> dict[str, Any]:
        argv = [sys.executable, "-I", "-m", "sekisho.appliance.cli", "box", "coverage", "--json", "--hours", "48"]
        done = self.lab.run("box", [*argv, "--settings", str(self.lab.lay.box_settings)])
        return dict(json.loads(done.stdout))

    def done(self) -> None:
        ports, told = self._now()
        self.ports = ports - self.before[0]
        self.off_s = told["off_seconds"] - self.before[1]["off_seconds"]
        self.all = minus(told["total"], self.before[1]["total"])
        self.client = minus(of_client(told), of_client(self.before[1]))
        self.summed = sum(self.all.values())


def of_client(told: dict[str, Any]) -> dict[str, Any]:
    return next((d["tally"] for d in told["devices"] if d["mac"] == layout.CLIENT_MAC), {})


def flat(tally: dict[str, Any]) -> dict[str, int]:
    return {key: value for key, value in tally.items() if key != "bypassed"} | dict(tally.get("bypassed", {}))


def minus(after: dict[str, Any], before: dict[str, Any]) -> dict[str, int]:
    later, earlier = flat(after), flat(before)
    return {key: value - earlier.get(key, 0) for key, value in later.items() if value != earlier.get(key, 0)}


def test_every_kind_of_traffic_is_counted_in_its_class_and_the_sum_is_the_ports(lab: Lab) -> None:
    whole = Measured(lab)
    steps = {
        "inspected": [
            ["curl", "-sS", "-o", "/dev/null", f"http://{layout.SERVER4}/clean/20m.bin"],
            ["curl", "-gsS", "-o", "/dev/null", f"http://[{layout.SERVER6}]/clean/1m.bin"],
            ["curl", "-sS", "-o", "/dev/null", "--data-binary", f"@{lab.lay.www}/clean/1m.bin", f"http://{layout.SERVER4}:8080/upload"],
            ["ping", "-q", "-c", "300", "-i", "0.002", "-s", "1300", layout.SERVER4],
            [sys.executable, "-c", SEND_UDP, "1", "9"],
        ],
        "opaque": [
            ["curl", "-sSk", "-o", "/dev/null", f"https://{layout.SERVER4}/clean/20m.bin"],
            [sys.executable, "-c", SEND_UDP, "1", "443"],
        ],
        "unseen": [[sys.executable, "-c", SEND_FRAMES]],
    }  # fmt: skip
    for kind, commands in steps.items():
        for command in commands:
            step = Measured(lab)
            lab.run("lan", command, check=False)
            step.done()
            print(kind, *command[:1], step.ports, step.all)
            assert step.ports > 200_000
            assert step.summed == pytest.approx(step.ports, rel=0.01, abs=2000), (command, step.all, step.ports)
            assert step.client.get(kind, 0) == pytest.approx(step.ports, rel=0.02, abs=4000), (command, step.all)
    whole.done()
    assert whole.summed == pytest.approx(whole.ports, rel=0.01)
    assert whole.off_s == 0


def test_what_is_larger_than_the_gate_looks_at_is_not_called_inspected(lab: Lab) -> None:
    limit = load(lab.lay.box_settings).inspection.scan_limit_mb << 20
    with (lab.lay.www / "clean" / "large.bin").open("wb") as large:
        large.truncate(limit + (16 << 20))
    whole = Measured(lab)
    url = f"http://{layout.SERVER4}/clean/large.bin"
    got = lab.run("lan", ["curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", url]).stdout
    whole.done()
    print(whole.ports, whole.all)
    assert int(got) == limit + (16 << 20)
    assert whole.client["too_large"] == pytest.approx(16 << 20, rel=0.25), "from where the gate gave it up"
    assert whole.client["inspected"] == pytest.approx(whole.ports - whole.client["too_large"], rel=0.01)
    assert whole.summed == pytest.approx(whole.ports, rel=0.01)


def bypasses(lab: Lab) -> dict[str, tuple[float, float]]:
    """When each reason's last bypass ended (wall clock) and how long it was, as the box reported."""
    path = load(lab.lay.box_settings).journals / "appliance.jsonl"
    found = [e for e in map(json.loads, path.read_text().splitlines()) if e["type"] == "bypass"]
    ended = [e for e in found if e.get("state") == "ended"]
    return {e["reason"]: (datetime.fromisoformat(e["at"]).timestamp(), e["seconds"]) for e in ended}


def noted(lab: Lab, reason: str, since: float) -> float:
    """When (wall clock) the account took down, after `since`, that the engine is away for `reason`; waits for it."""
    path = load(lab.lay.box_settings).state / "coverage" / "now.json"
    read: list[float] = []

    def look() -> bool:
        state = msgspec.json.decode(path.read_bytes(), type=State)
        read.append(time.time() - time.monotonic() + state.boot_mono)
        return state.away.engine == reason and read[-1] > since

    lab.wait(look, f"the account does not say {reason or 'that the engine is back'}", 60)
    return read[-1]


@pytest.mark.parametrize(("reason", "by"), [("hung", signal.SIGSTOP), ("absent", signal.SIGKILL)])
def test_what_passes_while_the_engine_is_away_is_said(lab: Lab, reason: str, by: signal.Signals) -> None:
    lab.wait(lab.inspecting, "the box does not inspect", 60)
    if reason == "absent":  # what an ended engine missed is told in bytes of the average packet since the last reading
        restart_engine(lab)
    whole = Measured(lab)
    sender = lab.popen("lan", [sys.executable, "-c", SEND_UDP, str(SENDING_S), "9"])
    try:
        gone = time.time()
        engine = lab.kill("suricata", by)
        began = noted(lab, reason, gone)
        if reason == "hung":
            lab.wait(lambda: Measured(lab).off_s - whole.off_s > 3, "no time goes by")
            os.kill(engine, signal.SIGCONT)
        lab.wait(lab.inspecting, "the box does not inspect again", 60)
        lab.wait(lambda: bypasses(lab).get(reason, (0, 0))[0] > gone, "the bypass is not reported")
        ended = noted(lab, "", began)
        sent = [float(word) for word in sender.communicate(timeout=2 * SENDING_S)[0].split()]
    finally:
        sender.kill()
        sender.wait()
    whole.done()
    end, seconds = bypasses(lab)[reason]
    told = whole.client[f"engine_{reason}"]
    # A hung engine looks at what its queue holds, when it works again. One that ended has seen nothing since, and when
    # it was last seen at its queue nothing was missing.
    least = FRAME * sum((began if reason == "hung" else gone) <= at <= end for at in sent)
    most = FRAME * sum((end - seconds if reason == "hung" else gone) - 1 <= at <= ended for at in sent)
    print(reason, whole.ports, whole.all, whole.off_s, seconds, least, told, most, began - gone, ended - end)
    assert whole.summed == pytest.approx(whole.ports, rel=0.01)
    assert whole.off_s == pytest.approx(ended - began, abs=WATCHDOG_S)
    assert seconds == pytest.approx(end - gone, abs=1)
    assert 0.98 * least <= told <= 1.02 * most
    assert set(whole.all) <= {"inspected", "unseen", "opaque", f"engine_{reason}"}


def taken(lab: Lab) -> int:
    text = lab.run("box", ["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout.decode()
    return sum(queue.sequence for number, queue in parse_queues(text).items() if number < GATE_QUEUE)


def restart_engine(lab: Lab) -> None:
    """A change of what inspects is a reason to read the counters at once."""
    lab.wait(lab.inspecting, "the box does not inspect", 60)
    killed = time.time()
    lab.kill("suricata")
    lab.wait(lambda: not lab.inspecting(), "nobody notices")
    lab.wait(lab.inspecting, "the box does not inspect again", 60)
    noted(lab, "", killed)


def overflow(lab: Lab) -> tuple[Measured, int]:
    """Stop the engine while more arrives than its queue holds: what was measured, how many were shed."""
    restart_engine(lab)
    whole, before = Measured(lab), taken(lab)
    lab.run("lan", [sys.executable, "-c", FLOOD_UDP, str(lab.pid("suricata"))], check=True)
    return whole, FLOODED - (taken(lab) - before)


def test_what_a_full_queue_lets_pass_is_not_called_inspected(lab: Lab) -> None:
    for _ in range(5):
        whole, shed = overflow(lab)
        if Measured(lab).off_s == whole.off_s:
            break  # on a busy machine it may take so long that the watchdog calls it hung, which is another matter
    restart_engine(lab)
    whole.done()
    print(whole.all, shed)
    assert shed > 1000, "the queue did not overflow"
    assert whole.all["engine_overload"] == pytest.approx(shed * (100 + FRAME - 1200), rel=0.1)
    assert whole.summed == pytest.approx(whole.ports, rel=0.01)


def test_a_daemon_that_is_killed_loses_no_byte_and_counts_none_twice(lab: Lab) -> None:
    lab.wait(lab.inspecting, "the box does not inspect", 60)
    whole, former = Measured(lab), lab.pid("appliance")
    sender = lab.popen("lan", [sys.executable, "-c", SEND_UDP, "4", "9"])
    try:
        os.kill(former, signal.SIGKILL)
        lab.wait(lambda: lab.pid("appliance") not in (0, former) and lab.inspecting(), "it is not started again", 60)
        sender.communicate(timeout=30)
    finally:
        sender.kill()
        sender.wait()
    whole.done()
    print(whole.all)
    assert whole.summed == pytest.approx(whole.ports, rel=0.01)
    assert whole.client["inspected"] == pytest.approx(whole.ports, rel=0.02), "the engine went on all the time"
    assert whole.off_s == 0


def covers(mac: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Coverage) and event.mac == mac


def of_hour(covered: Callable[[Event], bool], hour: str, event: Event) -> bool:
    return covered(event) and isinstance(event, Coverage) and event.hour == hour


def test_a_full_hour_becomes_events_at_the_centre_and_adds_up(lab: Lab) -> None:
    """The daemon is stopped and finds, when it starts, that the hour it was counting is over."""
    lab.run("lan", ["ping", "-q", "-c", "5", "-i", "0.01", layout.SERVER4])
    lab.stop("appliance")
    path = load(lab.lay.box_settings).state / "coverage" / "now.json"
    state = msgspec.json.decode(path.read_bytes(), type=State)
    assert state.stopped
    counted = {mac: tally.total for mac, tally in state.hour.devices.items() if tally.total}
    state.hour.hour = "2026-01-01T00:00:00Z"
    path.write_bytes(msgspec.json.encode(state))
    lab.run("lan", ["ping", "-q", "-c", "100", "-i", "0.002", "-s", "1300", layout.SERVER4])
    lab.start("appliance")
    lab.wait(lab.inspecting, "the box does not inspect", 60)
    told = {}
    for mac in counted:
        found = lab.wait_event(partial(of_hour, covers(mac), state.hour.hour), 20).event  # one of the clock may end too
        assert isinstance(found, Coverage)
        told[mac] = found
    client = told[layout.CLIENT_MAC]
    stopped = {share.why: share.octets for share in client.bypassed}["box_stopped"]
    assert stopped == pytest.approx(2 * 100 * (1300 + 8 + 20 + 14), rel=0.02)
    whole = client.inspected + client.opaque + client.unseen + sum(share.octets for share in client.bypassed)
    assert whole == pytest.approx(counted[layout.CLIENT_MAC] + stopped, abs=2000)
    assert client.off_seconds > 0


def test_the_table_for_people_names_the_device_and_its_shares(lab: Lab) -> None:
    argv = [sys.executable, "-I", "-m", "sekisho.appliance.cli", "box", "coverage"]
    lines = lab.run("box", [*argv, "--settings", str(lab.lay.box_settings)]).stdout.decode().splitlines()
    print(*lines, sep="\n")
    assert any(line.startswith(layout.CLIENT_MAC) and line.count("%") == 4 for line in lines)
    assert any(line.startswith("total 合計") for line in lines)


def test_a_device_that_announces_itself_reaches_the_centre_and_the_owners_table(lab: Lab) -> None:
    """Real announcements, replayed from the office, one of them inside a VLAN."""
    with Path(__file__).with_name("announcements.pcap").open("rb") as source:
        announced = [frame for _, frame in dpkt.pcap.Reader(source)]
    tagged = next(frame for frame in announced if b"KEIRI" in frame or b"\x08uketsuke" in frame)
    announced.append(tagged[:6] + bytes.fromhex("00a0de777777") + bytes.fromhex("81000007") + tagged[12:])
    lab.run("lan", [sys.executable, "-c", REPLAY, *(frame.hex() for frame in announced)])
    found = lab.wait_event(lambda event: isinstance(event, Device) and event.name == "kaigi-tablet").event
    assert isinstance(found, Device)
    assert (found.mac, found.kind, found.random_mac) == ("3c:97:0e:12:34:56", "phone", False)
    assert found.vendor.startswith("Wistron")
    lab.wait_event(lambda event: isinstance(event, Device) and event.mac == "00:a0:de:77:77:77" and event.name != "")
    argv = [sys.executable, "-I", "-m", "sekisho.appliance.cli", "box", "devices"]
    argv += ["--settings", str(lab.lay.box_settings)]
    lab.wait(lambda: "kaigi-tablet" in lab.run("box", argv).stdout.decode(), "the table does not show it", 10)
