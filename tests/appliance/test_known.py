"""The rules about known files before the installed engine: which files they find, at which packet, and no others."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from sekisho.appliance import known, suricata
from sekisho.appliance.core.known import KnownFile, KnownFiles
from sekisho.appliance.core.settings import parse
from sekisho.appliance.rendering import RuleSet, count_rules

SIZES = (known.SMALL.start, 1000, 20_000, known.SMALL.stop - 1, known.SMALL.stop, 60_000, 300_000)
MSS = 1400
OK = b"HTTP/1.1 200 OK\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n"
SET = "5e7"


def content(size: int, seed: int = 0) -> bytes:
    return b"MZ" + random.Random(size + seed).randbytes(size - 2)


def chunked(body: bytes) -> bytes:
    return b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + 8000]), body[at : at + 8000]) for at in range(0, len(body), 8000)
    )


def download(shape: str, body: bytes) -> list[tuple[bool, bytes]]:
    """What client (True) and server say; the last that is said of the body stands alone."""
    packed = gzip.compress(body, mtime=0)
    upload = b"POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = (False, OK + b"Content-Length: 2\r\n\r\nok")
    match shape:
        case "length":
            return [(True, GET), (False, OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)]
        case "gzip":
            head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
            return [(True, GET), (False, head + packed)]
        case "chunked":
            head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
            return [(True, GET), (False, head + chunked(body)), (False, b"0\r\n\r\n")]
        case "close":
            return [(True, GET), (False, OK + b"Connection: close\r\n\r\n" + body)]
        case "upload":
            return [(True, upload + body), answer]
    mail = (
        b"From: a@a.example\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream; name=a.exe\r\n"
        b"Content-Disposition: attachment; filename=a.exe\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    ) + base64.encodebytes(body).replace(b"\n", b"\r\n")
    said: list[tuple[bool, bytes]] = [(False, b"220 a\r\n")]
    for line in (b"EHLO a", b"MAIL FROM:<a@a.example>", b"RCPT TO:<b@b.example>"):
        said += [(True, line + b"\r\n"), (False, b"250 ok\r\n")]
    return [*said, (True, b"DATA\r\n"), (False, b"354 go\r\n"), (True, mail + b".\r\n"), (False, b"250 ok\r\n")]


class Wire:
    """A capture of conversations by name, and the number of the packet with which each one's content was complete."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.names: dict[int, str] = {}
        self.complete: dict[str, int] = {}

    def talk(self, name: str, port: int, says: list[tuple[bool, bytes]]) -> None:
        client = 40_000 + len(self.names)
        self.names[client] = name
        seq = {True: 1000, False: 9000}

        def send(up: bool, flags: str, data: bytes = b"") -> None:
            ends = ("10.0.0.10", "203.0.113.9", client, port) if up else ("203.0.113.9", "10.0.0.10", port, client)
            src, dst, sport, dport = ends
            segment = TCP(sport=sport, dport=dport, flags=flags, seq=seq[up], ack=seq[not up] if "A" in flags else 0)
            packet = Ether() / IP(src=src, dst=dst) / segment
            self.packets.append(packet / Raw(data) if data else packet)
            seq[up] += len(data) + ("S" in flags) + ("F" in flags)

        for up, flags in ((True, "S"), (False, "SA"), (True, "A")):
            send(up, flags)
        for up, data in says:
            for at in range(0, len(data), MSS):
                send(up, "PA", data[at : at + MSS])
                if at + MSS >= len(data) and len(data) >= known.SMALL.start and data != GET:
                    self.complete.setdefault(name, len(self.packets))
                send(not up, "A")
        for up, flags in ((True, "FA"), (False, "FA"), (True, "A")):
            send(up, flags)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Wire, dict[str, set[int]]]]:
    """The capture, and at which packets the rules found something in each conversation."""
    work = tmp_path_factory.mktemp("known")
    settings = parse(f'box="b"\n[inspection]\nqueues=1\n[paths]\nrun="{work}/run"\nstate="{work}/state"')
    files = [KnownFile(hashlib.sha256(content(size)).hexdigest(), size, ["Bad"]) for size in SIZES]
    (settings.sets / SET).mkdir(parents=True)
    (settings.sets / "current").symlink_to(SET)
    settings.known_files.write_bytes(msgspec.json.encode(KnownFiles(SET, files)))
    chosen = known.KnownFiles(settings).choose(RuleSet("none", work / "none.rules", 0)).known
    assert chosen is not None
    rules = work / "told.rules"
    rules.write_text(chosen.read_text().replace("noalert; ", ""))
    wire = Wire()
    for size in SIZES:
        for shape in ("length", "gzip", "chunked", "close", "upload", "mail"):
            for kind, body in (("bad", content(size)), ("clean", content(size, 1))):
                wire.talk(f"{kind} {shape} {size}", 25 if shape == "mail" else 80, download(shape, body))
    wrpcap(str(work / "a.pcap"), wire.packets)
    for path in (settings.eve.parent, settings.files_socket.parent, settings.control_socket.parent, settings.filestore):
        path.mkdir(parents=True, exist_ok=True)
    (work / "a.yaml").write_text(suricata.model(settings, [rules]).render())
    argv = ["suricata", "-c", str(work / "a.yaml"), "-r", str(work / "a.pcap"), "-l", str(work), "-k", "none"]
    argv += ["--simulate-ips", "--runmode", "single", "--set", "unix-command.enabled=no"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    seen: dict[str, set[int]] = {}
    for line in settings.eve.read_text().splitlines():
        event = json.loads(line)
        if event["event_type"] == "alert":
            port = event["src_port"] if event["src_port"] in wire.names else event["dest_port"]
            seen.setdefault(wire.names[port], set()).add(event.get("pcap_cnt", 0))
    yield wire, seen


def test_every_small_file_is_found_at_the_packet_that_completes_it(found: tuple[Wire, dict[str, set[int]]]) -> None:
    wire, seen = found
    for size in SIZES:
        for shape in ("length", "gzip", "chunked", "close", "upload", "mail"):
            name = f"bad {shape} {size}"
            if size in known.SMALL:
                assert wire.complete[name] in seen[name], name
                assert min(at for at in seen[name] if at) == wire.complete[name], "not before"


def test_a_large_file_is_found_when_it_closes(found: tuple[Wire, dict[str, set[int]]]) -> None:
    wire, seen = found
    for size in (size for size in SIZES if size not in known.SMALL):
        for shape in ("length", "gzip", "upload", "mail"):
            assert wire.complete[f"bad {shape} {size}"] in seen[f"bad {shape} {size}"], (shape, size)
        assert seen[f"bad chunked {size}"], "with the chunk that ends it"


def test_nothing_else_is_found(found: tuple[Wire, dict[str, set[int]]]) -> None:
    wire, seen = found
    assert [name for name in seen if name.startswith("clean")] == []
    assert sum(name.startswith("clean") for name in wire.names.values()) == 6 * len(SIZES)


@pytest.mark.parametrize("files", [[], [KnownFile("ab" * 32, 100)]])
def test_the_engine_takes_the_rules_whatever_is_known(tmp_path: Path, files: list[KnownFile]) -> None:
    """It refuses a rule whose list of hashes is empty, and calls the whole set refused."""
    settings = parse(f'box="b"\n[paths]\nrun="{tmp_path}/run"\nstate="{tmp_path}/state"')
    (settings.sets / SET).mkdir(parents=True)
    (settings.sets / "current").symlink_to(SET)
    settings.known_files.write_bytes(msgspec.json.encode(KnownFiles(SET, files)))
    chosen = known.KnownFiles(settings).choose(RuleSet("none", tmp_path / "none.rules", 0)).known
    assert chosen is not None and count_rules(chosen) == 8
    (tmp_path / "a.yaml").write_text(suricata.model(settings, [chosen]).render())
    argv = ["suricata", "-T", "-c", str(tmp_path / "a.yaml"), "-l", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_another_sets_files_are_not_refused(tmp_path: Path) -> None:
    settings = parse(f'box="b"\n[paths]\nrun="{tmp_path}/run"\nstate="{tmp_path}/state"')
    settings.sets.mkdir(parents=True)
    (settings.sets / "current").symlink_to("new")
    settings.known_files.write_bytes(msgspec.json.encode(KnownFiles("old", [KnownFile("ab" * 32, 100)])))
    known.KnownFiles(settings).choose(RuleSet("none", tmp_path / "none.rules", 0))
    assert all("ab" * 32 not in path.read_text() for path in (settings.state / "known").iterdir())


def test_where_nothing_is_to_be_stopped_there_are_no_such_rules(tmp_path: Path) -> None:
    settings = parse(f'box="b"\n[inspection]\nmode="detect"\n[paths]\nrun="{tmp_path}/run"\nstate="{tmp_path}/state"')
    assert known.KnownFiles(settings).choose(RuleSet("none", tmp_path / "none.rules", 0)).known is None
