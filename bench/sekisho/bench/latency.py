"""Time: what the hold adds to a clean file, what the box adds to a round trip, and from an alert to the centre."""

from __future__ import annotations

import json
import re
import secrets
import sys
from datetime import datetime
from typing import Any, TypeGuard

from sekisho.appliance.core.errors import DeviceFault
from sekisho.bench.arms import Arms, gate_bypassed, programs
from sekisho.bench.figures import Figure, median, percentile
from sekisho.lab import layout, samples
from sekisho.lab.lab import Lab
from sekisho.telemetry.events import Alert, Event, FileVerdict

BLOCKS, FETCHES = 10, 20
SIZE = 1_000_000
PINGS = 1000
BEACONS = 100


def hold(arms: Arms) -> list[Figure]:
    """200 downloads of clean 1 MB files with the hold, without it, and through the other arms, in turn.

    Each file is new to the box: one whose verdict it remembers would not be held at all. Once with parts of programs,
    and once with hexadecimal digits, of all texts the one that takes the matcher longest.
    """
    return [
        _held(arms, "hold", "program", programs(FETCHES * SIZE)),
        _held(arms, "hold_text", "text of hexadecimal digits", samples.clean(SIZE)),
    ]


def _held(arms: Arms, key: str, what: str, content: bytes) -> Figure:
    seconds: dict[str, list[float]] = {"held": [], "gate bypassed": [], "packaged": [], "bare bridge": []}
    told = {(row.epoch, row.seq) for row in arms.product.events() if _is_clean_file(row.event)}
    for _block in range(BLOCKS):
        for lab in (arms.product, arms.bare, arms.packaged):
            offer(lab, content)
        seconds["held"] += fetch(arms.product)
        with gate_bypassed(arms.product):
            seconds["gate bypassed"] += fetch(arms.product)
        seconds["packaged"] += fetch(arms.packaged)
        seconds["bare bridge"] += fetch(arms.lab("bare"))
    detail: dict[str, float] = {}
    for name, values in seconds.items():
        detail |= {f"{name} p50 ms": median(values) * 1e3, f"{name} p99 ms": percentile(values, 99) * 1e3}
    rows = [row for row in arms.product.events() if (row.epoch, row.seq) not in told]
    held = [row.event.held_ms for row in rows if _is_clean_file(row.event)]
    detail |= {"held, as the box itself says, p50 ms": median(held), "the same, p99 ms": percentile(held, 99)}
    detail["added at p50 ms"] = detail["held p50 ms"] - detail["gate bypassed p50 ms"]
    added = detail["held p99 ms"] - detail["gate bypassed p99 ms"]
    return Figure(key, f"the hold's own part of a clean 1 MB {what}, p99", added, "ms", 5.0, "at most", detail)


def round_trip(arms: Arms) -> list[Figure]:
    """Pings through the box and over the bare bridge, in turn."""
    times: dict[str, list[float]] = {"product": [], "bare": []}
    for _block in range(4):
        times["product"] += _ping(arms.product)
        times["bare"] += _ping(arms.lab("bare"))
    detail: dict[str, float] = {}
    for name, values in times.items():
        detail |= {f"{name} p50 ms": median(values), f"{name} p99 ms": percentile(values, 99)}
    added = detail["product p99 ms"] - detail["bare p99 ms"]
    return [Figure("ping", "round trip, added to the bare bridge's p99", added, "ms", 0.3, "at most", detail)]


def alert(arms: Arms) -> list[Figure]:
    """From the instant a forbidden request leaves the client to the centre's own time stamp of the stored alert."""
    lab = arms.product
    path = "/sk-c2/checkin"
    sent: dict[str, float] = _client(lab, "beacon", path, BEACONS)["sent"]
    arrived: dict[str, float] = {}

    def all_there() -> bool:
        for row in lab.events():
            if isinstance(row.event, Alert) and row.event.url in sent:
                arrived.setdefault(row.event.url, datetime.fromisoformat(row.received_at).timestamp())
        return len(arrived) == len(sent)

    lab.wait(all_there, "not every alert reached the centre", 30)
    delays = [(arrived[url] - sent[url]) * 1e3 for url in sent]
    detail = {"p50 ms": median(delays), "worst ms": max(delays)}
    return [Figure("alert", "alert to centre, p99", percentile(delays, 99), "ms", 500, "at most", detail)]


def offer(lab: Lab, content: bytes) -> None:
    """Put new clean 1 MB files on the lab's web server: parts of `content`, one after the other."""
    folder = lab.lay.www / "hold"
    folder.mkdir(exist_ok=True)
    for number in range(FETCHES):
        start = number * SIZE % len(content)
        (folder / f"{number}.bin").write_bytes(secrets.token_bytes(32) + content[start : start + SIZE - 32])


def _is_clean_file(event: Event) -> TypeGuard[FileVerdict]:
    return isinstance(event, FileVerdict) and event.outcome == "clean" and event.url.startswith("/hold/")


def fetch(lab: Lab) -> list[float]:
    """Seconds each of those files takes, one after the other.

    Raises:
        DeviceFault: one was cut.

    """
    got = _client(lab, "fetch", "/hold/{}.bin", FETCHES)
    if got["short"]:
        raise DeviceFault(f"{got['short']} of {FETCHES} clean downloads were cut in {lab.lay.name}.")
    return list(got["seconds"])


def _client(lab: Lab, what: str, path: str, count: int) -> dict[str, Any]:
    argv = [sys.executable, "-I", "-m", "sekisho.bench.client", what, layout.SERVER4, path, str(count)]
    done = lab.run("lan", argv, timeout_s=120)
    if done.returncode:
        raise DeviceFault(f"{what} {path} failed in {lab.lay.name}: {done.stderr.decode()[-500:].strip()}")
    return dict(json.loads(done.stdout))


def _ping(lab: Lab) -> list[float]:
    argv = ["ping", "-n", "-i", "0.003", "-c", str(PINGS), layout.SERVER4]
    output = lab.run("lan", argv, timeout_s=60).stdout.decode()
    times = [float(found) for found in re.findall(r"time=([\d.]+) ms", output)]
    if len(times) < PINGS * 0.99:
        raise DeviceFault(f"{PINGS - len(times)} of {PINGS} pings were lost in {lab.lay.name}.")
    return times
