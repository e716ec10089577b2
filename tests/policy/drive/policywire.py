"""A policy before the installed Suricata: conversations written by scapy, and what the rules say of each."""

from __future__ import annotations

import datetime as dt
import json
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from sekisho.appliance.core.settings import Paths, Settings
from sekisho.policy import build
from sekisho.policy.selectors import Roster
from sekisho.signatures.tester import engine_config

FRAME = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:01")
INSIDE, OUTSIDE = "192.168.7.10", "203.0.113.9"
INSIDE6, OUTSIDE6 = "fd00::10", "2001:db8::9"
NOON = dt.datetime(2026, 11, 18, 12, 0, tzinfo=dt.UTC)


class Capture:
    """Conversations by name."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.names: dict[int, str] = {}

    def _port(self, name: str) -> int:
        port = 40000 + len(self.names)
        self.names[port] = name
        return port

    def tcp(
        self, name: str, port: int, *talk: bytes, client: str = INSIDE, server: str = OUTSIDE, cut: int = 1400
    ) -> None:
        """The client says each of `talk` and gets a short answer."""
        sport = self._port(name)
        seq = {True: 1000, False: 9000}

        def send(up: bool, flags: str, data: bytes = b"") -> None:
            src, dst, sp, dp = (client, server, sport, port) if up else (server, client, port, sport)
            ip = IPv6(src=src, dst=dst) if ":" in src else IP(src=src, dst=dst)
            segment = TCP(sport=sp, dport=dp, flags=flags, seq=seq[up], ack=seq[not up] if "A" in flags else 0)
            self.packets.append(FRAME / ip / segment / Raw(data) if data else FRAME / ip / segment)
            seq[up] += len(data) + ("S" in flags) + ("F" in flags)

        for up, flags in ((True, "S"), (False, "SA"), (True, "A")):
            send(up, flags)
        for data in talk:
            for at in range(0, len(data), cut):
                send(True, "PA", data[at : at + cut])
                send(False, "A")
            if data[:1].isalpha():
                send(False, "PA", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                send(True, "A")
        for up, flags in ((True, "FA"), (False, "FA"), (True, "A")):
            send(up, flags)

    def udp(self, name: str, port: int, *datagrams: bytes, client: str = INSIDE) -> None:
        sport = self._port(name)
        ip = IPv6(src=client, dst=OUTSIDE6) if ":" in client else IP(src=client, dst=OUTSIDE)
        self.packets += [FRAME / ip / UDP(sport=sport, dport=port) / Raw(data) for data in datagrams]

    def get(self, name: str, host: str | bytes, target: str | bytes = "/", **where: Any) -> None:
        self.tcp(name, 80, request(host, target), **where)

    def tls(self, name: str, host: str, **where: Any) -> None:
        self.tcp(name, 443, client_hello(host), **where)

    def dns(self, name: str, host: str, qtype: int = 1, **where: Any) -> None:
        self.udp(name, 53, question(host, qtype), **where)


def request(host: str | bytes, target: str | bytes = "/", line: bytes = b"GET %s HTTP/1.1") -> bytes:
    host, target = (text.encode() if isinstance(text, str) else text for text in (host, target))
    return line % target + b"\r\nHost: " + host + b"\r\nAccept: */*\r\n\r\n"


def client_hello(host: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.wrap_bio(incoming, outgoing, server_hostname=host).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def question(host: str, qtype: int = 1) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in host.split("."))
    return b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0" + labels + b"\0" + qtype.to_bytes(2, "big") + b"\0\x01"


@dataclass(frozen=True)
class Said:
    """One policy alert."""

    name: str
    function: str
    entry: str
    action: str
    exception: str = ""


def hear(
    policy: str, capture: Capture, work: Path, roster: Roster | None = None, now: dt.datetime = NOON
) -> list[Said]:
    """What the engine says of each conversation under a policy."""
    for folder in ("run/eve", "run/suricata", "run/inspect", "run/filestore"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    (work / "policy.toml").write_text(policy)
    made = build.plan(work / "policy.toml", work / "policy")
    build.write(made, made.state(roster or Roster(), now, dt.UTC))
    settings = Settings(box="b", paths=Paths(run=str(work / "run"), state=str(work / "state")))
    (work / "suricata.rules").write_bytes((made.directory / build.RULES).read_bytes())
    (work / "engine.yaml").write_text(engine_config(settings, work))
    for number, packet in enumerate(capture.packets):
        packet.time = 1_700_000_000 + number / 1000
    wrpcap(str(work / "c.pcap"), capture.packets)
    argv = ["suricata", "-c", str(work / "engine.yaml"), "-r", str(work / "c.pcap"), "-l", str(work), "-k", "none"]
    done = subprocess.run(
        [*argv, "--simulate-ips", "--runmode", "single"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("E")]
    assert errors == []
    lines = (work / "run" / "eve" / "eve.json").read_bytes().splitlines()
    assert lines, "the engine saw nothing"
    said = []
    for event in map(json.loads, lines):
        meta = event.get("alert", {}).get("metadata", {})
        if "sekisho_function" in meta:
            words = [meta.get(f"sekisho_{key}", [""])[0] for key in ("function", "entry", "action", "exception")]
            said.append(Said(capture.names.get(event["src_port"], "?"), *words))
    return said
