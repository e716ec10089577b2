"""An HTTP server that answers each request with bytes written down beforehand, segment by segment, whatever they are.

It knows nothing of HTTP but the request line: answers that no real server would give are what it is for. A
`Script` is picked by method and target of a connection's first request; every segment leaves in a packet of its
own as long as it fits into one. Runs on the internet side and is started by a test, not by the supervisor:
`python -m sekisho.lab.evader --scripts FILE --port 80`; says "ready" on stdout when it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import struct
from pathlib import Path
from typing import Literal

import msgspec

MAX_REQUEST_BYTES = 64 << 20
REQUEST_WITHIN_S = 20
CLIENT_CLOSES_WITHIN_S = 0.5

End = Literal["close", "client", "reset", "stay"]


class Turn(msgspec.Struct, frozen=True):
    """What is sent once so much was received."""

    segments: list[bytes]
    awaited: int = 0
    """Bytes of the client to read first; 0 = through the empty line that ends a request's head."""
    pause_s: float = 0.0
    """Between two segments."""


class Script(msgspec.Struct, frozen=True):
    """One connection as the server speaks it."""

    turns: list[Turn]
    end: End = "close"
    """close: at once; client: when the client has closed, or after half a second; reset; stay: the next request is
    looked up anew."""


Scripts = dict[str, Script]
"""By "METHOD target"."""


def plain(*segments: bytes, end: End = "close", pause_s: float = 0.0) -> Script:
    """One answer to one request."""
    return Script([Turn(list(segments), pause_s=pause_s)], end)


NOT_THERE = plain(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


async def _connection(scripts: Scripts, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    link: socket.socket = writer.get_extra_info("socket")
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        script = await _play(scripts, reader, writer)
        if script.end == "client":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLIENT_CLOSES_WITHIN_S):
                    while await reader.read(1 << 16):
                        pass
        if script.end == "reset":
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (OSError, EOFError, asyncio.LimitOverrunError, ValueError):
        pass  # the client went away, or was cut on its way: nothing to tell anyone
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _play(scripts: Scripts, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Script:
    while True:
        had = await _read(reader, b"", 0)
        script = scripts.get(" ".join(had.decode("latin-1").split(" ", 2)[:2]), NOT_THERE)
        for number, turn in enumerate(script.turns):
            if number or turn.awaited:
                had = await _read(reader, b"" if number else had, turn.awaited)
            for place, segment in enumerate(turn.segments):
                if place and turn.pause_s:
                    await asyncio.sleep(turn.pause_s)
                writer.write(segment)
                await writer.drain()
        if script.end != "stay":
            return script


async def _read(reader: asyncio.StreamReader, had: bytes, awaited: int) -> bytes:
    async with asyncio.timeout(REQUEST_WITHIN_S):
        if not awaited:
            return await reader.readuntil(b"\r\n\r\n")
        return had + await reader.readexactly(max(0, min(awaited, MAX_REQUEST_BYTES) - len(had)))


async def _serve(scripts: Scripts, ports: list[int]) -> None:
    links = []
    for port in ports:
        link = socket.create_server(("::", port), family=socket.AF_INET6, backlog=128, dualstack_ipv6=True)
        links.append(await asyncio.start_server(lambda r, w: _connection(scripts, r, w), sock=link))
    print("ready", flush=True)
    await asyncio.gather(*(link.serve_forever() for link in links))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scripts", type=Path, required=True)
    parser.add_argument("--port", type=int, action="append", required=True)
    args = parser.parse_args()
    asyncio.run(_serve(msgspec.json.decode(args.scripts.read_bytes(), type=Scripts), args.port))


if __name__ == "__main__":
    main()
