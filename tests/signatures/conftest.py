"""Packets written by scapy, read by the installed Suricata with the shipped rules and the box's own configuration."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from sekisho.appliance.core.settings import Paths, Settings
from sekisho.signatures.sources import SHIPPED
from sekisho.signatures.tester import engine_config

INSIDE, OUTSIDE = "192.168.7.10", "203.0.113.9"
LAN_MAC, WAN_MAC = "02:00:00:00:00:0a", "02:00:00:00:00:01"

Talk = list[tuple[str, bytes]]
Alerts = list[tuple[int, str]]


class Capture:
    """Whole conversations, each on a client port of its own."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self._port = 40000

    def tcp(self, port: int, talk: Talk, client: str = INSIDE, server: str = OUTSIDE) -> None:
        """`talk` is a list of (">" to the server or "<" to the client, bytes)."""
        self._port += 1
        sides = {">": (client, server, self._port, port), "<": (server, client, port, self._port)}
        seq = {">": 1000, "<": 5000}

        def send(way: str, flags: str, data: bytes = b"") -> None:
            src, dst, sport, dport = sides[way]
            other = "<" if way == ">" else ">"
            tcp = TCP(sport=sport, dport=dport, flags=flags, seq=seq[way], ack=seq[other] if "A" in flags else 0)
            packet = Ether(src=LAN_MAC, dst=WAN_MAC) / IP(src=src, dst=dst) / tcp
            self.packets.append(packet / Raw(data) if data else packet)
            seq[way] += len(data) + ("S" in flags) + ("F" in flags)

        send(">", "S")
        send("<", "SA")
        send(">", "A")
        for way, data in talk:
            for start in range(0, len(data), 1400):
                send(way, "PA", data[start : start + 1400])
                send("<" if way == ">" else ">", "A")
        send(">", "FA")
        send("<", "FA")
        send(">", "A")

    def udp(self, port: int, data: bytes) -> None:
        self._port += 1
        frame = Ether(src=LAN_MAC, dst=WAN_MAC) / IP(src=INSIDE, dst=OUTSIDE)
        self.packets.append(frame / UDP(sport=self._port, dport=port) / Raw(data))


@pytest.fixture(scope="session")
def new_capture() -> type[Capture]:
    return Capture


@pytest.fixture(scope="session")
def write_capture() -> Callable[[Path, Capture], Path]:
    def write(path: Path, capture: Capture) -> Path:
        for number, packet in enumerate(capture.packets):
            packet.time = 1_700_000_000 + number / 1000
        wrpcap(str(path), capture.packets)
        return path

    return write


@pytest.fixture(scope="session")
def replay() -> Callable[[Path, Path], Alerts]:
    """Every (sid, action) that the shipped rules report for a capture, or for a directory of captures."""

    def run(captures: Path, work: Path) -> Alerts:
        for folder in ("run/eve", "run/suricata", "run/inspect", "run/filestore"):
            (work / folder).mkdir(parents=True)
        settings = Settings(box="b", paths=Paths(run=str(work / "run"), state=str(work / "state")))
        rules = sorted((SHIPPED / "suricata").glob("*.rules"))
        (work / "suricata.rules").write_text("".join(path.read_text() for path in rules))
        (work / "engine.yaml").write_text(engine_config(settings, work))
        argv = ["suricata", "-c", str(work / "engine.yaml"), "-r", str(captures), "-l", str(work), "-k", "none"]
        argv += ["--simulate-ips", "--runmode", "single"] + ["--pcap-file-recursive"] * captures.is_dir()
        done = subprocess.run(argv, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        lines = (work / "run" / "eve" / "eve.json").read_bytes().splitlines()
        assert lines, "the engine saw nothing"
        alerts = [event["alert"] for event in map(json.loads, lines) if event["event_type"] == "alert"]
        return [(alert["signature_id"], alert["action"]) for alert in alerts]

    return run
