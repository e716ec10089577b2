"""A policy before the installed Suricata: conversations written by scapy, and what the rules say of each."""

from __future__ import annotations

import datetime as dt
import json
import os
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from hpack import Encoder
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from sekisho.appliance.core.settings import Paths, Settings
from sekisho.policy import build
from sekisho.policy.rewrite import rewrite
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
            if data[:1].isalpha() and not data.startswith(b"PRI "):
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


def http2(*hosts: str) -> bytes:
    """What a client that knows HTTP/2 says without TLS: one request per host."""
    frames = [(4, 0, 0, b"")]
    encoder = Encoder()
    for number, host in enumerate(hosts):
        head = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", host)]
        frames.append((1, 5, 2 * number + 1, encoder.encode(head)))
    out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for kind, flags, stream, body in frames:
        out += len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
    return out


def initials(host: str, padding: int = 0) -> list[bytes]:
    """The first datagrams of a real QUIC client that asks for `host`; `padding` bytes make its hello longer."""
    protocols = ["h3", *("x" * 200 for _ in range(padding // 200))]
    config = QuicConfiguration(is_client=True, server_name=host, alpn_protocols=protocols)
    client = QuicConnection(configuration=config)
    client.connect(("192.0.2.1", 443), now=0.0)
    return [data for data, _ in client.datagrams_to_send(now=0.0)]


@dataclass(frozen=True)
class Said:
    """One policy alert."""

    name: str
    function: str
    entry: str
    action: str
    exception: str = ""


def hear(
    policy: str,
    capture: Capture,
    work: Path,
    roster: Roster | None = None,
    now: dt.datetime = NOON,
    signatures: tuple[str, ...] = (),
) -> list[Said]:
    """What the engine says of each conversation under a policy, with `signatures` beside it."""
    return listen(policy, capture, work, roster, now, signatures)[0]


def listen(
    policy: str,
    capture: Capture,
    work: Path,
    roster: Roster | None = None,
    now: dt.datetime = NOON,
    signatures: tuple[str, ...] = (),
) -> tuple[list[Said], float]:
    """The same, with the most memory the engine ever had, in MB."""
    for folder in ("run/eve", "run/suricata", "run/inspect", "run/filestore"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    (work / "policy.toml").write_text(policy)
    made = build.plan(work / "policy.toml", work / "policy")
    build.write(made, made.state(roster or Roster(), now, dt.UTC))
    compiled = made.compiled
    lines = rewrite(signatures, made.policy.signatures, compiled.signature_exceptions, {}, compiled.book.number)
    rules = (made.directory / build.RULES).read_text() + "".join(f"{line}\n" for line in lines)
    (work / "suricata.rules").write_text(rules)
    settings = Settings(box="b", paths=Paths(run=str(work / "run"), state=str(work / "state")))
    (work / "engine.yaml").write_text(engine_config(settings, work))
    for number, packet in enumerate(capture.packets):
        packet.time = 1_700_000_000 + number / 1000
    wrpcap(str(work / "c.pcap"), capture.packets)
    peak_mb = _run(work)
    heard = (work / "run" / "eve" / "eve.json").read_bytes().splitlines()
    assert heard, "the engine saw nothing"
    return [said for said in (_said(json.loads(line), capture) for line in heard) if said], peak_mb


def _run(work: Path) -> float:
    argv = ["suricata", "-c", str(work / "engine.yaml"), "-r", str(work / "c.pcap"), "-l", str(work), "-k", "none"]
    with (work / "log").open("wb") as log:
        engine = subprocess.Popen([*argv, "--simulate-ips", "--runmode", "single"], stdout=log, stderr=log)
        _, status, used = os.wait4(engine.pid, 0)
        engine.returncode = os.waitstatus_to_exitcode(status)
    text = (work / "log").read_text()
    assert engine.returncode == 0, text[-2000:]
    assert [line for line in text.splitlines() if line.startswith("E")] == []
    return used.ru_maxrss / 1024


def _said(event: dict[str, Any], capture: Capture) -> Said | None:
    alert = event.get("alert", {})
    meta = alert.get("metadata", {})
    if "sekisho_action" in meta:
        words = [meta.get(f"sekisho_{key}", [""])[0] for key in ("function", "entry", "action", "exception")]
        return Said(capture.names.get(event["src_port"], "?"), *words)
    if "signature_id" in alert:
        action = "block" if alert["action"] == "blocked" else "log"
        return Said(capture.names.get(event["src_port"], "?"), "signature", str(alert["signature_id"]), action)
    return None
