"""SSDP (UPnP Device Architecture 1.1, 1.2): what a device announces that it is, and the software that says so."""

from __future__ import annotations

from typing import Final

from sekisho.appliance.devices.told import NOTHING, Told, clue

MAX_LINES: Final = 32
OWN: Final = (b"NOTIFY ", b"HTTP/1.1 200")
SOURCES: Final = {b"nt": "upnp", b"st": "upnp", b"server": "server", b"x-user-agent": "server"}


def told_ssdp(message: bytes) -> Told:
    """Clues of an announcement or an answer; a search says nothing of the searcher."""
    if not message.startswith(OWN):
        return NOTHING
    clues = []
    for line in message.split(b"\n", MAX_LINES)[1:MAX_LINES]:
        key, _, value = line.partition(b":")
        if source := SOURCES.get(key.strip().lower()):
            clues.append(clue(source, value.strip()))
    return Told(clues=tuple(clues))
