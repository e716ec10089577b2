"""Reads the common public formats of host, URL and address lists, line by line: a line says by itself what it is.

Hosts files, plain domains, adblock `||name^`, response policy zones (RPZ), CSV, URL lists, address and network lists
(Spamhaus DROP too). A file may be packed (gzip, bzip2, xz), a folder or a tar in the layout of UT1 and Shallalist
(`category/domains`, `category/urls`). What says nothing usable is counted, not guessed. Every size is capped.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import ipaddress
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.policy.names import canonical, is_address

MAX_PACKED_BYTES: Final = 64 << 20
MAX_BYTES: Final = 256 << 20
"""After unpacking, of one file."""
MAX_LINE: Final = 4096
MAX_NAMES: Final = 1_000_000
"""Of one file."""
MAX_MEMBERS: Final = 20_000
LEAVES: Final = ("domains", "urls", "domain", "url", "ips")
_NULL_ROUTES: Final = ("0.0.0.0", "127.0.0.1", "::", "::1", "0", "::0")  # noqa: S104 - the left column of hosts files
_LOCAL: Final = ("localhost", "localhost.localdomain", "local", "broadcasthost")
_ADBLOCK = re.compile(r"\|\|([^\s/^$*]+)\^?(?:\$(?:all|important|document|doc|popup|third-party|,)+)?")
_RPZ = re.compile(r"(\S+)(?:\s+\d+)?(?:\s+IN)?\s+(?:CNAME\s+(?:\.|\*\.)|A\s+\S+|AAAA\s+\S+)\s*(?:;.*)?", re.IGNORECASE)
_RPZ_PASS = re.compile(r"(?i)\S+\s.*\bCNAME\s+(?:rpz-passthru|rpz-tcp-only)\b")


class Names(msgspec.Struct):
    """What lists say. Names are canonical; a URL is (host, path with its query, percent-decoded)."""

    domains: set[str] = msgspec.field(default_factory=set)
    urls: set[tuple[str, bytes]] = msgspec.field(default_factory=set)
    addresses: set[str] = msgspec.field(default_factory=set)
    """Canonical networks."""
    unused: int = 0
    """Lines that are neither empty, nor comments, nor anything usable."""

    def add(self, other: Names) -> None:
        self.domains |= other.domains
        self.urls |= other.urls
        self.addresses |= other.addresses
        self.unused += other.unused

    def __len__(self) -> int:
        return len(self.domains) + len(self.urls) + len(self.addresses)


def read(spec: str, base: Path, category: str = "") -> Names:
    """The names in one list: a path relative to `base`, with "#folder" for a part of a tar or folder.

    Without "#folder" a tar or folder gives its part called `category`, or all of it where it has none of that name.

    Raises:
        RejectedInput: unreadable, damaged, or past a cap.

    """
    file, _, part = spec.partition("#")
    path = base / file
    try:
        if path.is_dir():
            return _folder(path, part, category)
        if path.stat().st_size > MAX_PACKED_BYTES:
            raise RejectedInput(f"{path}: larger than {MAX_PACKED_BYTES >> 20} MB.")
        with path.open("rb") as raw:
            stream = _unpacked(raw)
            if _is_tar(stream):
                return _tar(stream, part, category, path)
            return _parse(_lines(stream, path), path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as err:
        raise RejectedInput(f"{path}: {getattr(err, 'strerror', None) or err}.") from err


def from_words(words: Iterable[str]) -> Names:
    """The names in a few words an owner wrote; here every word must mean something.

    Raises:
        ValueError: one of them means nothing.

    """
    found = Names()
    for word in words:
        one = _parse([word], Path("policy"))
        if not len(one):
            raise ValueError(f"{word!r} is not a host name, URL or address")
        found.add(one)
    return found


def _unpacked(raw: IO[bytes]) -> IO[bytes] | gzip.GzipFile:
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    return lzma.LZMAFile(raw) if magic.startswith(b"\xfd7zXZ\0") else raw


def _is_tar(stream: IO[bytes] | gzip.GzipFile) -> bool:
    head = stream.read(512)
    stream.seek(0)
    return head[257:262] == b"ustar"


def _lines(stream: IO[bytes] | gzip.GzipFile, path: Path) -> Iterator[str]:
    """Lines as text; a line longer than `MAX_LINE` is one unusable line."""
    left = MAX_BYTES
    goes_on = False
    while line := stream.readline(MAX_LINE + 1):
        left -= len(line)
        if left < 0:
            raise RejectedInput(f"{path}: more than {MAX_BYTES >> 20} MB after unpacking.")
        cut = len(line) > MAX_LINE and not line.endswith(b"\n")
        if not goes_on:
            yield "\0" if cut else line.decode("utf-8", "replace")
        goes_on = cut


def _folder(path: Path, part: str, category: str) -> Names:
    wanted = part or (category if (path / category).is_dir() else "")
    files = [leaf for leaf in sorted((path / wanted).rglob("*")) if leaf.is_file() and leaf.name in LEAVES]
    if not files:
        raise RejectedInput(f"{path / wanted}: no file called {', '.join(LEAVES)}.")
    found = Names()
    for leaf in files[:MAX_MEMBERS]:
        with leaf.open("rb") as raw:
            found.add(_parse(_lines(_unpacked(raw), leaf), leaf))
    return found


def _tar(stream: IO[bytes] | gzip.GzipFile, part: str, category: str, path: Path) -> Names:
    """Members are read one after the other, never written anywhere; links and devices are no list."""
    parts: dict[str, Names] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        total = 0
        for number, member in enumerate(archive):
            total += member.size
            if number >= MAX_MEMBERS or total > MAX_BYTES:
                raise RejectedInput(f"{path}: more than {MAX_MEMBERS} members or {MAX_BYTES >> 20} MB.")
            name = PurePosixPath(member.name)
            body = archive.extractfile(member) if member.isfile() and name.name in LEAVES else None
            if body is not None and (not part or part in name.parts):
                parts.setdefault(name.parent.name, Names()).add(_parse(_lines(body, path), path))
    chosen = [parts[category]] if not part and category in parts else list(parts.values())
    if not chosen:
        raise RejectedInput(f"{path}: no {part or 'category'} with a file called {', '.join(LEAVES)} in it.")
    found = Names()
    for names in chosen:
        found.add(names)
    return found


def _parse(lines: Iterable[str], path: Path) -> Names:
    found = Names()
    origin = ""
    for raw in lines:
        line = raw.strip().removeprefix("\ufeff")
        if line.upper().startswith("$ORIGIN"):
            origin = line.split()[-1].strip(".").lower()
            continue
        if not line or line[0] in "#!;[$" or _RPZ_PASS.match(line):
            continue
        if not _take(line, origin, found):
            found.unused += 1
        if len(found) > MAX_NAMES:
            raise RejectedInput(f"{path}: more than {MAX_NAMES} names.")
    return found


def _take(line: str, origin: str, found: Names) -> bool:
    """Enter what the line says; False when it says nothing usable."""
    if block := _ADBLOCK.fullmatch(line):
        return _name(block[1], found)
    if line.startswith(("||", "@@", "|", "/")) or "##" in line:
        return False  # rules for browsers about parts of pages
    if zone := _RPZ.fullmatch(line):
        return _rpz(zone[1].rstrip(".").lower().removesuffix("." + origin if origin else ""), found)
    words = line.split("#", 1)[0].split(";", 1)[0].split() if "://" not in line else line.split()
    if not words:
        return True
    if len(words) > 1 and words[0] in _NULL_ROUTES:
        return all([word in _LOCAL or word.startswith("ip6-") or _name(word, found) for word in words[1:]])
    if "," in line or '"' in line:
        return any(_one(cell.strip(), found) for cell in _cells(line) if len(cell) > 3)
    return _one(words[0], found)


def _cells(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _one(word: str, found: Names) -> bool:
    if _network(word, found):
        return True
    if "/" in word or "://" in word:
        return _url(word, found)
    return _name(word, found)


def _network(word: str, found: Names) -> bool:
    if not word[:1].isdigit() and ":" not in word:
        return False
    try:
        found.addresses.add(str(ipaddress.ip_network(word, strict=False)))
    except ValueError:
        return False
    return True


def _rpz(name: str, found: Names) -> bool:
    """RPZ triggers: a name, or `prefix.reversed-address.rpz-ip`."""
    if not name.endswith(".rpz-ip"):
        return "rpz-" not in name and _name(name, found)
    prefix, *rest = name.removesuffix(".rpz-ip").split(".")
    if len(rest) == 4 and "zz" not in rest:
        address = ".".join(reversed(rest))
    else:
        address = ":".join("" if part == "zz" else part for part in reversed(rest))
        address = f":{address}" if address.startswith(":") else f"{address}:" if address.endswith(":") else address
    return _network(f"{address}/{prefix}", found)


def _url(word: str, found: Names) -> bool:
    """A URL with a path is one page; without one it is its host."""
    try:
        parts = urlsplit(word if "://" in word else f"//{word}")
        host = parts.hostname or ""
        if parts.scheme not in ("", "http", "https", "ftp", "tcp") or not host:
            return False
        name = host if is_address(host) else canonical(host)
    except ValueError:
        return False
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if target != "/" and len(target) <= MAX_LINE:
        found.urls.add((f"[{name}]" if ":" in name else name, unquote_to_bytes(target)))
        return True
    return _network(name, found) if is_address(name) else _name(name, found)


def _name(word: str, found: Names) -> bool:
    """A single label only where it is asked for as a whole ("*.zip"): a stray word would take a top-level domain."""
    wild = word.startswith(("*.", "."))
    if is_address(word):
        return _network(word, found)
    try:
        name = canonical(word.removeprefix("*").lstrip("."))
    except ValueError:
        return False
    if "." not in name and not wild:
        return False
    found.domains.add(name)
    return True
