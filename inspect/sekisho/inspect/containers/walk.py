"""Everything inside a file, at every level.

What C code opens comes last, after all that Python opens at every level: an archive made to crash or to stall the
library costs the worker, but hides nothing that lies beside it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from sekisho.inspect import decode
from sekisho.inspect.containers import ole, rar, texts, zips
from sekisho.inspect.containers.archives import archive
from sekisho.inspect.containers.budget import Budget, Bytes, Spent
from sekisho.inspect.containers.memory import holds, places

Opener = Callable[[Bytes, Budget], Iterator[tuple[str, Bytes]]]
MAX_NAME: Final = 256
_TEXT_BYTES: Final = 16 << 20
"""Larger texts are looked at as they are only."""
_NO_NAME: Final = ""
_PLACES: Final = 8
"""Archives of one kind that are looked for inside other files."""
_ANYWHERE: Final[tuple[tuple[bytes, tuple[str, ...]], ...]] = (
    (b"7z\xbc\xaf\x27\x1c", ("7zip",)),
    (b"Rar!\x1a\x07", ("rar", "rar5")),
    (b"MSCF\0\0\0\0", ("cab",)),
)
_LAYERS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x1f\x9d", "compress"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"LZIP", "lzip"),
)
_AT_START: Final[tuple[tuple[int, bytes, tuple[str, ...]], ...]] = (
    (257, b"ustar", ("tar",)),
    (0, b"!<arch>\n", ("ar",)),
    (0, b"0707", ("cpio",)),
    (0, b"\xc7\x71", ("cpio",)),
    (2, b"-lh", ("lha",)),
    (0x8001, b"CD001", ("iso9660",)),
)


@dataclass(frozen=True, slots=True)
class Member:
    """Something that lies in a file."""

    path: str
    """Names down to it, with "/" between levels."""
    name: str
    content: Bytes
    digest: str
    """SHA-256 of the content."""


def members(data: Bytes, name: str, budget: Budget, digest: str = "") -> Iterator[Member]:
    """All members of `data`, outer before inner, each content once. Ends early when the budget is spent.

    `digest`: SHA-256 of `data`, if it is known already.
    """
    walk = _Walk(budget, {digest or hashlib.sha256(data).hexdigest()})
    try:
        yield from walk.level(data, "", name, 0)
        while walk.later:
            opener, carrier, path, called, depth = walk.later.popleft()
            yield from walk.opened(opener, carrier, path, called, depth)
    except Spent:
        return


@dataclass(slots=True)
class _Walk:
    budget: Budget
    seen: set[str]
    later: deque[tuple[Opener, Bytes, str, str, int]] = field(default_factory=deque)

    def level(self, data: Bytes, path: str, name: str, depth: int) -> Iterator[Member]:
        own = list(own_openers(data))
        for opener in own:
            yield from self.opened(opener, data, path, name, depth)
        later = library_openers(data, zipped=zips.zipped in own)
        self.later += [(opener, data, path, name, depth) for opener in later]

    def opened(self, opener: Opener, data: Bytes, path: str, name: str, depth: int) -> Iterator[Member]:
        for inner, content in opener(data, self.budget):
            digest = hashlib.sha256(content).hexdigest()
            if digest in self.seen:
                continue
            if depth >= self.budget.depth:
                self.budget.note("depth")
                return
            self.seen.add(digest)
            called = _called(inner) or _unpacked_name(name)
            below = (f"{path}/{called}" if path else called)[-MAX_NAME:]
            yield Member(below, called, content, digest)
            yield from self.level(content, below, called, depth + 1)


def _called(name: str) -> str:
    """The last part of a member's path, whatever system wrote it."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].replace("\0", "")[-MAX_NAME:]


def _unpacked_name(name: str) -> str:
    stem, _, extension = name.rpartition(".")
    return stem + ".tar" if extension.lower() in ("tgz", "tbz2", "txz", "tzst") else stem or name or "content"


def own_openers(data: Bytes) -> Iterator[Opener]:
    """What may open `data` in Python: by its first bytes, and by what is found in it."""
    view = memoryview(data)
    head = bytes(view[:4096])
    if decode.magic(head):
        yield _compressed
    if head.startswith(ole.MAGIC):
        yield ole.compound
    if holds(data, zips.LOCAL) or holds(view[-zips.END_BYTES :], zips.END):
        yield zips.zipped
    if b"%PDF-" in head[:1024]:
        yield texts.portable
    if texts.is_mail(head):
        yield texts.mailed
    elif head.lstrip()[:4] == b"{\\rt":
        yield texts.rich
    elif len(view) <= _TEXT_BYTES and texts.is_text(head[:512]):
        yield texts.encoded


def library_openers(data: Bytes, *, zipped: bool) -> Iterator[Opener]:
    """What may open `data` in libarchive."""
    view = memoryview(data)
    for offset, needle, formats in _AT_START:
        if bytes(view[offset : offset + len(needle)]) == needle:
            yield _whole(formats)
    for needle, layer in _LAYERS:
        if bytes(view[: len(needle)]) == needle:
            yield _layered(layer)
    if zipped:
        yield zips.rare
    for needle, formats in _ANYWHERE:
        if holds(data, needle):
            yield _embedded(needle, formats)


def _whole(formats: tuple[str, ...]) -> Opener:
    return lambda data, budget: archive(data, formats, budget)


def _layered(layer: str) -> Opener:
    return lambda data, budget: ((_NO_NAME, body) for _, body in archive(data, ("raw",), budget, layer=layer))


def _embedded(needle: bytes, formats: tuple[str, ...]) -> Opener:
    def opener(data: Bytes, budget: Budget) -> Iterator[tuple[str, Bytes]]:
        view = memoryview(data)
        for count, at in enumerate(places(data, needle)):
            if count >= _PLACES:
                return
            budget.attempt()
            secret = bytes(view[at : at + len(rar.MAGIC)]) == rar.MAGIC and rar.encrypted(view[at:])
            if secret:
                budget.note("encrypted")
            yield from archive(view[at:], formats, budget, sure=at == 0 and not secret)

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
    if plain.state == "timeout" or (plain.state == "capped" and len(plain.data) < budget.room):
        budget.note("timeout" if plain.state == "timeout" else "too_large")
    if plain.data:
        yield "", plain.data
        budget.take(len(plain.data))
