"""`sekisho bench center`: how many events a centre stores, and what one costs, under thousands of simulated boxes.

Processor time is the measure that other work on the machine disturbs least: events for each second that the ingest
processes computed. Wall-clock figures stand beside it. Two shapes of load: `live`, batches of one event as boxes send
them while all is well, and `drain`, batches of a hundred after an outage. Everything runs on this machine, so by the
clock the boxes, the broker and the database compete with what is measured.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sekisho.bench import center_latency
from sekisho.bench.center_stand import Stand, standing
from sekisho.bench.figures import Figure, Report
from sekisho.bench.fleet import Phase, Told
from sekisho.lab import nats_cluster, postgres
from sekisho.lab.postgres import Postgres

UNDER_WAY: Final = 256
"""Batches under way at one time where the centre is to be busy without a break."""
DRAIN_ROWS: Final = 100
SETTLE: Final = Phase(60.0, settle=True)
FEW: Final = 1_000
MANY: Final = 10_000
WORKERS: Final = (1, 2, 4)
DURABLE: Final = {"listen_addresses": "", "max_connections": "100"}
"""PostgreSQL as installed: a commit is on the disk."""

Say = Callable[[str], None]


def measure(say: Say, *, quick: bool) -> Report:
    """Everything, or with `quick` a tenth of the boxes for a third of the time.

    Raises:
        DeviceFault: a server or the boxes could not be started, or an alert did not arrive.

    """
    few, many, seconds = (FEW // 10, MANY // 10, 3.0) if quick else (FEW, MANY, 8.0)
    figures: list[Figure] = []
    notes: list[str] = []
    load = os.getloadavg()[0]
    if load > (os.cpu_count() or 1) / 2:
        notes.append(f"The machine was busy with other work (load {load:.1f}) when the run began: p99s say little.")
    figures += _with_mosquitto(few, seconds, say, latency=True)
    figures += _with_mosquitto(many, seconds, say, latency=False)
    if nats_cluster.installed() and postgres.programs():
        figures += _with_cluster(few, seconds, say)
    else:
        notes.append("The cluster was not measured: nats-server or postgresql is not installed.")
    return Report(datetime.now(UTC).isoformat(timespec="seconds"), os.cpu_count() or 1, 0, figures, notes)


def _with_mosquitto(boxes: int, seconds: float, say: Say, *, latency: bool) -> list[Figure]:
    with _stand() as stand:
        say(f"{boxes} boxes connect to Mosquitto; SQLite")
        stand.start_broker(boxes, workers=1)
        stand.start_worker(1)
        figures = [_connecting(stand, boxes, "Mosquitto")]
        if latency:
            say("detection to stored")
            stand.start_box()
            figures.append(center_latency.stored(stand, boxes, alerts=int(seconds * 25)))
            say("detection to mail server")
            figures.append(center_latency.mailed(stand, boxes, mails=int(seconds * 5)))
        figures += _ingest(stand, f"{boxes} boxes, Mosquitto, SQLite", seconds)
        if postgres.programs():
            say(f"{boxes} boxes; PostgreSQL")
            with _postgres() as url:
                stand.stop("center")
                stand.store = url
                stand.start_worker(1)
                stand.phase(Phase(0.1, anew=True))
                _warm_up(stand)
                figures += _ingest(stand, f"{boxes} boxes, Mosquitto, PostgreSQL", seconds)
                stand.stop("center")
    return figures


def _with_cluster(boxes: int, seconds: float, say: Say) -> list[Figure]:
    with _postgres() as url, _stand() as stand:
        say(f"{boxes} boxes connect to three NATS nodes; PostgreSQL")
        stand.store = url
        stand.start_cluster(boxes)
        stand.start_worker(1)
        figures = [_connecting(stand, boxes, "three NATS nodes")]
        running = 1
        for workers in WORKERS:
            while running < workers:
                running += 1
                stand.start_worker(running)
            _warm_up(stand)
            say(f"JetStream and PostgreSQL, workers: {workers}")
            figures += _ingest(stand, f"{boxes} boxes, JetStream, PostgreSQL, workers: {workers}", seconds)
    return figures


@contextmanager
def _stand() -> Iterator[Stand]:
    with tempfile.TemporaryDirectory(prefix="sekisho-bench-") as folder, standing(Path(folder)) as stand:
        yield stand


@contextmanager
def _postgres() -> Iterator[str]:
    server = Postgres(DURABLE)
    try:
        server.start()
        yield server.database()
    finally:
        server.stop()


def _connecting(stand: Stand, boxes: int, broker: str) -> Figure:
    told = stand.start_fleet(boxes)
    detail = {"connections/s": told.connected / told.seconds, "connected": told.connected}
    return Figure("connect", f"{boxes} boxes connect to {broker}", told.seconds, "s", 0, "report", detail)


def _warm_up(stand: Stand) -> None:
    """A worker that has just come takes every box's birth first; what is sent behind them says when it has."""
    stand.phase(Phase(1.0, rate=100.0))
    stand.phase(SETTLE)


def _ingest(stand: Stand, what: str, seconds: float) -> list[Figure]:
    live = _figure(stand, f"{what}, live", Phase(seconds, under_way=UNDER_WAY))
    drain = _figure(stand, f"{what}, drain", Phase(seconds, under_way=UNDER_WAY, rows=DRAIN_ROWS))
    return [live, drain]


def _figure(stand: Stand, what: str, phase: Phase) -> Figure:
    before = {part: stand.cpu_s(part) for part in ("center", "broker")}
    told = stand.phase(phase)
    spent = {part: stand.cpu_s(part) - cpu for part, cpu in before.items()}
    rest = stand.phase(SETTLE)
    detail = {
        "events/s by the clock": told.acked / told.seconds,
        "events/s for each core of the broker": told.acked / max(spent["broker"], 0.01),
        "acknowledged ms p50": told.p50_ms,
        "acknowledged ms p99": told.p99_ms,
        "batches that went again %": _again(told, rest),
        "batches not acknowledged at the end": rest.waiting,
    }
    return Figure("ingest", what, told.acked / max(spent["center"], 0.01), "ev/s", 0, "report", detail)


def _again(told: Told, rest: Told) -> float:
    return 100 * (told.again + rest.again) / max(told.batches, 1)
