"""TCP ports: those that are listened on where a process lives, without connecting to any, and those that nobody has."""

from __future__ import annotations

import socket
from collections import deque
from pathlib import Path
from typing import Final

_LISTEN = "0A"
_GIVEN: Final[deque[int]] = deque(maxlen=1000)


def listening(pid: int) -> set[int]:
    """Ports in LISTEN state where process `pid` lives; empty when it is gone or still in our own namespace."""
    ports: set[int] = set()
    try:
        if Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            return ports
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    ports.add(int(fields[1].rsplit(":", 1)[1], 16))
    except (OSError, ValueError):
        return set()
    return ports


def free_port() -> int:
    """A port free on every IPv4 address here; none of the last thousand that were given, which are bound soon."""
    while True:
        with socket.create_server(("", 0)) as server:
            port = int(server.getsockname()[1])
        if port not in _GIVEN:
            _GIVEN.append(port)
            return port
