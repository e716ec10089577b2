"""Text that strangers chose (names, addresses, file names), made safe for eyes and for a header."""

from __future__ import annotations

import unicodedata
from typing import Final
from urllib.parse import quote

CAP: Final = 120
_FILE_CAP: Final = 80
_FILE_MARKS: Final = "-_.() "


def shown(text: object, cap: int = CAP) -> str:
    """One line of at most `cap` characters; what would be invisible or turn the reading round shows as U+FFFD."""
    short = str(text)[: cap + 1]
    if len(short) > cap:
        short = short[: cap - 1] + "…"
    return "".join(char if _visible(char) else "\N{REPLACEMENT CHARACTER}" for char in short)


def attachment(name: str, ident: str, *, transfer: bool = False) -> str:
    """The value of Content-Disposition (RFC 6266) under which a browser stores a file and never opens it by itself.

    The name ends in `.quarantined`, so that a click on it does not run it either; `transfer`: it is not the file
    itself but the way it travelled.
    """
    base = name.replace("\\", "/").rpartition("/")[2]
    plain = "".join(c if c.isalnum() or c in _FILE_MARKS else "_" for c in unicodedata.normalize("NFC", base))
    plain = plain.strip(". ")[:_FILE_CAP] or ident
    safe = "".join(c if c.isascii() else "_" for c in plain)
    end = ".transfer.quarantined" if transfer else ".quarantined"
    whole = quote(plain + end, safe="")
    return f"attachment; filename=\"{safe}{end}\"; filename*=UTF-8''{whole}"


def _visible(char: str) -> bool:
    """No controls, formats (bidi, zero width), surrogates, private or unassigned ones, no line breaks."""
    return unicodedata.category(char)[0] != "C" and unicodedata.category(char) not in ("Zl", "Zp")
