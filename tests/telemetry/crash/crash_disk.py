"""A disk after a crash: what a recorded process did to its files, up to any operation, as kill or power cut leave it.

After a kill all operations have happened. After a power cut only what was synced has: of the later operations of a
file any may be missing, and the last of those that are there may be torn at a sector; of the later creations,
renames and removals in the directory only the first few may have happened.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

SECTOR = 512


@dataclass(frozen=True)
class Op:
    """One record of the shim."""

    kind: str
    path: str
    offset: int
    data: bytes


def read_log(log: bytes) -> Iterator[Op]:
    place = 0
    while place < len(log):
        kind, length = chr(log[place]), log[place + 1]
        path = log[place + 2 : place + 2 + length].decode()
        place += 2 + length
        offset, size = struct.unpack_from("<QI", log, place)
        yield Op(kind, path, offset, log[place + 12 : place + 12 + size])
        place += 12 + size


@dataclass
class File:
    """What it holds, what of that is safe, and what was done since."""

    data: bytearray = field(default_factory=bytearray)
    safe: bytes = b""
    since: list[Op] = field(default_factory=list)


class Disk:
    """Apply operations one after the other, look at any moment."""

    def __init__(self) -> None:
        self.names: dict[str, File] = {}
        self.safe_names: dict[str, File] = {}
        self.renamed: list[tuple[Op, File | None]] = []

    def apply(self, op: Op) -> None:
        if op.kind == "D":
            self.safe_names, self.renamed = dict(self.names), []
        elif op.kind in "CRU":
            made = File() if op.kind == "C" else None
            self.renamed.append((op, made))
            _rename(self.names, op, made)
        else:
            file = self.names[op.path]
            if op.kind == "S":
                file.safe, file.since = bytes(file.data), []
            else:
                file.since.append(op)
                _change(file.data, op, len(op.data))

    def killed(self) -> dict[str, bytes]:
        return {path: bytes(file.data) for path, file in self.names.items()}

    def power_cut(self, dice: random.Random) -> dict[str, bytes]:
        names = dict(self.safe_names)
        for op, made in self.renamed[: dice.randrange(len(self.renamed) + 1)]:
            _rename(names, op, made)
        lucky = dice.choice((0.0, 0.5, 0.9))
        return {path: _left(file, lucky, dice) for path, file in names.items()}


def _rename(names: dict[str, File], op: Op, made: File | None) -> None:
    if made is not None:
        names[op.path] = made
    elif op.kind == "R":
        names[op.data.decode()] = names.pop(op.path)
    else:
        names.pop(op.path)


def _left(file: File, lucky: float, dice: random.Random) -> bytes:
    data = bytearray(file.safe)
    there = [op for op in file.since if dice.random() < lucky]
    for op in there:
        sectors = len(op.data) // SECTOR
        torn = op is there[-1] and sectors
        _change(data, op, dice.randrange(sectors) * SECTOR if torn else len(op.data))
    return bytes(data)


def _change(data: bytearray, op: Op, length: int) -> None:
    if op.kind == "T":
        del data[op.offset :]
        data.extend(bytes(op.offset - len(data)))
    else:
        data.extend(bytes(max(0, op.offset - len(data))))
        data[op.offset : op.offset + length] = op.data[:length]
