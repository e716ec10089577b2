"""Answers HTTP requests over `rawtcp`, each by the trick its path names. Runs in the internet's namespace.

GET /OPENING/TRICK/bad, or .../clean, where `other` equals the true bytes. `python rawserver.py PORT` says "ready".
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import rawtcp
import tcp_tricks

from sekisho.lab.samples import EICAR


def answer(path: str, *, bad: bool) -> tuple[bytes, bytes]:
    """The true answer and the other one."""
    filler = b"words of the file that matter to nobody at all. " * 20
    clean = b"c" * len(EICAR)
    both = []
    for middle in (EICAR if bad else clean, b"o" * len(EICAR) if bad else clean):
        body = path.encode() + b"\n" + filler + middle + filler[:300]
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        both.append(head + body)
    return both[0], both[1]


def serve(conn: rawtcp.Conn, _: bytes) -> None:
    """One connection, its trick chosen by the port and then by the path."""
    kind = tcp_tricks.OPENINGS[conn.ends.here_port - PORTS.start]
    if kind == "wrap":
        conn.isn = 0xFFFF_FFFF - 1100
    early, _ = answer("/" + kind, bad=True)
    tcp_tricks.opening(kind, conn, early, rawtcp.syn_options)
    if kind == "simultaneous":
        conn.until(lambda: conn.acked >= 0 and bool(conn.heard), 1)
    if kind == "answer-first":
        conn.until(lambda: bool(conn.their_stamp), 0.2)
    conn.opened.set()
    if not conn.until(lambda: b"\r\n\r\n" in conn.heard):
        return
    path = conn.heard.split(b" ")[1].decode()
    data, other = answer(path, bad=path.endswith("/bad"))
    tcp_tricks.TRICKS[path.split("/")[1]](conn, data, other)
    conn.finish(data)


PORTS = range(0)

if __name__ == "__main__":
    PORTS = range(int(sys.argv[1]), int(sys.argv[1]) + len(tcp_tricks.OPENINGS))
    wire = rawtcp.Wire(PORTS, serve)
    print("ready", flush=True)
    wire.run()
