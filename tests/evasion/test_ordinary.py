"""What ordinary servers send to ordinary clients is never cut and never changed: over the box as over a bare bridge.

Everything is asked for twice, beside the box and through it, and the answers are compared byte for byte: body,
status, number of bytes and how the client ended.
"""

# ruff: noqa: E501 - tables

from __future__ import annotations

import base64
import datetime as dt
import json
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import captures
import cases
import ordinary
import pytest
from chromium import Chromium
from ordinary import APACHE, NGINX, NODE, PORTS, PYTHON
from server import answering

from sekisho.lab.evader import Script
from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4, SERVER6
from sekisho.telemetry.events import FileVerdict

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

AT_ONCE = 4
REPORT = "\\n%{http_code} %{size_download} %{num_redirects} %{num_connects}"
SMALL: Final = [f"{size}.{kind}" for size in ("0", "1", "100", "1k", "1460", "64k") for kind in ordinary.KINDS]
LARGE: Final = ["1m.txt", "1m.html", "1m.bin", "1m.jpg", "1m.gz", "20m.bin", "20m.txt"]
CAPTURED: Final = (
    "filemagic-flowbits__pdf-dl", "filestore-filecontainer-http__filecontainer-http", "filestore-v2.1-forced__suricata-update-pdf",
    "http-ipv6", "http-range-file",
)  # fmt: skip


def at(port: int, path: str, host: str = SERVER4) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/{path}"


def static(port: int) -> dict[str, list[str]]:
    """What any server of files is asked for."""
    asked: dict[str, list[str]] = {}
    for name in SMALL + LARGE:
        asked[f"get {name}"] = [at(port, name, SERVER6 if "k" in name else SERVER4)]
        asked[f"packed {name}"] = ["--compressed", at(port, name)]
    for name in ("0.txt", "1.bin", "1k.html", "64k.txt", "1m.bin"):
        asked[f"1.0 {name}"] = ["--http1.0", at(port, name)]
        asked[f"head {name}"] = ["-I", "-o", "/dev/null", at(port, name)]
        asked[f"head packed {name}"] = ["-I", "-o", "/dev/null", "--compressed", at(port, name)]
    asked["kept connection"] = [at(port, name) for name in SMALL]
    asked["kept connection, packed"] = ["--compressed", *(at(port, name) for name in SMALL)]
    asked["not there"] = [at(port, "not-there")]
    asked["listing"] = [at(port, "list/")]
    since = "Wed, 14 Nov 2035 00:00:00 GMT"
    asked["not modified"] = ["-H", f"If-Modified-Since: {since}", at(port, "1k.txt"), at(port, "1k.html")]
    return asked


def ranges(port: int) -> dict[str, list[str]]:
    asked = {}
    for name in ("1k.txt", "64k.bin", "1m.bin"):
        for wanted in ("0-0", "0-99", "100-199", "500-", "-100", "900-2000"):
            asked[f"range {wanted} of {name}"] = ["-r", wanted, at(port, name)]
    asked["range beyond"] = ["-r", "99999999-", at(port, "1k.txt")]
    return asked


ASKED: Final[dict[str, dict[str, list[str]]]] = {
    "nginx": static(NGINX) | ranges(NGINX) | {
        name: ["--compressed", *argv] for name, argv in {
            "ssi": [at(NGINX, "page.shtml")], "moved": ["-L", at(NGINX, "moved")], "moved, not followed": [at(NGINX, "moved")],
            "nothing": [at(NGINX, "nothing"), at(NGINX, "1k.txt"), at(NGINX, "nothing")], "teapot": [at(NGINX, "teapot")], "broken": [at(NGINX, "broken")],
            "gone": [at(NGINX, "gone")], "slow": [at(NGINX, "slow/1m.bin")], "bad gateway": [at(NGINX, "away")], "proxied": [at(NGINX, "node/chunked/1m.txt")],
            "proxied 1.0": [at(NGINX, "node10/chunked/1m.txt")], "proxied events": [at(NGINX, "node/events/60")], "proxied trailers": [at(NGINX, "node/trailers")],
            "upload": ["--data-binary", "@{www}/1m.bin", at(NGINX, "post")], "options": ["-X", "OPTIONS", at(NGINX, "1k.txt")],
        }.items()
    },
    "apache": static(APACHE) | ranges(APACHE) | {
        "ssi": ["--compressed", at(APACHE, "page.shtml")], "cgi": [at(APACHE, "cgi/script")], "cgi packed": ["--compressed", at(APACHE, "cgi/script")],
        "brotli": ["--compressed", *(at(APACHE, f"brotli/{name}") for name in SMALL + LARGE)], "moved": ["-L", at(APACHE, "moved")], "gone": [at(APACHE, "gone")],
        "old client": ["-A", "old", at(APACHE, "64k.txt")], "forbidden": [at(APACHE, "cgi/")], "not a method": ["-X", "BREW", at(APACHE, "1k.txt")],
        "options": ["-X", "OPTIONS", at(APACHE, "1k.txt")],
    },
    "node": {
        f"{kind} {name}": ["--compressed", at(NODE, f"{kind}/{name}")]
        for kind in ("chunked", "gzip", "deflate", "raw", "br", "close", "sized") for name in ("0.txt", "1.txt", "1k.html", "64k.bin", "1m.txt", "1m.gz", "20m.txt")
    } | {
        "tiny chunks": [at(NODE, "tiny-chunks/64k.txt")], "flushed": ["--compressed", at(NODE, "flushed")], "events": [at(NODE, "events/60")], "slow events": [at(NODE, "events/400")],
        "trailers": [at(NODE, "trailers"), at(NODE, "trailers")], "hints": [at(NODE, "hints"), at(NODE, "chunked/1k.txt"), at(NODE, "hints")], "fields": [at(NODE, "fields")], "utf-16": [at(NODE, "utf16")],
        "multipart": [at(NODE, "multipart")], "upload": ["--data-binary", "@{www}/1m.bin", at(NODE, "post")], "upload, asked first": ["-H", "Expect: 100-continue", "--data-binary", "@{www}/20m.bin", at(NODE, "post")],
        "upload of nothing": ["-X", "POST", at(NODE, "post")], "chunked upload": ["-H", "Transfer-Encoding: chunked", "--data-binary", "@{www}/1m.txt", at(NODE, "post")], "form": ["-F", "file=@{www}/64k.bin", "-F", "a=b", "-H", "Content-Type: multipart/form-data; boundary=fixed", at(NODE, "status/200")],
        "put": ["-T", "{www}/64k.txt", at(NODE, "post")], "delete": ["-X", "DELETE", at(NODE, "status/200")],
    } | {f"status {code}": [at(NODE, f"status/{code}"), at(NODE, "chunked/100.txt")] for code in (200, 201, 202, 203, 204, 205, 206, 300, 301, 304, 400, 401, 403, 404, 405, 409, 410, 422, 429, 500, 501, 502, 503)},
    "python": {name: argv for name, argv in static(PYTHON).items() if "modified" not in name},
}  # fmt: skip


@pytest.fixture(scope="module")
def served(box: Lab, bare: Lab) -> Iterator[dict[str, Path]]:
    """The servers behind both."""
    with ExitStack() as stack:
        yield {lab.lay.name: stack.enter_context(ordinary.serving(lab)) for lab in (box, bare)}


def ask(lab: Lab, www: Path, argv: list[str]) -> tuple[int, bytes]:
    done = lab.run(
        "lan",
        ["curl", "-s", "--max-time", "60", "-w", REPORT, *(word.replace("{www}", str(www)) for word in argv)],
        timeout_s=90,
    )
    return done.returncode, done.stdout


def told_bad(lab: Lab, since: dt.datetime) -> list[FileVerdict]:
    events = (row.event for row in lab.events())
    return [
        event
        for event in events
        if isinstance(event, FileVerdict)
        and event.outcome.startswith("block")
        and dt.datetime.fromisoformat(event.at) >= since
    ]


def compare(box: Lab, bare: Lab, served: dict[str, Path], asked: dict[str, list[str]]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        without, through = (
            list(pool.map(lambda argv, lab=lab: ask(lab, served[lab.lay.name], argv), asked.values()))
            for lab in (bare, box)
        )
    assert [name for name, (code, _) in zip(asked, without, strict=True) if code] == []
    different = {
        name: (got[0], len(got[1]), got[1][-40:], "instead of", should[0], len(should[1]), should[1][-40:])
        for name, should, got in zip(asked, without, through, strict=True)
        if should != got
    }
    assert different == {}


@pytest.mark.parametrize("server", list(ASKED))
def test_answers_are_the_same_as_without_the_box(box: Lab, bare: Lab, served: dict[str, Path], server: str) -> None:
    """Every kind of request, and a quarter of those that differ in the file alone."""
    asked = ASKED[server]
    plain = [name for name in asked if name.split(" ")[0] in ("get", "packed", "1.0", "range")]
    compare(
        box,
        bare,
        served,
        {name: argv for name, argv in asked.items() if name not in plain or zlib.crc32(name.encode()) % 4 == 0},
    )


@pytest.mark.full
@pytest.mark.parametrize("server", list(ASKED))
def test_all_answers_are_the_same_five_times_over(box: Lab, bare: Lab, served: dict[str, Path], server: str) -> None:
    for _ in range(5):
        compare(box, bare, served, ASKED[server])


@pytest.mark.parametrize("server", ["nginx", "apache", "node", "python"])
def test_chromium_reads_what_the_servers_hold(box: Lab, served: dict[str, Path], server: str) -> None:
    prefix = "chunked/" if server == "node" else ""
    names = [name for name in SMALL + LARGE if not name.startswith("20m")]
    port = PORTS[server]
    with Chromium(box) as browser:
        base = at(port, f"{prefix}1k.html")
        got = browser.fetch(base, [at(port, prefix + name) for name in names])
    www = served[box.lay.name]
    assert [name for name in names if got[at(port, prefix + name)] != (www / name).read_bytes()] == []


def speak(lab: Lab, port: int, turns: list[tuple[bytes, int]], host: str = SERVER4) -> list[bytes]:
    """What came for each of `turns` (what to send, how much to wait for), on one connection."""
    task = {
        "host": host,
        "port": port,
        "turns": [(base64.b64encode(sent).decode(), awaited) for sent, awaited in turns],
    }
    script = Path(ordinary.__file__).with_name("speaker.py")
    done = lab.run(
        "lan", [sys.executable, "-I", str(script)], stdin=json.dumps(task).encode(), timeout_s=120, check=True
    )
    return [base64.b64decode(line) for line in done.stdout.splitlines()]


def test_requests_sent_before_the_answers_came(box: Lab, served: dict[str, Path]) -> None:
    """Pipelining, RFC 9112 9.3.2."""
    names = ["1k.bin", "0.bin", "64k.bin", "1.bin", "1460.bin"] * 4
    asked = b"".join(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for name in names)
    www = served[box.lay.name]
    one = {
        name: speak(
            box, NGINX, [(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), (www / name).stat().st_size + 200)]
        )
        for name in ("1k.bin",)
    }
    assert (www / "1k.bin").read_bytes() in one["1k.bin"][0]
    (got,) = speak(box, NGINX, [(asked + b"GET /100.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 1 << 30)])
    at_byte = 0
    for name in [*names, "100.bin"]:
        body = (www / name).read_bytes()
        at_byte = got.index(b"\r\n\r\n", at_byte) + 4
        assert got[at_byte : at_byte + len(body)] == body
        at_byte += len(body)
    assert at_byte == len(got)


def test_a_websocket_speaks_both_ways(box: Lab, served: dict[str, Path]) -> None:
    """RFC 6455: after the 101 it is no HTTP any more."""
    ask_it = b"GET /chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
    large = b"\x82\xfe\xff\xff\0\0\0\0" + ordinary.contents("bin", 65_535)
    turns = [(ask_it, 129), *[(hello, len(hello))] * 20, (large, len(large)), (hello, len(hello))]
    upgraded, *echoed = speak(box, NODE, turns)
    assert upgraded.startswith(b"HTTP/1.1 101 ")
    assert echoed == [sent for sent, _ in turns[1:]]


def test_a_download_that_is_resumed(box: Lab, served: dict[str, Path], tmp_path: Path) -> None:
    """A clean file fetched in parts by `curl -C -` is the whole file."""
    should = (served[box.lay.name] / "1m.bin").read_bytes()
    out = tmp_path / "part"
    out.write_bytes(should[:300_001])
    done = box.run("lan", ["curl", "-s", "-C", "-", "-o", str(out), at(NGINX, "1m.bin")])
    assert done.returncode == 0
    assert out.read_bytes() == should


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_conversations_are_delivered(box: Lab, name: str) -> None:
    pcap = cases.DATA / f"{name}.pcap"
    if not pcap.exists():
        pytest.skip(f"the captures are not at hand: {pcap}")
    for number, talk in enumerate(captures.talks(pcap)):
        scripts: dict[str, Script] = {talk.request: talk.script()}
        with answering(box, scripts, 8100 + number):
            got = speak(box, 8100 + number, [(sent, sum(map(len, segments))) for sent, segments in talk.turns])
            assert got == [b"".join(segments) for _, segments in talk.turns]


def test_nothing_of_all_this_was_called_bad(box: Lab) -> None:
    """The centre has heard of no blocked file in this lab."""
    assert told_bad(box, dt.datetime.fromtimestamp(0, dt.UTC)) == []
