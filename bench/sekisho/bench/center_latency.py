"""How long an alert takes from the engine's line on a real box to the centre's disk, and to the mail server.

One box runs the real telemetry daemon beside the simulated ones. Alerts are written at random moments, so that they
meet the load where they meet it. The clock stops when a reader of the database sees the event: it is committed.
"""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.bench.center_stand import REAL_BOX, Stand
from sekisho.bench.figures import Figure, percentile
from sekisho.bench.fleet import Phase
from sekisho.center.store import Store

STORED_MS: Final = 300
"""p99 that must hold."""
EVENTS_EACH_S: Final = 1.0
"""Of each simulated box: a busy small office."""
APART_S: Final = 0.1
POLL_S: Final = 0.002
LAST_S: Final = 10.0


def stored(stand: Stand, boxes: int, alerts: int) -> Figure:
    """Write `alerts` on the real box while the fleet reports; both must stand already.

    Raises:
        DeviceFault: an alert did not arrive, or not once.

    """
    seconds = alerts * APART_S + LAST_S
    stand.begin(Phase(seconds, rate=boxes * EVENTS_EACH_S))
    store = Store(stand.store, read_only=True)
    dice = random.Random(5)
    written: dict[int, float] = {}
    seen: dict[int, float] = {}
    last_id = store.last_id()
    next_at, until = time.monotonic() + 1.0, time.monotonic() + seconds
    try:
        while len(seen) < alerts and time.monotonic() < until:
            if len(written) < alerts and time.monotonic() >= next_at:
                next_at += APART_S * 2 * dice.random()
                number = 5_000_000 + len(written)
                written[number] = time.monotonic()
                write_alert(stand.eve, number)
            last_id = _look(store, last_id, seen)
            time.sleep(POLL_S)
    finally:
        store.close()
    told = stand.finish()
    if set(seen) != set(written):
        raise DeviceFault(f"{len(written) - len(seen)} of {len(written)} alerts did not arrive at the centre.")
    late = [(seen[number] - written[number]) * 1000 for number in written]
    detail = {
        "ms p50": percentile(late, 50),
        "ms p90": percentile(late, 90),
        "ms worst": max(late),
        "alerts": len(late),
        "events/s of the simulated boxes": told.acked / told.seconds,
    }
    what = f"detection to stored, p99, {boxes} boxes beside it"
    return Figure("stored", what, percentile(late, 99), "ms", STORED_MS, "at most", detail)


def write_alert(eve: Path, sid: int) -> None:
    """One line as the engine writes it."""
    line = {
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds"),
        "event_type": "alert",
        "src_ip": "192.168.1.10",
        "src_port": 51515,
        "dest_ip": "203.0.113.7",
        "dest_port": 443,
        "proto": "TCP",
        "alert": {"signature_id": sid, "rev": 1, "signature": "bench", "action": "blocked", "severity": 1},
    }
    with eve.open("ab", buffering=0) as out:
        out.write(json.dumps(line).encode() + b"\n")


def _look(store: Store, last_id: int, seen: dict[int, float]) -> int:
    newest = store.last_id()
    if newest == last_id:
        return last_id
    found = store.events(since_id=last_id, box=REAL_BOX)
    now = time.monotonic()
    for stored_event in found:
        event = json.loads(bytes(stored_event.event))
        if event["type"] == "alert":
            if event["sid"] in seen:
                raise DeviceFault(f"Alert {event['sid']} was stored twice.")
            seen[event["sid"]] = now
    return max(newest, found[-1].id) if found else newest
