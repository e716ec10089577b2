"""One run: the arms stand, each measurement is taken, the report is written."""

from __future__ import annotations

import lzma
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.bench import beside, latency, mailbox, memory, policy, proxy, scan, signatures, telemetry, throughput
from sekisho.bench.arms import Arms, standing
from sekisho.bench.figures import Figure, Report
from sekisho.signatures.sources import SHIPPED

MEASUREMENTS: Final[dict[str, Callable[[Arms], list[Figure]]]] = {
    "ping": latency.round_trip,
    "hold": latency.hold,
    "alert": latency.alert,
    "tls": throughput.bulk_tls,
    "http": throughput.clear_http,
    "pop3": mailbox.pop3,
    "policy": policy.policy,
    "proxy": beside.proxied,
    "memory": memory.memory,
}
Say = Callable[[str], None]
WITHOUT_LAB: Final[dict[str, Callable[[Say], list[Figure]]]] = {
    "scan": lambda _say: scan.scan(),
    "telemetry": lambda _say: telemetry.telemetry(),
    "signatures": signatures.signatures,
}
"""What needs none of the arms; it may bring up a lab of its own."""
_MAX_RULES_BYTES = 64 << 20


def run(name: str, rules: Path | None, only: list[str], say: Say) -> Report:
    """Measure what `only` names (empty: everything) with the given rules (None: those that ship).

    Raises:
        RejectedInput: the rules cannot be read.
        DeviceFault: a lab did not come up, or a measurement could not be taken.

    """
    notes = [] if rules else ["Measured with the few shipped rules only: the large public rule set is not here."]
    if not proxy.installed():
        notes.append("Not compared with squid, c-icap and ClamAV: they are not installed (make bench brings them).")
    load = os.getloadavg()[0]
    if load > (os.cpu_count() or 1) / 2:
        notes.append(
            f"The machine was busy with other work (load {load:.1f}) when the run began: p99 figures say little."
        )
    figures = []
    for key, alone in WITHOUT_LAB.items():
        if not only or key in only:
            say(f"measuring {key}")
            figures += alone(say)
    if only and not set(only) - set(WITHOUT_LAB):
        return report(figures, notes)
    with tempfile.TemporaryDirectory(prefix="sekisho-bench-") as folder:
        if rules:
            (Path(folder) / "bench.rules").write_bytes(_unpacked(rules))
            shutil.copy(SHIPPED / "suricata" / "sekisho.rules", folder)  # the alert measurement needs its test rule
        say("bringing the labs up")
        with standing(name, folder if rules else "") as arms:
            for key, measure in MEASUREMENTS.items():
                if not only or key in only:
                    say(f"measuring {key}")
                    try:
                        figures += measure(arms)
                    except DeviceFault as err:
                        if key != "proxy":
                            raise
                        notes.append(f"Not compared with squid, c-icap and ClamAV: {err}")
                    else:
                        if key == "proxy" and proxy.installed():
                            notes.append(beside.NOTE)
            return report(figures, notes, arms.rules)


def report(figures: list[Figure], notes: list[str], rules: int = 0) -> Report:
    """What was measured here, now."""
    return Report(datetime.now(UTC).isoformat(timespec="seconds"), os.cpu_count() or 1, rules, figures, notes)


def write(done: Report, path: Path) -> None:
    """Keep the report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(done)) + b"\n")


def _unpacked(path: Path) -> bytes:
    try:
        with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as source:
            data = source.read(_MAX_RULES_BYTES + 1)
    except (OSError, lzma.LZMAError) as err:
        raise RejectedInput(f"{path}: {err}.") from err
    if len(data) > _MAX_RULES_BYTES:
        raise RejectedInput(f"{path}: larger than {_MAX_RULES_BYTES >> 20} MB.")
    return data
