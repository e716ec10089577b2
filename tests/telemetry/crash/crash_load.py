"""A spool's life in some sixty steps, each followed by a mark that the shim sees and a line that says what is true.

Thresholds are small, so that packing, splitting, history, room at the cap and a restored centre all come up, and
write-backs of the log too. `logical` is what must survive: everything but how the rows are packed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from sekisho.appliance.core.fsio import sync_directory
from sekisho.telemetry import blocks
from sekisho.telemetry.events import Alert, Dns, Event, Health
from sekisho.telemetry.reader import Chunk, Position
from sekisho.telemetry.spool import Spool
from sekisho.telemetry.spool_view import SpoolView

CAP = 300_000
STEPS = 80
NOW = "2026-01-02T03:04:05.000006Z"
State = dict[str, object]


def small() -> None:
    """Let tens of rows do what thousands do."""
    blocks.BATCH_ROWS = 20  # type: ignore[misc]
    blocks.PACK_BEYOND = 30  # type: ignore[misc]


def open_spool(path: Path) -> Spool:
    return Spool.open(path, CAP, NOW, "boot")


def logical(path: Path, made: Spool) -> State:
    def digest(rows: object) -> str:
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    with closing(SpoolView(path)) as view:
        waiting = [(row.seq, row.lane, bytes(row.event)) for row in view.pending()]
        kept = [(row.seq, row.lane, bytes(row.event)) for row in view.sent()]
    with closing(sqlite3.connect(path)) as db:
        folded = db.execute("SELECT key, count FROM fold ORDER BY key").fetchall()
    position = made.position("eve.json")
    return {
        "epoch": made.epoch,
        "offset": position.offset if position else 0,
        "next": made.next_seq(),
        "generation": made.generation,
        "waiting": [len(waiting), digest(waiting)],
        "kept": [len(kept), digest(kept)],
        "folded": [sum(count for _, count in folded), digest(folded)],
    }


def events_of(dice: random.Random, offset: int) -> list[Event]:
    made: list[Event] = []
    for number in range(dice.randrange(1, 40)):
        kind = dice.randrange(6)
        pad = dice.randbytes(500).hex()
        sid = 100 * offset + number if number % 4 else 1  # every fourth alert is a repeat, and counted
        made.append(Dns(at=NOW, name=pad) if kind > 1 else Alert(at=NOW, sid=sid) if kind else Health(at=NOW))
    return made


def replace_a_damaged_one(root: Path) -> None:
    """A spool with a log beside it and a page that the disk has lost; then one that begins anew."""
    path = root / "spool.db"
    made = open_spool(path)
    made.add([Dns(at=NOW, name="x" * 200)] * 100)
    made.close()
    data = bytearray(path.read_bytes())
    data[8192:16384] = bytes(8192)
    for target, content in ((path, data), (path.with_name("spool.db-wal"), b"not a log")):
        fd = os.open(target, os.O_WRONLY | os.O_CREAT)
        os.write(fd, content)
        os.fsync(fd)
        os.close(fd)
    sync_directory(root)
    os.write(os.open(root / "marks", os.O_WRONLY | os.O_CREAT), b".")
    made = open_spool(path)
    made.add([Alert(at=NOW, sid=1)])
    made.close()


def main(root: Path) -> None:
    small()
    dice = random.Random(6)
    marks = os.open(root / "marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    path = root / "spool.db"
    made = open_spool(path)
    offset = 0
    for step in range(STEPS):
        todo = dice.random()
        if step and todo < 0.5:
            offset += 1
            made.add(events_of(dice, offset), Chunk("eve.json", Position(1, 2, offset, b"h")))
        elif todo < 0.7:
            made.tidy([0, 0, 0], float(step * 1000))
        elif todo < 0.9:
            lane, last = dice.randrange(3), dice.randrange(1, made.next_seq() + 1)
            made.acknowledge(made.next_seq() // 3, [(lane, last - 30, last)])
        elif todo < 0.94:
            made.resend(step, made.next_seq() // 4)
        elif step:
            made.close()
            made = open_spool(path)
        sys.stdout.write(json.dumps(logical(path, made)) + "\n")
        os.write(marks, b".")
    made.close()


if __name__ == "__main__":
    {"life": main, "damaged": replace_a_damaged_one}[sys.argv[2]](Path(sys.argv[1]))
