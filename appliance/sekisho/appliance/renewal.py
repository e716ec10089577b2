"""Puts another engine in the place of the one that works, without a packet passing uninspected or being lost.

The new one starts in the other berth, beside the old: it must answer, count its rules, stop the canaries that come
through its own queues and let the others pass. Then the packet rules change at one stroke, and the old one is ended
when its queues are empty. Whatever goes wrong before the stroke ends the new one; the old goes on as ever.

What does not move is what the old engine knows of connections under way. The new one meets them in the middle
(`midstream`): packet by packet rules see them as ever, what spans packets begins where it came in. The gate keeps what
it knows: a file of which a part passed before is looked at whole.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sekisho.appliance import watchdog
from sekisho.appliance.berth import Binary
from sekisho.appliance.core import latency
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.leading import Lead
from sekisho.appliance.post import Post
from sekisho.appliance.proof import Proof
from sekisho.appliance.rendering import Load

ROOM: Final = 1.1
"""Memory that must be free for another engine, in parts of what the one beside it has."""
DRAIN_S: Final = 5.0
"""An engine that does not empty its queues by then hangs, and is ended with what waits in them."""
LOOK_S: Final = 0.05
MEMINFO: Final = Path("/proc/meminfo")

log = logging.getLogger(__name__)


class Scarce(DeviceFault):
    """There is no room for two engines at once."""


def renew(old: Post, new: Post, load: Load, binary: Binary, lead: Lead, going: Callable[[], bool]) -> Proof:
    """Start `binary` with `load` in `new`, prove it, and lead the packets to it; `old` is left as it is.

    Raises:
        Scarce: not tried, for lack of memory.
        DeviceFault: it did not become healthy, or `going` said no; it is ended, and the packets go where they went;
            or the packet rules were refused: it is not ended while `lead` is unsure.
        PeerError: likewise; it did not answer.

    """
    if old.process is not None and old.alive():
        _room(old.process.pid)
    try:
        lead.make_room()  # first: from here on nothing is led to one that is left there
        if new.try_adopt():
            new.stop()  # of a renewal that was killed
        new.launch(load, binary)
        if not new.answers(going) or new.process is None:
            raise DeviceFault("The daemon ends.")
        latency.short_slices(new.process.pid, "W-NFQ")
        proof = new.prover.prove(load)
        if not proof.whole(load):
            raise DeviceFault(
                f"Of {load.expected} rules {proof.loaded} were loaded, {proof.failed} failed; canary {proof.canary}."
            )
        lead.move(new.berth)
    except BaseException:
        if not lead.unsure:  # else packets of one family may be led to it; whoever cares for `lead` retires it
            new.kill()
        raise
    return proof


def retire(old: Post) -> None:
    """End an engine to which nothing is led any more, when it has judged what waits in its queues."""
    deadline = time.monotonic() + DRAIN_S
    empty = 0
    while empty < 2 and old.alive(LOOK_S):  # twice: a packet may have been on its way by the rules of before
        empty = empty + 1 if not _waiting(old) else 0
        if time.monotonic() > deadline:
            log.error("the former engine leaves %d packets behind", _waiting(old))
            break
    old.stop()


def _waiting(post: Post) -> int:
    try:
        table = watchdog.parse_queues(watchdog.QUEUES_PATH.read_text("ascii", "replace")[: watchdog.MAX_QUEUES_BYTES])
    except OSError:
        return 0
    return sum(table[number].waiting for number in post.berth.queues if number in table)


def _room(pid: int) -> None:
    """Whether an engine as large as this one fits beside it."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        lines = MEMINFO.read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration) as err:
        raise Scarce(f"How much memory is free cannot be read: {err}.") from err
    needed = int(pages * os.sysconf("SC_PAGE_SIZE") / 1024 * ROOM)
    if free < needed:
        raise Scarce(
            f"Two engines at once need {needed >> 10} MB of free memory, and {free >> 10} MB are free.",
            "Restart the engine at a quiet hour: sekisho box renew --restart.",
        )
