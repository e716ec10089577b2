"""What two receivers would read differently is in doubt, and what servers send every day never is."""

from __future__ import annotations

import ast
import gzip
import zlib
from pathlib import Path

import brotli
import pytest

from sekisho.inspect.streams import http1
from sekisho.inspect.streams.found import Found

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
EVIL = b"EVIL CONTENT THAT IS LONG ENOUGH TO BE CALLED A FILE"
CHUNKS = b"10\r\n%b\r\n24\r\n%b\r\n0\r\n\r\n" % (EVIL[:16], EVIL[16:])
OK = b"HTTP/1.1 200 OK\r\n"
TE, CL, CE = b"Transfer-Encoding: ", b"Content-Length: ", b"Content-Encoding: "
LENGTH = CL + b"52\r\n"
PACKED = gzip.compress(EVIL)


def found(data: bytes, asked: bytes = GET) -> list[Found]:
    return list(http1.responses(memoryview(data), memoryview(asked), limit=1 << 20))


DOUBTED = {
    "the answer does not begin as HTTP/1 does": [
        EVIL, b"HTTP/0.9 200 OK\r\n\r\n" + EVIL, b"HTTP/1.1 2 OK\r\n\r\n" + EVIL, b"HTTP/1.1  200 OK\r\n\r\n" + EVIL,
        b"http/1.1 200 OK\r\n\r\n" + EVIL, b"HTTP/1.1\t200 OK\r\n\r\n" + EVIL, b"HTTP/2 200\r\n\r\n" + EVIL,
        b"HTTP/1.1 200OK\r\n\r\n" + EVIL, b" " + OK + b"\r\n" + EVIL, b"HTTP/1.1 600 X\r\n\r\n" + EVIL,
    ],
    "the head is longer than 64 KiB": [OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n" + EVIL],
    "the head contains NUL": [OK + b"X: a\0b\r\n" + LENGTH + b"\r\n" + EVIL],
    "the head contains a bare CR": [
        OK + b"X: a\rContent-Length: 4\r\n" + LENGTH + b"\r\n" + EVIL, OK + LENGTH + b"X: y\r\r\n\r\n" + EVIL,
    ],
    "a line about framing is folded": [
        OK + TE + b"\r\n chunked\r\n\r\n" + CHUNKS, OK + CL + b"5\r\n 2\r\n\r\n" + EVIL,
        OK + b"X: y\r\n Content-Length: 4\r\n" + LENGTH + b"\r\n" + EVIL,
        OK + b"X: y\r\n \t\r\n" + LENGTH + b"\r\n" + EVIL,
    ],
    "a header line is malformed": [
        OK + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS, OK + b"Content-Length 4\r\n" + LENGTH + b"\r\n" + EVIL,
        OK + b"\x0bTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, OK + b"nothing at all\r\n" + LENGTH + b"\r\n" + EVIL,
    ],
    "a header about framing contains control characters": [
        OK + TE + b"\x0bchunked\r\n\r\n" + CHUNKS, OK + TE + b"chunked\x7f\r\n\r\n" + CHUNKS,
        OK + CE + b"gz\x08ip\r\n" + LENGTH + b"\r\n" + EVIL,
    ],
    "it changes to a protocol nobody asked for": [b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n" + EVIL],
    "the transfer coding has more than one reading": [
        OK + TE + b"chunked\r\n" + LENGTH + b"\r\n" + CHUNKS, OK + TE + b"chunked, identity\r\n\r\n" + CHUNKS,
        OK + TE + b"xchunked\r\n\r\n" + CHUNKS, OK + TE + b"gzip, chunked\r\n\r\n" + CHUNKS,
        OK + TE + b"chunked\r\n" + TE + b"chunked\r\n\r\n" + CHUNKS, OK + TE + b"identity\r\n\r\n" + CHUNKS,
        b"HTTP/1.0 200 OK\r\n" + TE + b"chunked\r\n\r\n" + CHUNKS, OK + TE + b'"chunked"\r\n\r\n' + CHUNKS,
        OK + TE + b"chunked;q=1\r\n\r\n" + CHUNKS,
    ],
    "an empty transfer coding": [OK + b"Transfer-Encoding:\r\n\r\n" + CHUNKS, OK + TE + b",\r\n\r\n" + CHUNKS],
    "the length has more than one reading": [
        OK + LENGTH + CL + b"4\r\n\r\n" + EVIL, OK + CL + b"+52\r\n\r\n" + EVIL, OK + CL + b"-1\r\n\r\n" + EVIL,
        OK + CL + b"0x34\r\n\r\n" + EVIL, OK + CL + b"52, 4\r\n\r\n" + EVIL, OK + CL + b"5 2\r\n\r\n" + EVIL,
        OK + CL + b"9" * 20 + b"\r\n\r\n" + EVIL, OK + b"Content-Length:\r\n\r\n" + EVIL,
        OK + CL + b"52a\r\n\r\n" + EVIL,
        OK + CL + "５２".encode() + b"\r\n\r\n" + EVIL,
    ],
    "a chunk size has more than one reading": [
        OK + TE + b"chunked\r\n\r\n" + line + EVIL[:16] + b"\r\n0\r\n\r\n"
        for line in (
            b"0x10\r\n", b"+10\r\n", b" 10\r\n", b"10\n", b"000000000010\r\n", b"zz\r\n", b"1 0\r\n", b"10;a\nb\r\n",
            b"10;" + b"x" * 3000 + b"\r\n", b"10\x0b\r\n", b"-1\r\n", b"10" + b" " * 200 + b"\r\n",
        )
    ],
    "a chunk is longer than it says": [
        OK + TE + b"chunked\r\n\r\n4\r\n" + EVIL + b"\r\n0\r\n\r\n",
        OK + TE + b"chunked\r\n\r\n34\r\n" + EVIL + b"\n0\r\n\r\n",
    ],
    "what follows the last chunk is no trailer": [
        OK + TE + b"chunked\r\n\r\n34\r\n" + EVIL + b"\r\n0\r\n" + b"\x01" + EVIL,
    ],
    "its content coding is not one anybody agreed on": [
        OK + CE + coding + b"\r\n" + CL + b"%d\r\n\r\n" % len(PACKED) + PACKED
        for coding in (b"xgzip", b"gzip;q=1", b"gzip-x", b"x-br", b"gzip deflate", b"lzma2")
    ],
    "it is not in the content coding it says": [
        OK + CE + coding + b"\r\n" + LENGTH + b"\r\n" + EVIL for coding in (b"gzip", b"deflate", b"zstd", b"gzip, gzip")
    ],
}  # fmt: skip


@pytest.mark.parametrize(("why", "number"), [(why, n) for why, cases in DOUBTED.items() for n in range(len(cases))])
def test_what_has_two_readings_is_in_doubt_and_each_is_looked_at(why: str, number: int) -> None:
    last = found(DOUBTED[why][number])[-1]
    assert last.trouble == why
    assert not last.complete, "nothing behind it can be told from it"
    parts = [bytes(part) for part in last.parts]
    assert any(EVIL in part or EVIL[:16] in part for part in parts), "the content is in none of the readings"


def test_every_rule_has_its_case() -> None:
    tree = ast.parse(Path(http1.__file__).read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs and " " in node.value
    }
    assert texts == set(DOUBTED)


def test_nothing_behind_what_is_in_doubt_is_called_clean() -> None:
    for cases in DOUBTED.values():
        for case in cases:
            objects = found(OK + b"Content-Length: 2\r\n\r\nok" + case)
            assert (objects[0].complete, objects[0].trouble) == (True, "")
            assert objects[-1].trouble
            assert objects[-1].start == len(OK) + 23


TEXT = b"<!doctype html><title>page</title>" * 40


def chunks(
    body: bytes, *, pad: bytes = b"", extension: bytes = b"", upper: bool = False, trailer: bytes = b""
) -> bytes:
    out = b""
    for at in range(0, len(body), 500):
        part = body[at : at + 500]
        size = b"%X" % len(part) if upper else b"%x" % len(part)
        out += size + pad + extension + b"\r\n" + part + b"\r\n"
    return out + b"0" + pad + b"\r\n" + trailer + b"\r\n"


NGINX = b"Server: nginx/1.26.0\r\nDate: Sat, 21 Nov 2026 09:00:00 GMT\r\nContent-Type: text/html; charset=utf-8\r\n"
APACHE = (
    b"Date: Sat, 21 Nov 2026 09:00:00 GMT\r\nServer: Apache/2.4.62 (Debian)\r\nUpgrade: h2,h2c\r\n"
    b"Connection: Upgrade, Keep-Alive\r\nKeep-Alive: timeout=5, max=100\r\nVary: Accept-Encoding\r\n"
    b'ETag: "2aa6-5f-gzip"\r\nAccept-Ranges: bytes\r\n'
)
NODE = (
    b"X-Powered-By: Express\r\ncontent-type: text/html\r\nDate: Sat, 21 Nov 2026 09:00:00 GMT\r\n"
    b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n"
)
PYTHON = b"Server: SimpleHTTP/0.6 Python/3.13.5\r\nDate: Sat, 21 Nov 2026 09:00:00 GMT\r\nContent-type: text/html\r\n"


def length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


ORDINARY = {
    "nginx": OK + NGINX + length(TEXT) + b"Connection: keep-alive\r\nETag: \"66\"\r\n\r\n" + TEXT,
    "nginx, gzip": OK + NGINX + TE + b"chunked\r\n" + CE + b"gzip\r\n\r\n" + chunks(gzip.compress(TEXT)),
    "nginx, brotli": OK + NGINX + TE + b"chunked\r\n" + CE + b"br\r\n\r\n" + chunks(brotli.compress(TEXT)),
    "nginx, an error": b"HTTP/1.1 404 Not Found\r\n" + NGINX + length(TEXT) + b"\r\n" + TEXT,
    "nginx, moved": b"HTTP/1.1 301 Moved Permanently\r\nLocation: http://a/b?c=gzip\r\n" + NGINX
    + length(TEXT) + b"\r\n" + TEXT,
    "apache": OK + APACHE + length(TEXT) + b"\r\n" + TEXT,
    "apache, gzip": OK + APACHE + CE + b"gzip\r\n" + length(gzip.compress(TEXT)) + b"\r\n" + gzip.compress(TEXT),
    "apache, padded chunks": OK + APACHE + TE + b"chunked\r\n\r\n" + chunks(TEXT, pad=b"  "),
    "apache, a range": b"HTTP/1.1 206 Partial Content\r\n" + APACHE + b"Content-Range: bytes 0-9/100\r\n"
    + length(TEXT[:10]) + b"\r\n" + TEXT[:10],
    "apache, not modified": b"HTTP/1.1 304 Not Modified\r\n" + APACHE + b"Content-Encoding: gzip\r\n\r\n",
    "node": OK + NODE + TE + b"chunked\r\n\r\n" + chunks(TEXT),
    "node, zlib": OK + NODE + CE + b"deflate\r\n" + TE + b"chunked\r\n\r\n" + chunks(zlib.compress(TEXT)),
    "node, a trailer": OK + NODE + b"Trailer: Server-Timing\r\n" + TE + b"chunked\r\n\r\n"
    + chunks(TEXT, trailer=b"Server-Timing: a;dur=1\r\n"),
    "node, empty": OK + NODE + b"Content-Length: 0\r\n\r\n",
    "node, no content": b"HTTP/1.1 204 No Content\r\n" + NODE + b"\r\n",
    "python": b"HTTP/1.0 200 OK\r\n" + PYTHON
    + length(TEXT) + b"Last-Modified: Sat, 21 Nov 2026 08:00:00 GMT\r\n\r\n" + TEXT,
    "iis": OK + b"Content-Type: text/html\r\nServer: Microsoft-IIS/10.0\r\nX-Powered-By: ASP.NET\r\n"
    + length(TEXT) + b"\r\n" + TEXT,
    "java": b"HTTP/1.1 200 \r\nContent-Type: text/html;charset=UTF-8\r\n" + TE
    + b"chunked\r\n\r\n" + chunks(TEXT, upper=True),
    "no reason": b"HTTP/1.1 200\r\n" + length(TEXT) + b"\r\n" + TEXT,
    "line feeds": b"HTTP/1.1 200 OK\nContent-Type: text/html\n" + length(TEXT).replace(b"\r", b"") + b"\n" + TEXT,
    "a length told twice alike": OK + length(TEXT) + length(TEXT) + b"\r\n" + TEXT,
    "a length among spaces": OK + b"Content-Length:   %d  \r\n\r\n" % len(TEXT) + TEXT,
    "a coding called identity": OK + CE + b"identity\r\n" + length(TEXT) + b"\r\n" + TEXT,
    "a coding that is a character set": OK + CE + b"utf-8\r\n" + length(TEXT) + b"\r\n" + TEXT,
    "chunk extensions": OK + TE + b"chunked\r\n\r\n" + chunks(TEXT, extension=b";ieof;a=\"b\""),
    "chunked, in capitals": OK + b"TRANSFER-ENCODING: Chunked\r\n\r\n" + chunks(TEXT),
    "a folded text": OK + b"X-Text: one\r\n two\r\n" + length(TEXT) + b"\r\n" + TEXT,
    "many cookies": OK + b"Set-Cookie: a=%b; path=/\r\n" % (b"c" * 3000) * 9 + length(TEXT) + b"\r\n" + TEXT,
    "text beyond ASCII": OK + "X-Title: 関所\r\n".encode() + length(TEXT) + b"\r\n" + TEXT,
    "a tiny body that is not what it says": OK + CE + b"gzip\r\n" + b"Content-Length: 2\r\n\r\nok",
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" + OK
    + length(TEXT) + b"\r\n" + TEXT,
    "line ends between": OK + length(TEXT) + b"\r\n" + TEXT + b"\r\n" + OK + length(TEXT) + b"\r\n" + TEXT,
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_what_servers_send_every_day_is_never_in_doubt(name: str) -> None:
    stream = ORDINARY[name]
    objects = found(stream)
    assert [one.trouble for one in objects] == [""] * len(objects)
    assert (objects[-1].complete, objects[-1].end) == (True, len(stream))
    if not name.endswith(("empty", "no content", "not modified", "what it says", "a range")):
        assert bytes(objects[-1].parts[0]) == TEXT
    for cut in range(0, len(stream), max(1, len(stream) // 300)):
        assert not [one.trouble for one in found(stream[:cut]) if one.trouble], f"its first {cut} bytes"
    assert not found(stream + stream)[-1].trouble


def test_until_the_close_is_ordinary_too() -> None:
    (one,) = found(b"HTTP/1.0 200 OK\r\n" + PYTHON + b"\r\n" + TEXT)
    assert (one.trouble, one.complete, bytes(one.parts[0])) == ("", False, TEXT)
    (one,) = found(b"ICY 200 OK\r\nicy-name: radio\r\n\r\n" + TEXT)
    assert (one.trouble, bytes(one.parts[0])) == ("", TEXT)
