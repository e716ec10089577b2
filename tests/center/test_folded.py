"""Repeats told as one arrive whole: box and centre killed in between, the counts at the centre are the alerts."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.center.conftest import Site

BOX = """
import sys
from sekisho.telemetry import daemon, folds
folds.FIRST_S, folds.LAST_S = 0.3, 1.0
sys.exit(daemon.main(["--settings", sys.argv[1]]))
"""
CALL = {"signature": "ET MALWARE Something CnC Beacon", "category": "Malware Command and Control Activity Detected"}
WAYS = {"src_ip": "192.168.10.20", "dest_ip": "198.51.100.9", "direction": "to_server"}


def start(site: Site) -> None:
    """The box with a clock on which a minute of repeats is a third of a second."""
    argv = [sys.executable, "-I", "-c", BOX, str(site.box_toml)]
    with (site.root / "box.log").open("ab") as log:
        site.processes["box"] = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)


def alerts(site: Site) -> list[dict[str, Any]]:
    decoded = [json.loads(bytes(stored.event)) for stored in site.events()]
    return [event for event in decoded if event["type"] == "alert"]


def call(sid: int, action: str) -> bytes:
    line = json.dumps(
        {
            "timestamp": "2026-01-02T03:04:05.000006+0000",
            "event_type": "alert",
            **WAYS,
            "alert": {"signature_id": sid, "action": action, **CALL},
        }
    )
    return line.encode() + b"\n"


def test_whoever_is_killed_the_counts_at_the_centre_are_the_alerts(site: Site) -> None:
    site.start("broker", "center")
    start(site)
    dice = random.Random(5)
    written: dict[tuple[int, str], int] = {}
    for victim in ("box", "center", "box", "box", "broker", "box"):
        for _ in range(40):
            key = (dice.randrange(1, 4), dice.choice(("blocked", "blocked", "allowed")))
            times = dice.randrange(1, 30)
            site.write(call(*key) * times)
            written[key] = written.get(key, 0) + times
        site.wait_more(len(site.events()))
        site.kill(victim)
        if victim == "box":
            start(site)
        else:
            site.start(victim)

    def counted() -> dict[tuple[int, str], int]:
        found: dict[tuple[int, str], int] = {}
        for event in alerts(site):
            key = (event["sid"], event.get("action", "allowed"))
            found[key] = found.get(key, 0) + event.get("count", 1)
        return found

    site.wait(lambda: counted() == written, 60)
    assert len(alerts(site)) < sum(written.values()) / 10
    assert {(event["stars"], event["why_stars"], event["direction"]) for event in alerts(site)} == {
        (3, "calls_out", "out")
    }
    assert site.missing() == []
