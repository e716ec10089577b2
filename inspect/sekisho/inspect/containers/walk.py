"""Everything inside a file, at every level."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from sekisho.inspect import decode
from sekisho.inspect.containers import ole, texts, zips
from sekisho.inspect.containers.archives import archive
from sekisho.inspect.containers.budget import Budget, Bytes, Spent
from sekisho.inspect.containers.memory import holds, places

Opener = Callable[[Bytes, Budget], Iterator[tuple[str, Bytes]]]
MAX_NAME: Final = 256
_TEXT_BYTES: Final = 16 << 20
"""Larger texts are looked at as they are only."""
_PLACES: Final = 8
"""Archives of one kind that are looked for inside other files."""
_ANYWHERE: Final[tuple[tuple[bytes, tuple[str, ...]], ...]] = (
    (b"7z\xbc\xaf\x27\x1c", ("7zip",)),
    (b"Rar!\x1a\x07", ("rar", "rar5")),
    (b"MSCF\0\0\0\0", ("cab",)),
)
_AT_START: Final[tuple[tuple[int, bytes, tuple[str, ...]], ...]] = (
    (257, b"ustar", ("tar",)),
    (0, b"!<arch>\n", ("ar",)),
    (0, b"0707", ("cpio",)),
    (0, b"\xc7\x71", ("cpio",)),
    (0, b"xar!", ("xar",)),
    (2, b"-lh", ("lha",)),
)
_ISO: Final = 0x8001


@dataclass(frozen=True, slots=True)
class Member:
    """Something that lies in a file."""

    path: str
    """Names down to it, with "/" between levels."""
    name: str
    content: Bytes
    digest: str
    """SHA-256 of the content."""


def members(data: Bytes, name: str, budget: Budget) -> Iterator[Member]:
    """All members of `data`, outer before inner, each content once. Ends early when the budget is spent."""
    seen = {hashlib.sha256(data).hexdigest()}
    try:
        yield from _level(data, "", name, 0, budget, seen)
    except Spent:
        return


def _level(data: Bytes, path: str, name: str, depth: int, budget: Budget, seen: set[str]) -> Iterator[Member]:
    for opener in openers(data):
        for inner, content in opener(data, budget):
            digest = hashlib.sha256(content).hexdigest()
            if digest in seen:
                continue
            if depth >= budget.depth:
                budget.note("depth")
                return
            seen.add(digest)
            called = _called(inner) or _unpacked_name(name)
            below = f"{path}/{called}" if path else called
            yield Member(below[-MAX_NAME:], called, content, digest)
            yield from _level(content, below[-MAX_NAME:], called, depth + 1, budget, seen)


def _called(name: str) -> str:
    """The last part of a member's path, whatever system wrote it."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].replace("\0", "")[-MAX_NAME:]


def _unpacked_name(name: str) -> str:
    stem, _, extension = name.rpartition(".")
    return stem + ".tar" if extension.lower() in ("tgz", "tbz2", "txz", "tzst") else stem or name or "content"


def openers(data: Bytes) -> Iterator[Opener]:
    """What may open `data`: by its first bytes, and by what is found in it."""
    view = memoryview(data)
    head = bytes(view[:4096])
    kind = decode.magic(head)
    if kind:
        yield _compressed
    if head.startswith(ole.MAGIC):
        yield ole.compound
    if holds(data, zips.LOCAL):
        yield zips.zipped
    for needle, formats in _ANYWHERE:
        if holds(data, needle):
            yield _embedded(needle, formats)
    for offset, needle, formats in _AT_START:
        if head.startswith(needle, offset):
            yield _whole(formats)
    if bytes(view[_ISO : _ISO + 5]) == b"CD001":
        yield _whole(("iso9660",))
    if b"%PDF-" in head[:1024]:
        yield texts.portable
    if texts.is_mail(head):
        yield texts.mailed
    elif head.lstrip()[:4] == b"{\\rt":
        yield texts.rich
    elif len(view) <= _TEXT_BYTES and texts.is_text(head[:512]):
        yield texts.encoded


def _whole(formats: tuple[str, ...]) -> Opener:
    return lambda data, budget: archive(data, formats, budget)


def _embedded(needle: bytes, formats: tuple[str, ...]) -> Opener:
    def opener(data: Bytes, budget: Budget) -> Iterator[tuple[str, Bytes]]:
        view = memoryview(data)
        for count, at in enumerate(places(data, needle)):
            if count >= _PLACES:
                return
            budget.attempt()
            yield from archive(view[at:], formats, budget, sure=at == 0)

    return opener


def _compressed(data: Bytes, budget: Budget) -> Iterator[tuple[str, Bytes]]:
    """A file that is one compressed stream."""
    budget.open_member()
    kind = decode.magic(data)
    if not kind:
        return
    plain = decode.unpack(memoryview(data), kind, budget.room, budget.deadline)
    if plain.state in ("damaged", "cut") and kind != "zlib" and kind != "lzma":
        budget.note("damaged")
    if plain.data:
        yield "", plain.data
        budget.take(len(plain.data))
