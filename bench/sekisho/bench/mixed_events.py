"""What the devices of a small office make a box report: a pool of events in the proportions of an ordinary day."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Final

from sekisho.telemetry import events
from sekisho.telemetry.events import Alert, Dns, Event, FileVerdict, Flow, Tls, Web

LANE_WEIGHTS: Final = (2, 28, 970)
"""Of a thousand events: blocked files, alerts, metadata."""
_POOL: Final = 64


def pools(seed: int = 1) -> list[list[bytes]]:
    """Encoded events by lane, `_POOL` of each."""
    dice = random.Random(seed)
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return [[events.encode(make(dice, at)) for _ in range(_POOL)] for make in (blocked, alert, metadata)]


def flow(dice: random.Random, port: int) -> Flow:
    device = dice.randrange(10, 60)
    peer = f"203.0.113.{dice.randrange(1, 255)}"
    return Flow(f"192.168.1.{device}", dice.randrange(1024, 65536), peer, port, "TCP", f"02:00:5e:10:00:{device:02x}")


def metadata(dice: random.Random, at: str) -> Event:
    host = f"{dice.choice(('www', 'cdn', 'api', 'mail'))}.name-{dice.randrange(5000)}.example"
    kind = dice.random()
    if kind < 0.55:
        return Dns(at=at, flow=flow(dice, 53), name=host, rrtype=dice.choice(("A", "AAAA", "HTTPS")))
    if kind < 0.9:
        return Tls(at=at, flow=flow(dice, 443), sni=host, version="TLS 1.3")
    if kind < 0.97:
        url = f"/{dice.randrange(1 << 32):x}/index.html"
        return Web(at=at, flow=flow(dice, 80), method="GET", host=host, url=url, status=200, length=4321)
    sha256 = f"{dice.getrandbits(256):064x}"
    return FileVerdict(
        at=at, flow=flow(dice, 80), file_name="report.pdf", sha256=sha256, size=81234, app="http", host=host
    )


def alert(dice: random.Random, at: str) -> Event:
    return Alert(
        at=at,
        flow=flow(dice, 443),
        sid=2000000 + dice.randrange(50000),
        rev=3,
        signature="ET POLICY An observed name that is worth a look",
        category="Potentially Bad Traffic",
        severity=2,
        app="tls",
        sni=f"name-{dice.randrange(5000)}.example",
    )


def blocked(dice: random.Random, at: str) -> Event:
    return FileVerdict(
        at=at,
        flow=flow(dice, 80),
        outcome="blocked",
        stars=2,
        rules=["Fleet_Test_File"],
        file_name="invoice.exe",
        sha256=f"{dice.getrandbits(256):064x}",
        size=123456,
        app="http",
        host=f"name-{dice.randrange(5000)}.example",
        held_ms=12.5,
    )
