"""Lines of a file that people open in a spreadsheet (RFC 4180), in which nothing is ever a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Final

BOM: Final = "\ufeff"
"""First in the file: without it spreadsheets take UTF-8 for an older encoding."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def row(cells: Sequence[str]) -> str:
    """One line; a cell that a spreadsheet would take for a formula is made text by an apostrophe."""
    out = io.StringIO()
    csv.writer(out).writerow([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells])
    return out.getvalue()
