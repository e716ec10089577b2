"""What a proven set is, and the caps on everything that may become part of one. No input or output here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

MAX_FILES: Final = 4096
"""Files per directory."""
MAX_FILE_BYTES: Final = 32 << 20
MAX_TOTAL_BYTES: Final = 64 << 20
MAX_RULE_BYTES: Final = 8192
"""Longest rule Suricata itself accepts (DETECT_MAX_RULE_SIZE)."""
MAX_REFUSED_SHARE: Final = 0.01
"""Rules the engine refuses are left out and named, as long as they are less than this share of the set."""
MAX_NAMED: Final = 200
"""At most so many left-out rules are listed one by one in set.json; `refused_total` has their number."""
EXTERNALS: Final = ("filename", "filepath", "extension", "filetype", "owner")
"""Variables that public YARA rules expect to exist; always empty text here."""

MAX_HASH_BYTES: Final = 96 << 20
"""A list of a million hashes with their comments."""

TESTER_SECONDS: Final = 180
TESTER_BYTES: Final = 3 << 30
COMPILER_SECONDS: Final = 60
COMPILER_BYTES: Final = 1 << 30


class Refused(msgspec.Struct, frozen=True):
    """One Suricata rule that was left out of the set."""

    sid: int
    where: str
    why: str


class SetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """`set.json`: what one proven set holds."""

    id: str
    """SHA-256 over the sources and the versions of the engines that proved them."""
    suricata_rules: int
    """Rules in `suricata.rules`, all of which the engine loaded."""
    yara_rules: int
    built_at: str
    """When it was proven here, UTC, RFC 3339."""
    number: int = 0
    """Of the published set; 0: it is the owner's or what ships with the product."""
    built: str = ""
    """When the centre built it, UTC."""
    provers: str = ""
    """By and for what it was proven (`compiler.provers`)."""
    refused_total: int = 0
    refused: list[Refused] = []
    rules_sha256: str = ""
    yara_sha256: str = ""
    known_sha256: str = ""
    known_files: int = 0
    """Hashes of known malicious files in `known.bin`."""
    path: str = ""
    """The set's own directory; empty in the file itself."""
    rejection: str = ""
    """Why a newer source was refused and this set stayed in force; empty when all is well, never in the file."""

    @property
    def suricata_file(self) -> Path:
        return Path(self.path) / "suricata.rules"

    @property
    def yara_file(self) -> Path:
        return Path(self.path) / "yara.compiled"


class Source(msgspec.Struct, frozen=True):
    """One file as read from a rules or YARA directory."""

    name: str
    data: bytes


class Rule(msgspec.Struct, frozen=True):
    """One enabled Suricata rule on one line."""

    sid: int
    rev: int
    where: str
    """File name and line number, for the person who has to mend it."""
    text: str
