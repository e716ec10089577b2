"""One quarantined file as it is told, and what the box's own page may ask of the quarantine. Plain data."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

REASON_CAP: Final = 300
Ident = Annotated[str, msgspec.Meta(max_length=64)]


class Entry(msgspec.Struct, omit_defaults=True, frozen=True):
    """One quarantined file."""

    id: str
    at: str
    sha256: str
    size: int
    file_name: str = ""
    rules: list[str] = []
    app: str = ""
    url: str = ""
    src: str = ""
    dst: str = ""
    form: str = "file"
    """"file": the file itself; "transfer": the bytes as they travelled (headers, chunks, encodings)."""
    released: str = ""
    """When and why the owner released it; empty while it is kept."""


class List(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="list"):
    """The newest entries."""


class Show(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="show"):
    """One entry."""

    id: Ident


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="release"):
    """Note that the owner takes the responsibility."""

    id: Ident
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_CAP)]


class Read(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="read"):
    """The content of a released entry, after the entry itself."""

    id: Ident


Question = List | Show | Release | Read


class Kept(msgspec.Struct, frozen=True):
    """What is in quarantine, newest first."""

    entries: list[Entry]
    more: int
    """Older ones that are not listed."""
    damaged: int
    keep_days: int
