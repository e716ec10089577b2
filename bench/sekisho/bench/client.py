"""The office's side of a measurement: runs inside the lab's client namespace and prints one JSON line.

Standard library only, so that it starts quickly and its own work does not show in the figures.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import time
from typing import TypedDict

PORT = 80
CHUNK = 1 << 16
TIMEOUT_S = 30


class Fetched(TypedDict):
    seconds: list[float]
    short: int


class Beaten(TypedDict):
    sent: dict[str, float]


def fetch(host: str, path: str, count: int) -> Fetched:
    """Seconds from the request to the last byte of `count` downloads, each on a connection of its own.

    "{}" in `path` becomes the download's number.
    """
    seconds: list[float] = []
    short = 0
    for number in range(count):
        with socket.create_connection((host, PORT), TIMEOUT_S) as link:
            began = time.perf_counter()
            link.sendall(f"GET {path.format(number)} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            ended, whole = _drain(link)
        seconds.append(ended - began)
        short += not whole
    return {"seconds": seconds, "short": short}


def _drain(link: socket.socket) -> tuple[float, bool]:
    head = b""
    while b"\r\n\r\n" not in head:
        data = link.recv(CHUNK)
        if not data:
            return time.perf_counter(), False
        head += data
    text, _, body = head.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in text.split(b"\r\n")[1:])
    left = int(fields[b"content-length"]) - len(body)
    buffer = bytearray(CHUNK)
    while left > 0:
        taken = link.recv_into(buffer)
        if not taken:
            return time.perf_counter(), False
        left -= taken
    return time.perf_counter(), True


def beacon(host: str, path: str, count: int) -> Beaten:
    """Ask for `path`/0, /1, ... 50 ms apart; the wall clock just before each request left.

    Each of another host: repeats for one and the same would be told together, a minute later.
    """
    sent: dict[str, float] = {}
    for number in range(count):
        with socket.create_connection((host, PORT), TIMEOUT_S) as link:
            # closed by RST: what the box dropped must not be sent again for minutes
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sent[f"{path}/{number}"] = time.time()
            link.sendall(f"GET {path}/{number} HTTP/1.1\r\nHost: {number}.{host}\r\n\r\n".encode())
            time.sleep(0.05)
    return {"sent": sent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("fetch", "beacon"))
    parser.add_argument("host")
    parser.add_argument("path")
    parser.add_argument("count", type=int)
    args = parser.parse_args()
    result = (fetch if args.what == "fetch" else beacon)(args.host, args.path, args.count)
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
