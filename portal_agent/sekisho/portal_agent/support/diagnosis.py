"""The box's report about itself for whoever helps: numbers and words of the product, in a closed type that leaves as an
event. Nothing of it is about what the office does: no address, name, URL, file, or line of a log.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from sekisho.appliance import status, vitals
from sekisho.appliance.core import standing, utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.settings import Settings
from sekisho.signatures.keeper import counter
from sekisho.telemetry import link
from sekisho.telemetry.events import Diagnosis, Port

_NET: Final = Path("/sys/class/net")
_LINK: Final[dict[str, Literal["up", "down"]]] = {"1": "up", "0": "down"}


def collect(settings: Settings, job: str, *, net: Path = _NET) -> Diagnosis:
    """The report as of now; what cannot be found out is 0 or empty."""
    signs = vitals.measure(settings.state)
    seen = _status(settings)
    engine, scanner = (standing.try_read(settings, who) for who in ("engine", "scanner"))
    way = link.read(settings.link_status)
    return Diagnosis(
        at=utc.now(),
        job=job,
        version=signs.version,
        uptime=signs.uptime,
        load=_load(),
        temperature=signs.temperature,
        memory_free=signs.memory_free,
        memory_size=signs.memory_size,
        disk_free=signs.disk_free,
        disk_size=signs.disk_size,
        phase=seen.engine.phase if seen else "unknown",
        starts=seen.engine.starts if seen else 0,
        engine_off=seen.engine_bypass.reason if seen else "",
        gate_off=seen.gate_bypass.reason if seen else "",
        queue_waiting=sum(queue.waiting for queue in seen.queues.values()) if seen else 0,
        queue_dropped=sum(queue.dropped for queue in seen.queues.values()) if seen else 0,
        rules=engine.rules if engine else 0,
        rules_expected=engine.expected if engine else 0,
        engine_canary=engine.canary if engine else "untried",
        yara=scanner.rules if scanner else 0,
        scanner_canary=scanner.canary if scanner else "untried",
        quarantine_writable=bool(scanner and scanner.keeps),
        connected=bool(way.way),
        connected_since=way.since,
        ports=[_port("lan", net / settings.bridge.lan), _port("wan", net / settings.bridge.wan)],
        silent=_silent(settings, seen is not None, scanner is not None),
    )


def _status(settings: Settings) -> status.Status | None:
    with suppress(RejectedInput):
        found = status.try_read(settings)
        return found if found is not None and found.fresh else None
    return None


def _load() -> float:
    with suppress(OSError):
        return round(os.getloadavg()[0], 2)
    return 0.0


def _silent(settings: Settings, appliance: bool, inspect: bool) -> list[str]:
    said = {
        "appliance": appliance,
        "inspect": inspect,
        "signatures": counter.try_read(settings, time.monotonic()) is not None or not settings.signatures.channel,
        "telemetry": settings.link_status.exists() or not settings.telemetry.host,
    }
    return [name for name, spoke in said.items() if not spoke]


def _port(role: Literal["lan", "wan"], folder: Path) -> Port:
    counts = folder / "statistics"
    return Port(
        role=role,
        link=_LINK.get(_text(folder / "carrier"), "unknown"),
        speed=max(_number(folder / "speed"), 0),
        received=_number(counts / "rx_packets"),
        sent=_number(counts / "tx_packets"),
        errors=_number(counts / "rx_errors") + _number(counts / "tx_errors"),
        dropped=_number(counts / "rx_dropped") + _number(counts / "tx_dropped"),
    )


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else 0


def _text(path: Path, cap: int = 512) -> str:
    try:
        with path.open("rb") as source:
            return source.read(cap).decode(errors="replace").strip()
    except OSError:
        return ""
