"""A signed repository with throwaway sets in it, made in well under a second, and a plain client of it.

The sets are sound archives of a few rules; what an engine would say of them is not the matter here.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from sekisho.signatures import archive, delta
from sekisho.signatures.depot import repository
from sekisho.signatures.depot.keys import Ring
from sekisho.signatures.depot.publishing import Outcome, publish
from sekisho.signatures.depot.tree import Tree
from sekisho.signatures.published import Delta, Manifest

RULE = 'alert ip any any -> any any (msg:"throwaway {0}"; content:"throwaway-{0}"; sid:{0}; rev:1;)\n'
YARA = 'rule throwaway_{0} {{ strings: $a = "throwaway-{0}" condition: $a }}\n'


def content(number: int, rules: int = 30) -> dict[str, bytes]:
    """Files of set `number`: like the set before, and one rule more."""
    text = "".join(RULE.format(1_000_000 + index) for index in range(rules + number))
    return {"rules/throwaway.rules": text.encode(), "yara/throwaway.yar": YARA.format(number).encode()}


def write_set(
    directory: Path, number: int, files: dict[str, bytes], earlier: dict[int, bytes], now: dt.datetime
) -> bytes:
    """Write a set directory as a build does, with a delta from each of `earlier`; returns the archive."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    data = archive.pack(files)
    packed = delta.compress(data)
    (directory / f"{number}.tar.zst").write_bytes(packed)
    ways = []
    for base, old in sorted(earlier.items(), reverse=True):
        way = delta.make(old, data)
        (directory / f"{base}-{number}.zst").write_bytes(way)
        ways.append(Delta(base=base, base_sha256=digest(old), path=f"sig/{base}-{number}.zst", length=len(way)))
    manifest = Manifest(
        number=number,
        built=now.isoformat(),
        sha256=digest(data),
        length=len(data),
        path=f"sig/{number}.tar.zst",
        packed=len(packed),
        deltas=ways,
        rules=max(1, files.get("rules/throwaway.rules", b"").count(b"sid:")),
        yara=1,
    )
    (directory / "set.json").write_bytes(msgspec.json.encode(manifest))
    return data


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Depot:
    """A repository with its keys, and the sets that went through it."""

    root: Path
    now: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    sets: dict[int, bytes] = field(default_factory=dict)
    """Archives by number."""

    def __post_init__(self) -> None:
        self.tree = Tree(self.root / "repository")
        self.keys = self.root / "keys"
        self.ring = Ring([self.keys])
        if not self.keys.exists():
            self.ring = repository.init(self.tree, self.keys, self.now)

    @property
    def trusted(self) -> bytes:
        """What a box is made with."""
        return self.tree.versioned(1, "root").read_bytes()

    def build(self, number: int, files: dict[str, bytes] | None = None, deltas: int = 3) -> Path:
        """A set directory, not published."""
        directory = self.root / "sets" / str(number)
        earlier = dict(sorted(self.sets.items())[-deltas:] if deltas else [])
        self.sets[number] = write_set(directory, number, files or content(number), earlier, self.now)
        return directory

    def publish(self, number: int, files: dict[str, bytes] | None = None) -> Outcome:
        return publish(self.tree, self.ring, self.build(number, files), self.now)

    def renew(self, later: dt.timedelta = dt.timedelta()) -> list[str]:
        self.now += later
        return repository.renew(self.tree, self.ring, self.now, clock_is_right=True)

    def client(self, cache: Path, trusted: bytes | None = None) -> Updater:
        """A plain client with its state in `cache`."""
        return client_of(self.tree.directory, cache, trusted or self.trusted)


def client_of(served: Path | FetcherInterface, cache: Path, trusted: bytes | None) -> Updater:
    """A plain client of a served directory, or of what fetches from r://repository/."""
    (cache / "targets").mkdir(parents=True, exist_ok=True)
    return Updater(
        str(cache),
        "r://repository/metadata/",
        str(cache / "targets"),
        "r://repository/targets/",
        Disk(served) if isinstance(served, Path) else served,
        UpdaterConfig(),
        bootstrap=trusted,
    )


class Disk(FetcherInterface):
    """Fetches r://repository/PATH from a directory, as a plain web server of it would answer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.fetched: list[tuple[str, int]] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self.directory / url.removeprefix("r://repository/")
        if not path.is_file():
            raise DownloadHTTPError("not there", 404)
        data = path.read_bytes()
        self.fetched.append((path.name, len(data)))
        yield data
