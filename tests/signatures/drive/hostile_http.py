"""An HTTP server for one file that does to a download what real lines and hostile servers do."""

from __future__ import annotations

import http.server
import socket
import threading
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass
class Hostile:
    """Serves `data` at every path until told otherwise."""

    data: bytes
    cut_after: int = 0
    """Bytes of a body after which the connection ends; 0: never."""
    stall_after: int = -1
    drip_s: float = 0.0
    """Seconds between two bytes; 0: as fast as it goes."""
    status: int = 0
    """Answered instead of the file."""
    ranges: bool = True
    etag: str = '"one"'
    lie: str = ""
    """"range": another part than was asked for; "gzip": an encoding; "longer": more bytes than there are."""
    sent: int = 0
    """Bytes of bodies."""
    asked: int = 0
    paths: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        handler = type("Handler", (_Handler,), {"hostile": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.stalled = threading.Event()
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.stalled.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    hostile: ClassVar[Hostile]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        way = self.hostile
        way.asked += 1
        way.paths.append(self.path)
        if way.status:
            self.send_response(way.status)
            self.send_header("Content-Length", "0")
            if way.status in (301, 302):
                self.send_header("Location", f"{way.url}/again")
            self.end_headers()
            return
        start = self._start()
        body = way.data[start:]
        self.send_response(206 if start else 200)
        if start:
            told = start + 1 if way.lie == "range" else start
            self.send_header("Content-Range", f"bytes {told}-{len(way.data) - 1}/{len(way.data)}")
        if way.lie == "gzip":
            self.send_header("Content-Encoding", "gzip")
        if way.etag:
            self.send_header("ETag", way.etag)
        self.send_header("Content-Length", str(len(body) + (1 << 20 if way.lie == "longer" else 0)))
        self.end_headers()
        self._pour(body + (bytes(1 << 20) if way.lie == "longer" else b""))

    def _start(self) -> int:
        asked, condition = self.headers.get("Range", ""), self.headers.get("If-Range", "")
        if not self.hostile.ranges or not asked or condition != self.hostile.etag:
            return 0
        return int(asked.removeprefix("bytes=").split("-")[0])

    def _pour(self, body: bytes) -> None:
        way = self.hostile
        end = min(len(body), way.cut_after or len(body))
        try:
            while way.drip_s and not way.stalled.wait(way.drip_s):
                self.wfile.write(body[:1])
                way.sent += 1
                body = body[1:]
            for at in range(0, end, 8192):
                if 0 <= way.stall_after <= at:
                    way.stalled.wait(30)
                self.wfile.write(body[at : min(at + 8192, end)])
                way.sent += min(at + 8192, end) - at
        except OSError:
            self.close_connection = True
            return
        if end < len(body):
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""
