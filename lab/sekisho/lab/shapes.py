"""An HTTP server that sends one file in exactly the shape its URL names, so that tests choose every byte.

GET /SHAPE/PATH with SHAPE: identity, chunked, gzip, gzip-chunked, close (no length, ended by the
connection's end). "?mark=WORD" writes WORD over the file's first bytes: a file nobody has seen before.
POST /upload stores the body and answers with its size. Connections stay open.
Started by the supervisor: `python -m sekisho.lab.shapes --www DIR --uploads DIR`.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import socket
from collections.abc import Iterator
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sekisho.lab.layout import SHAPES

MAX_UPLOAD_BYTES = 64 << 20
CHUNK_BYTES = 16_000


class _Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, www: Path, uploads: Path) -> None:
        self.www = www
        self.uploads = uploads
        self.numbers = itertools.count(1)
        super().__init__(("::", SHAPES), _Handler)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        place, _, query = self.path.partition("?")
        shape, _, path = place.lstrip("/").partition("/")
        file = (self.server.www / path).resolve()
        if not file.is_relative_to(self.server.www) or not file.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        mark = query.removeprefix("mark=").encode() if query.startswith("mark=") else b""
        body = _packed(file, mark) if shape.startswith("gzip") else _plain(file, mark)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/octet-stream")
        if shape.startswith("gzip"):
            self.send_header("Content-Encoding", "gzip")
        if shape.endswith("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in _chunks(body):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")
            return
        if shape == "close":
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_UPLOAD_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(length)
        if len(body) < length:
            return  # cut on the way: nothing is stored, so a test can tell
        (self.server.uploads / f"{next(self.server.numbers):05d}").write_bytes(body)
        answer = b"%d\n" % len(body)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def _plain(file: Path, mark: bytes) -> bytes:
    return mark + file.read_bytes()[len(mark) :]


@lru_cache(maxsize=16)
def _packed(file: Path, mark: bytes) -> bytes:
    return gzip.compress(_plain(file, mark), compresslevel=1, mtime=0)


def _chunks(body: bytes) -> Iterator[bytes]:
    return (body[at : at + CHUNK_BYTES] for at in range(0, len(body), CHUNK_BYTES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--www", type=Path, required=True)
    parser.add_argument("--uploads", type=Path, required=True)
    options = parser.parse_args()
    _Server(options.www.resolve(), options.uploads).serve_forever()


if __name__ == "__main__":
    main()
