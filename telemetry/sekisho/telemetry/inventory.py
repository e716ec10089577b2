"""What appliance tells of the office's devices: which address is whose, and what kind of device that is.

Two small files that appliance rewrites (`core.settings`: `inventory`, `device_kinds`). Absent, too large or damaged
files change nothing: the last good content stays in force.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from sekisho.telemetry.stars import Direction

FILE_CAP: Final = 1 << 20

_decode = msgspec.json.Decoder(dict[str, str]).decode


class _Watched:
    """A JSON object of strings that somebody else rewrites."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp = (0, 0)
        self.content: dict[str, str] = {}

    def refresh(self) -> None:
        if self._path is None:
            return
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            if stat.st_size <= FILE_CAP:
                self.content = _decode(self._path.read_bytes()[:FILE_CAP])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return


class Networks:
    """Some networks, asked about the same few addresses again and again."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(text) for text in texts)
        self._has = lru_cache(4096)(self._look)

    def __contains__(self, text: str) -> bool:
        """Whether the address is in one of them; what is no address is in none."""
        return self._has(text)

    def _look(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


class Inventory:
    """The office as the events need it."""

    def __init__(self, path: Path, kinds: Path | None = None, home_networks: Iterable[str] = ()) -> None:
        self._macs = _Watched(path)
        self._kinds = _Watched(kinds)
        self._home = Networks(home_networks)

    def refresh(self) -> None:
        """Read again what was replaced."""
        self._macs.refresh()
        self._kinds.refresh()

    @property
    def devices(self) -> dict[str, str]:
        """Hardware address by address; another object when the file has been read again."""
        return self._macs.content

    def mac(self, src_ip: str, dst_ip: str) -> str:
        """The device of a flow; of two devices the first."""
        known = self._macs.content
        return known.get(src_ip) or known.get(dst_ip, "")

    def knows(self, mac: str) -> bool:
        """Whether a device with this hardware address is in the office now."""
        return mac in self._macs.content.values()

    def kind(self, ip: str) -> str:
        """What the device at an address seems to be; empty for no guess."""
        return self._kinds.content.get(self._macs.content.get(ip, ""), "")

    def is_ours(self, ip: str) -> bool:
        """An address of the office: of a device on the LAN port (also a public IPv6 one), or in a home network."""
        return ip in self._macs.content or ip in self._home

    def direction(self, client: str, server: str) -> Direction:
        """Who opened the connection, seen from the office."""
        ours = self.is_ours(client), self.is_ours(server)
        directions: dict[tuple[bool, bool], Direction] = {
            (True, True): "internal",
            (True, False): "out",
            (False, True): "in",
        }
        return directions.get(ours, "")
