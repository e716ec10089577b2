"""The engine tells mailbox connections by what the server says first, on any port, and nothing else for one."""

from __future__ import annotations

import json
import subprocess

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from sekisho.appliance.core import marks
from sekisho.appliance.suricata import steer_rules

Talk = list[tuple[str, bytes]]
CASES: dict[str, tuple[int, Talk, set[int]]] = {
    "pop3": (110, [("<", b"+OK ready\r\n"), (">", b"USER a\r\n")], {marks.POP3}),
    "pop3 elsewhere": (9110, [("<", b"+OK ready <1.2@mx>\r\n"), (">", b"USER a\r\n")], {marks.POP3}),
    "pop3 in two pieces": (110, [("<", b"+"), ("<", b"OK ready\r\n")], {marks.POP3}),
    "imap": (143, [("<", b"* OK ready\r\n"), (">", b"a LOGIN b c\r\n")], {marks.IMAP}),
    "imap elsewhere": (9143, [("<", b"* PREAUTH hello\r\n"), (">", b"a NOOP\r\n")], {marks.IMAP}),
    "redis": (6379, [(">", b"PING\r\n"), ("<", b"+OK\r\n"), (">", b"PING\r\n"), ("<", b"+OK\r\n")], set()),
    "smtp": (25, [("<", b"220 ready\r\n"), (">", b"EHLO a\r\n"), ("<", b"250 +OK\r\n")], set()),
    "a list": (9000, [("<", b"* an item\r\n"), (">", b"x\r\n")], set()),
}


def conversation(client_port: int, port: int, talk: Talk) -> list[Packet]:
    ends = {">": ("192.0.2.7", "203.0.113.9", client_port, port), "<": ("203.0.113.9", "192.0.2.7", port, client_port)}
    seq = {">": 1000, "<": 5000}
    packets: list[Packet] = []

    def send(way: str, flags: str, data: bytes = b"") -> None:
        src, dst, sport, dport = ends[way]
        ack = seq["<" if way == ">" else ">"] if "A" in flags else 0
        head = IP(src=src, dst=dst) / TCP(sport=sport, dport=dport, flags=flags, seq=seq[way], ack=ack)
        packets.append(head / Raw(data) if data else head)
        seq[way] += len(data) + ("S" in flags) + ("F" in flags)

    send(">", "S")
    send("<", "SA")
    send(">", "A")
    for way, data in talk:
        send(way, "PA", data)
        send("<" if way == ">" else ">", "A")
    return packets


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> dict[int, set[int]]:
    """Mark bits by client port, as the packaged engine sets them."""
    work = tmp_path_factory.mktemp("steer")
    rules = [r for r in steer_rules().read_text().splitlines() if "sekisho steer: pop3" in r or "steer: imap" in r]
    (work / "steer.rules").write_text("".join(rule.replace(" noalert;", "") + "\n" for rule in rules))
    bits = {int(r.split("sid:")[1].split(";")[0]): int(r.split("/0x")[1].split(";")[0], 16) for r in rules}
    packets = [p for n, (port, talk, _) in enumerate(CASES.values()) for p in conversation(40000 + n, port, talk)]
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000 + number / 1000
    wrpcap(str(work / "talk.pcap"), packets)
    argv = ["suricata", "-r", str(work / "talk.pcap"), "-S", str(work / "steer.rules"), "-l", str(work), "-k", "none"]
    subprocess.run([*argv, "--runmode", "single"], capture_output=True, timeout=50, check=True)
    found: dict[int, set[int]] = {}
    for line in (work / "eve.json").read_bytes().splitlines():
        event = json.loads(line)
        if event["event_type"] == "alert":
            client = max(event["src_port"], event["dest_port"])
            found.setdefault(client, set()).add(bits[event["alert"]["signature_id"]])
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_connection_is_taken_for_what_its_server_says_it_is(name: str, marked: dict[int, set[int]]) -> None:
    assert marked.get(40000 + list(CASES).index(name), set()) == CASES[name][2]
