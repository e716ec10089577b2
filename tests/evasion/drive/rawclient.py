"""Uploads over `rawtcp`, by POST and by mail, each told by one of the tricks. Runs in the office's namespace.

In on stdin: JSON {here, there, mac of the other end, tasks: [[kind, trick, bad], ...]}; out: one JSON line a task,
in order, with what the server said. Every upload begins with the words "KIND/TRICK/bad" or ".../clean".
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import rawtcp
import tcp_tricks

from sekisho.lab.layout import SHAPES, SMTP
from sekisho.lab.samples import EICAR

PORTS = range(20_000, 24_000)
AT_ONCE = 6
FILLER = b"words of the upload that matter to nobody at all.\r\n" * 20
GREETING = (
    b"",
    b"EHLO pc.office.test\r\n",
    b"MAIL FROM:<tanaka@office.test>\r\n",
    b"RCPT TO:<suzuki@partner.test>\r\n",
    b"DATA\r\n",
)


def content(mark: str, *, bad: bool) -> tuple[bytes, bytes]:
    clean = b"c" * len(EICAR)
    first, second = (EICAR, b"o" * len(EICAR)) if bad else (clean, clean)
    made = [mark.encode() + b"\r\n" + FILLER + middle + b"\r\n" + FILLER[:300] for middle in (first, second)]
    return made[0], made[1]


def as_post(body: bytes) -> bytes:
    head = b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def as_mail(body: bytes) -> bytes:
    return (
        b"From: tanaka@office.test\r\nTo: suzuki@partner.test\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: application/octet-stream; name="file.bin"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n'
        + body
        + b"\r\n.\r\n"
    )


def upload(wire: rawtcp.Wire, ends: rawtcp.Ends, kind: str, trick: str, bad: bool) -> str:
    mail = kind.endswith("mail")
    conn = rawtcp.Conn(ends, wire.frame)
    wire.conns[(ends.there, ends.there_port, ends.here_port)] = conn
    stamp = int(time.monotonic() * 1000) & 0xFFFFFFFF
    for _ in range(3):
        conn.send(-1, b"", rawtcp.SYN, options=rawtcp.syn_options(stamp, 0))
        if conn.until(lambda: bool(conn.their_next), 1):
            break
    conn.opened.set()
    if kind == "deaf-mail":  # a reset that no receiver heeds, before the first word
        conn.send(0, b"", rawtcp.RST, bad_sum=True)
        conn.sent_to = 0
    if mail:
        for line in GREETING:
            seen = len(conn.heard) if line else 0
            conn.whole(line)
            if not conn.until(lambda seen=seen: conn.heard[seen:].endswith(b"\r\n")):  # type: ignore[misc]
                return f"no reply to {line!r}: {conn.heard!r} {conn.ended}"
            conn.rebase(len(line))
    wrap = as_mail if mail else as_post
    data, other = (wrap(body) for body in content(f"{kind}/{trick}/{'bad' if bad else 'clean'}", bad=bad))
    seen = len(conn.heard)
    tcp_tricks.TRICKS[trick](conn, data, other)
    if conn.repair:
        conn.until(lambda: conn.acked >= len(data), rawtcp.REPEAT_S)
        conn.whole(data)
    conn.until(lambda: b"\r\n" in conn.heard[seen:], rawtcp.PATIENCE_S)
    answer = conn.heard[seen:].split(b"\r\n")[0].decode("latin-1")
    conn.finish(data)
    return answer or conn.ended


def main() -> None:
    asked = json.load(sys.stdin)
    wire = rawtcp.Wire(PORTS)
    threading.Thread(target=wire.run, daemon=True).start()
    here_mac, there_mac = (
        bytes.fromhex(Path("/sys/class/net/eth0/address").read_text().strip().replace(":", "")),
        bytes.fromhex(asked["mac"].replace(":", "")),
    )

    def one(number: int, kind: str, trick: str, bad: bool) -> str:
        port = SMTP if kind.endswith("mail") else SHAPES
        ends = rawtcp.Ends(asked["here"], asked["there"], PORTS[number], port, here_mac, there_mac)
        return upload(wire, ends, kind, trick, bad)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for answer in pool.map(lambda job: one(job[0], *job[1]), enumerate(asked["tasks"], asked.get("first", 0))):
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
