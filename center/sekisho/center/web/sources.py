"""A listening socket that gives one source only so many connections at once, from the first packet on.

What counts connections inside HTTP comes too late: a source that holds open what has not even finished its TLS
handshake would keep everyone else out.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Collection
from typing import Any, Final

V6_PREFIX: Final = 64
"""What one customer has of IPv6 at the least."""


class Listener(socket.socket):
    """Takes over `listening`; what comes from a source beyond `cap` is closed at once, from `trusted` nothing is."""

    def __init__(self, listening: socket.socket, cap: int, trusted: Collection[str] = ()) -> None:
        super().__init__(fileno=listening.detach())
        self._cap, self._trusted = cap, frozenset(map(source_of, trusted))
        self._open: Counter[str] = Counter()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection.

        Raises:
            ConnectionAbortedError: its source has too many; an event loop goes on with the next.

        """
        taken, address = super().accept()
        source = source_of(address[0])
        if self._open[source] >= self._cap and source not in self._trusted:
            taken.close()
            raise ConnectionAbortedError(f"{source} has {self._cap} connections already")
        self._open[source] += 1
        return _Counted(taken, source, self._open), address


class _Counted(socket.socket):
    """A connection that is counted until it is closed."""

    def __init__(self, taken: socket.socket, source: str, opened: Counter[str]) -> None:
        super().__init__(fileno=taken.detach())
        self._source, self._opened = source, opened

    def close(self) -> None:
        if self.fileno() >= 0:
            self._opened[self._source] -= 1
            if not self._opened[self._source]:
                del self._opened[self._source]
        super().close()


def source_of(address: str) -> str:
    """Who is behind an address: an IPv4 address, or an IPv6 network."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), V6_PREFIX), strict=False))
