"""With mask_internal no address or name of a device leaves the box or waits to: real daemons, every byte searched."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sekisho.center import ingest
from sekisho.telemetry import events
from sekisho.telemetry.events import Device

if TYPE_CHECKING:
    from tests.center.conftest import Heard, Site

AT = "2026-01-02T03:04:05.000006Z"
IPV4, IPV6, MAC, NAME = "10.77.0.10", "fd00:77::10", "a4:5e:60:c2:19:0b", "keiri-note7"
SECRETS = [text.encode() for text in (IPV4, "10.0.77.10", IPV6, MAC, MAC.replace(":", ""), NAME)]
EVENTS = 7


def lines(site: Site) -> bytes:
    """One of each kind of EVE line, with the office's secrets in every place that can hold one."""
    http = {"hostname": f"{NAME}.local", "url": f"http://{IPV4}:8080/{NAME}/{MAC}", "http_method": "GET"}
    ways = {"src_ip": IPV4, "dest_ip": "203.0.113.5"}
    return b"".join(
        (
            site.alert(1, http=http, **ways, files=[{"filename": f"{MAC.replace(':', '')}.jpg"}]),
            site.alert(2, src_ip="203.0.113.5", dest_ip=IPV6, tls={"sni": f"[{IPV6}]"}),
            site.line("http", http=http, **ways),
            site.line("tls", tls={"sni": NAME}, **ways),
            site.line("dns", dns={"type": "query", "rrname": "10.0.77.10.in-addr.arpa", "rrtype": "PTR"}, **ways),
            site.line("smtp", smtp={"mail_from": f"<root@{NAME}.lan>", "rcpt_to": ["<a@example.com>"]}, **ways),
        )
    )


@pytest.mark.parametrize("masked", [True, False])
def test_what_leaves_names_devices_by_pseudonyms_only(site: Site, heard: Heard, masked: bool) -> None:
    text = site.box_toml.read_text()
    site.box_toml.write_text(text.replace("[telemetry]", f"[telemetry]\nmask_internal = {str(masked).lower()}"))
    (site.root / "run" / "inventory.json").write_text(json.dumps({IPV4: MAC, IPV6: MAC}))
    journal = site.root / "state" / "journal" / "appliance.jsonl"
    journal.parent.mkdir(parents=True)
    device = Device(at=AT, mac=MAC, ipv4=[IPV4], ipv6=[IPV6], name=NAME, vendor="Apple")
    site.start("center", "box")
    journal.write_bytes(events.encode(device) + b"\n")
    site.wait(lambda: len(site.events()) == 1)
    site.write(lines(site))
    site.wait(lambda: len(site.events()) == EVENTS)
    site.wait(lambda: sum(len(rows(*message)) for message in heard.messages) >= EVENTS)
    kept = site.contents("state/telemetry/*", "events.db*", "broker/*.db")
    searched = b"".join(content for path, content in kept.items() if not path.name.startswith("aliases"))
    searched += b"".join(payload + b"".join(rows(topic, payload)) for topic, payload in heard.messages)
    found = [secret for secret in SECRETS if secret in searched.lower()]
    assert found == ([] if masked else SECRETS)
    if masked:
        stored = [events.decode(bytes(row.event)) for row in site.events()]
        pseudonym = next(event.mac for event in stored if isinstance(event, Device))
        assert sum(pseudonym == getattr(getattr(event, "flow", None), "mac", "") for event in stored) == EVENTS - 1
        argv = [sys.executable, "-I", "-m", "sekisho.appliance.cli", "telemetry", "whois", pseudonym]
        told = subprocess.run([*argv, "--settings", str(site.box_toml)], capture_output=True, text=True, check=True)
        assert told.stdout == MAC + "\n"


def rows(topic: str, payload: bytes) -> list[bytes]:
    """The events in a message, in plain text."""
    where = ingest.parse_topic(topic) if "/ev/" in topic else None
    if where is None or where.lane is None:
        return []
    return [row.body for row in ingest.parse_batch(where.lane, payload).rows]
