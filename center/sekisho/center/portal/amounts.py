"""Numbers as people read them: bytes, and shares that are never rounded into a claim."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ("B", "KB", "MB", "GB", "TB")


def octets(number: int) -> str:
    """1,234,567 as "1.2 MB" (powers of 1,000, as data volumes are sold)."""
    size, step = float(number), 0
    while size >= 999.5 and step < len(_UNITS) - 1:
        size, step = size / 1000, step + 1
    return f"{size:.1f} {_UNITS[step]}" if step and size < 9.95 else f"{size:,.0f} {_UNITS[step]}"


def percent(part: int, whole: int) -> str:
    """A share in whole percent; what is not all is never 100 %, what is not nothing is never 0 %."""
    if not whole or not part:
        return "0%"
    if part == whole:
        return "100%"
    rounded = round(100 * part / whole)
    return "<1%" if rounded == 0 else ">99%" if rounded == 100 else f"{rounded}%"
