"""`sekisho bench center`: how many events a centre stores, and what one costs, under thousands of simulated boxes.

Processor time is the measure that other work on the machine disturbs least: events for each second that the ingest
processes computed. Wall-clock figures stand beside it. Two shapes of load: `live`, batches of one event as boxes send
them while all is well, and `drain`, batches of a hundred after an outage.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sekisho.bench.center_stand import Stand, standing
from sekisho.bench.figures import Figure, Report
from sekisho.bench.fleet import Phase, Told

UNDER_WAY: Final = 256
"""Batches under way at one time where the centre is to be busy without a break."""
DRAIN_ROWS: Final = 100
SETTLE: Final = Phase(60.0, settle=True)
FEW: Final = 1_000
MANY: Final = 10_000


def measure(say: Callable[[str], None], *, quick: bool) -> Report:
    """Everything, or with `quick` a tenth of the boxes for a third of the time.

    Raises:
        DeviceFault: a server or the boxes could not be started, or events were not acknowledged.

    """
    seconds = 3.0 if quick else 8.0
    figures: list[Figure] = []
    for boxes in (100, FEW) if quick else (FEW, MANY):
        with tempfile.TemporaryDirectory(prefix="sekisho-bench-") as folder, standing(Path(folder)) as stand:
            say(f"connecting {boxes} boxes")
            stand.start_broker(boxes, workers=1)
            stand.start_worker(1)
            figures.append(_connecting(boxes, stand))
            say(f"{boxes} boxes, SQLite, one worker")
            figures += _ingest(stand, f"{boxes} boxes, SQLite", seconds)
    return Report(datetime.now(UTC).isoformat(timespec="seconds"), os.cpu_count() or 1, 0, figures)


def _connecting(boxes: int, stand: Stand) -> Figure:
    told = stand.start_fleet(boxes)
    detail = {"handshakes a second": boxes / told.seconds}
    return Figure("connect", f"{boxes} boxes connected", told.seconds, "s", 0, "report", detail)


def _ingest(stand: Stand, what: str, seconds: float) -> list[Figure]:
    live = _figure(stand, f"{what}, live", Phase(seconds, under_way=UNDER_WAY))
    drain = _figure(stand, f"{what}, drain", Phase(seconds, under_way=UNDER_WAY, rows=DRAIN_ROWS))
    return [live, drain]


def _figure(stand: Stand, what: str, phase: Phase) -> Figure:
    before = {part: stand.cpu_s(part) for part in ("center", "broker", "fleet")}
    told = stand.phase(phase)
    spent = {part: stand.cpu_s(part) - cpu for part, cpu in before.items()}
    rest = stand.phase(SETTLE)
    detail = {
        "events/s by the clock": told.acked / told.seconds,
        "events/s for each core of the broker": told.acked / max(spent["broker"], 0.01),
        "batches/s": told.acked / told.seconds / phase.rows,
        "acknowledged ms p50": told.p50_ms,
        "acknowledged ms p99": told.p99_ms,
        "batches that went again %": _again(told, rest),
        "batches not acknowledged at the end": rest.waiting,
    }
    return Figure("ingest", what, told.acked / max(spent["center"], 0.01), "ev/s", 0, "report", detail)


def _again(told: Told, rest: Told) -> float:
    return 100 * (told.again + rest.again) / max(told.batches, 1)
