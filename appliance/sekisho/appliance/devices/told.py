"""What one announcement says, and the rules every text from the LAN is brought to before it is kept."""

from __future__ import annotations

from typing import Final, NamedTuple

MAX_NAME: Final = 63
MAX_CLUE: Final = 96
MAX_CLUES: Final = 16


class Told(NamedTuple):
    """A device's word about itself."""

    name: str = ""
    sureness: int = 0
    """How far the name is believed: 4 DHCP, 3 its own mDNS record, 2 NetBIOS, 1 LLMNR or an unproven record."""
    clues: tuple[str, ...] = ()
    """What hints at its kind: "source:value" in small letters (`kinds`)."""


NOTHING: Final = Told()


def name_of(raw: bytes) -> str:
    """A host name fit to be shown: one label, printable, at most `MAX_NAME` characters; empty when nothing is left."""
    text = raw[: 4 * MAX_NAME].decode("utf-8", "replace").split("\0")[0].strip()
    kept = "".join(char for char in text.split(".")[0] if char.isprintable() and char not in "\ufffd<>\"'&`")
    return kept[:MAX_NAME].strip()


def clue(source: str, raw: bytes) -> str:
    """One clue: small letters, printable ASCII, capped."""
    text = raw[:MAX_CLUE].decode("ascii", "replace").lower()
    return f"{source}:" + "".join(char for char in text if " " <= char <= "~")
