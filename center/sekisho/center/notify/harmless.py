"""Text that others chose, made harmless before people read it: no link, no control, no reversed reading, no length."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from typing import Final

CAP: Final = 120
_SCHEME = re.compile(r"\b(h)tt(ps?)\b", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"(?<=[A-Za-z0-9])://")
_DOT = re.compile(r"(?<=\S)[.。．｡](?=[^\s.])")
"""Dots between characters: the full-width ones too, which browsers take for one (UTS 46)."""


def defang(text: str, cap: int = CAP) -> str:
    """The text as it is written down: `hxxp[:]//bad[.]example/a[.]exe`, one line, at most about `cap` characters."""
    text = unicodedata.normalize("NFC", text[: 4 * cap])
    text = "".join(" " if char.isspace() else char for char in text if _shown(char))
    text = " ".join(text.split())
    if len(text) > cap:
        text = text[: cap - 1] + "…"
    text = _SCHEME.sub(r"\1xx\2", text)
    text = _OTHER_SCHEME.sub("[:]//", text)
    return _DOT.sub("[.]", text).replace("@", "[at]")


def address(text: str) -> str:
    """A LAN device's address: as it is when it is one, defanged when it is not.

    An IPv6 address with a zone (RFC 4007 11) is none here: the zone may be any text, a host's name for one.
    """
    try:
        if "%" not in text:
            return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    return text if re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", text) else defang(text, 40)


def _shown(char: str) -> bool:
    """Letters, marks, numbers, punctuation, symbols, spaces: no controls, formats (bidi, zero width), surrogates."""
    return char.isspace() or unicodedata.category(char)[0] != "C"
