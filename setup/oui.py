"""Builds appliance/sekisho/appliance/devices/oui.xz from the tables of Debian's package ieee-data.

    apt-get install ieee-data && python3 setup/oui.py /usr/share/ieee-data

One line for each vendor: its name, a tab, its prefixes (6, 7 or 9 hex digits) with spaces between. Sorted, so
that the same tables make the same file. The registry's listing is in the public domain.
"""

from __future__ import annotations

import csv
import lzma
import re
import sys
import unicodedata
from pathlib import Path

TABLES = ("oui.csv", "mam.csv", "oui36.csv", "iab.csv")
TARGET = Path(__file__).parents[1] / "appliance/sekisho/appliance/devices/oui.xz"
LONGEST_NAME = 40
LEGAL = re.compile(
    r"[\s,.]+(?:co\.?,?\s*ltd|corporation|corp|incorporated|inc|limited|ltd|llc|gmbh|ag|s\.?a|b\.?v|pty|plc|k\.?k|co)\.?$",
    re.I,
)


def short(name: str) -> str:
    """The name without its legal form, in one line of plain characters."""
    name = " ".join(unicodedata.normalize("NFKC", name).split())
    while (shorter := LEGAL.sub("", name).rstrip(" ,.")) != name and shorter:
        name = shorter
    return name[:LONGEST_NAME].strip()


def main(folder: Path) -> None:
    vendors: dict[str, set[str]] = {}
    for table in TABLES:
        with (folder / table).open(encoding="utf-8", newline="") as source:
            for row in csv.DictReader(source):
                name = short(row["Organization Name"])
                if name and name not in ("Private", "IEEE Registration Authority"):
                    vendors.setdefault(name, set()).add(row["Assignment"].lower())
    lines = [f"{name}\t{' '.join(sorted(prefixes))}" for name, prefixes in sorted(vendors.items())]
    data = lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)
    TARGET.write_bytes(data)
    print(f"{len(lines)} vendors, {sum(map(len, vendors.values()))} prefixes, {len(data)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
