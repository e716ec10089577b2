"""What `sekisho telemetry sent` shows is what the broker was given: every message, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from sekisho.center import ingest

if TYPE_CHECKING:
    from tests.center.conftest import Heard, Site


def sent(site: Site, *more: str) -> list[dict[str, Any]]:
    argv = [sys.executable, "-I", "-m", "sekisho.appliance.cli", "telemetry", "sent", "--json", *more]
    done = subprocess.run([*argv, "--settings", str(site.box_toml)], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def given(heard: Heard) -> tuple[set[str], list[str]]:
    """Events and births the broker was given, each as JSON with sorted keys."""
    events = set()
    for lane in range(3):
        for payload in heard.of(f"ev/{lane}"):
            events |= {_sorted(json.loads(row.body)) for row in ingest.parse_batch(lane, payload).rows}
    return events, [_sorted(json.loads(payload)) for payload in heard.of("state") if b'"on"' in payload]


def _sorted(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def test_every_message_is_shown_as_it_left_also_before_the_centre_has_it(site: Site, heard: Heard) -> None:
    site.start("center", "box")
    site.write(b"".join(site.alert(number) + site.dns(number) for number in range(1, 301)))
    site.wait(lambda: len(site.events()) == 600 and site.waiting() == 0)
    site.kill("center")
    site.write(b"".join(site.dns(number) for number in range(301, 321)))
    site.wait(lambda: len(given(heard)[0]) == 620)
    site.wait(lambda: sum("seq" in line for line in sent(site)) == 620)

    shown = sent(site)
    events, births = given(heard)
    assert {_sorted(line["event"]) for line in shown if "seq" in line} == events
    assert [line.get("acknowledged", False) for line in shown if "seq" in line] == [True] * 600 + [False] * 20
    said = [line for line in shown if "topic" in line]
    assert {_sorted(line["message"]) for line in said if line["topic"] == "state"} == set(births)
    wills = [line["message"] for line in said if line["topic"] == "will"]
    assert wills == [{"st": "lost", "bd": json.loads(births[0])["bd"]}]

    assert len(sent(site, "--since", "1h")) == len(shown)
    under_way = [line["seq"] for line in sent(site, "--since", "2098-01-01T00:00:00Z")]
    assert under_way == list(range(601, 621)), "what is under way leaves now"
    assert sum(line.get("acknowledged", False) for line in sent(site, "--limit", "5")) == 5
    site.kill("box")
    site.start("box")
    assert len(sent(site)) >= len(shown), "a restart forgets nothing of it"


def test_what_only_waits_has_not_left(site: Site) -> None:
    site.start("box")
    site.write(site.alert(1))
    site.wait(lambda: site.waiting() == 1)
    assert sent(site) == []
