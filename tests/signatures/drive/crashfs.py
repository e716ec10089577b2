"""A disk that records what is done to it, and shows every state a power cut may leave.

It works on real files below a directory. `cuts` gives, for every operation as the last one that began: what was
synced, any subset of what was not, the last write torn at a sector, and names lost that their directory was not
synced for. States that look the same are given once.

    disk = CrashDisk(tmp_path / "box"); ...; for cut in disk.cuts(since): cut.put(tmp_path / "after")
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sekisho.signatures.trust import Disk

SECTOR = 512
EXHAUSTIVE = 6
"""With more unsynced operations than this at once, subsets are drawn instead of listed."""
DRAWN = 64


@dataclass(frozen=True)
class Op:
    """`name`, `move`, `gone`, `folder`, `link` change names; `data`, `size` a file; `sync`, `syncdir` make safe."""

    kind: str
    path: str
    file: int = 0
    """The file meant, whatever its name is by now."""
    other: str = ""
    at: int = 0
    data: bytes = b""


NAMES = ("name", "move", "gone", "folder", "link")


@dataclass
class Cut:
    """What is there when the power comes back."""

    after: int
    """How many operations had begun."""
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)

    def put(self, directory: Path) -> Path:
        """Make `directory` look like this, and nothing else."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        for folder in sorted(self.folders):
            (directory / folder).mkdir(exist_ok=True, parents=True)
        for path, data in self.files.items():
            (directory / path).write_bytes(data)
        for path, target in self.links.items():
            (directory / path).symlink_to(target)
        return directory

    @property
    def key(self) -> tuple[object, ...]:
        return tuple(sorted(self.files.items())), tuple(sorted(self.links.items())), tuple(sorted(self.folders))


class CrashDisk(Disk):
    """What lies below `root` when this is made counts as safe."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ops: list[Op] = []
        self._numbers = itertools.count(1)
        self._names: dict[str, int] = {}
        self._start = Cut(0)
        self._began: dict[int, bytes] = {}
        for path in sorted(root.rglob("*")):
            name = self._name(path)
            if path.is_symlink():
                self._start.links[name] = os.readlink(path)  # noqa: PTH115
            elif path.is_dir():
                self._start.folders.add(name)
            else:
                self._start.files[name] = path.read_bytes()
                self._names[name] = next(self._numbers)
                self._began[self._names[name]] = self._start.files[name]
        self._first = dict(self._names)

    def make_directory(self, path: Path) -> None:
        if not path.is_dir() and path != self.root:
            self.ops.append(Op("folder", self._name(path)))
        super().make_directory(path)

    def write(self, path: Path, data: bytes, at: int | None = None, mode: int = 0o600) -> None:
        name = self._name(path)
        if name not in self._names:
            self._names[name] = next(self._numbers)
            self.ops.append(Op("name", name, self._names[name]))
        elif at is None:
            self.ops.append(Op("size", name, self._names[name], at=0))
        self.ops.append(Op("data", name, self._names[name], at=at or 0, data=data))
        super().write(path, data, at, mode)

    def truncate(self, path: Path, length: int) -> None:
        name = self._name(path)
        self.ops.append(Op("size", name, self._names[name], at=length))
        super().truncate(path, length)

    def sync(self, path: Path) -> None:
        super().sync(path)
        name = self._name(path)
        self.ops.append(Op("sync", name, self._names[name]))

    def rename(self, old: Path, new: Path) -> None:
        was, name = self._name(old), self._name(new)
        self.ops.append(Op("move", name, self._names.get(was, 0), other=was))
        if was in self._names:
            self._names[name] = self._names.pop(was)
        super().rename(old, new)

    def symlink(self, target: str, path: Path) -> None:
        self.ops.append(Op("link", self._name(path), other=target))
        super().symlink(target, path)

    def unlink(self, path: Path) -> None:
        name = self._name(path)
        if path.is_symlink() or path.exists():
            self.ops.append(Op("gone", name))
            self._names.pop(name, None)
        super().unlink(path)

    def sync_directory(self, path: Path) -> None:
        super().sync_directory(path)
        self.ops.append(Op("syncdir", self._name(path)))

    def cuts(self, since: int = 0, seed: int = 1) -> list[Cut]:
        """Every state for a cut after operation `since` or later; of equal ones the latest, which promises most."""
        dice, found = random.Random(seed), dict[object, Cut]()
        for after in range(since, len(self.ops) + 1):
            for lost in self._losses(after, dice):
                for torn in self._tears(after, lost):
                    cut = self._left(after, lost, torn)
                    found[cut.key] = cut
        return list(found.values())

    def _unsynced(self, after: int) -> list[int]:
        found: list[int] = []
        for index, op in enumerate(self.ops[:after]):
            if op.kind == "sync":
                found = [i for i in found if self.ops[i].kind in NAMES or self.ops[i].file != op.file]
            elif op.kind == "syncdir":
                found = [i for i in found if self.ops[i].kind not in NAMES or _parent(self.ops[i].path) != op.path]
            else:
                found.append(index)
        return found

    def _losses(self, after: int, dice: random.Random) -> Iterable[frozenset[int]]:
        found = self._unsynced(after)
        if len(found) <= EXHAUSTIVE:
            sizes = range(len(found) + 1)
            return [frozenset(lost) for size in sizes for lost in itertools.combinations(found, size)]
        shares = [share for share in (0.1, 0.5, 0.9) for _ in range(DRAWN)]
        drawn = [frozenset(i for i in found if dice.random() < share) for share in shares]
        return [frozenset(), frozenset(found), *drawn]

    def _tears(self, after: int, lost: frozenset[int]) -> list[tuple[int, int]]:
        """(operation, bytes of it that got there); the first is none torn."""
        whole = (-1, 0)
        kept = [i for i in self._unsynced(after) if i not in lost and self.ops[i].kind == "data"]
        if not kept:
            return [whole]
        length = len(self.ops[kept[-1]].data)
        places = sorted({0, SECTOR, length // 2 // SECTOR * SECTOR, (length - 1) // SECTOR * SECTOR} - {length})
        return [whole, *((kept[-1], place) for place in places if 0 <= place < length)]

    def _left(self, after: int, lost: frozenset[int], torn: tuple[int, int]) -> Cut:
        names, files = dict(self._first), {number: bytearray(data) for number, data in self._began.items()}
        links, folders = dict(self._start.links), set(self._start.folders)
        for index, op in enumerate(self.ops[:after]):
            if index in lost:
                continue
            data = op.data[: torn[1]] if index == torn[0] else op.data
            if op.kind == "name":
                names[op.path] = op.file
            elif op.kind == "move":
                target = links.pop(op.other, None)
                if target is not None:
                    links[op.path] = target
                names.pop(op.other, None)
                if op.file:
                    names[op.path] = op.file
            elif op.kind == "gone":
                names.pop(op.path, None)
                links.pop(op.path, None)
            elif op.kind == "folder":
                folders.add(op.path)
            elif op.kind == "link":
                links[op.path] = op.other
            elif op.kind == "data":
                held = files.setdefault(op.file, bytearray())
                held.extend(bytes(max(0, op.at - len(held))))
                held[op.at : op.at + len(data)] = data
            elif op.kind == "size":
                held = files.setdefault(op.file, bytearray())
                held[:] = held[: op.at].ljust(op.at, b"\0")
        there = {path for path in names if _parent(path) in folders | {"."}}
        return Cut(after, {path: bytes(files.get(names[path], b"")) for path in there}, links, folders)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root))


def _parent(path: str) -> str:
    return str(Path(path).parent)
