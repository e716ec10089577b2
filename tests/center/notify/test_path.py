"""From a line of the engine on the box to the mail server, through the real broker, centre and notifier."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from post_office import MailServer, Office, text_of

CALLS_OUT = {
    "signature": "ET MALWARE Cobalt Strike Beacon CnC Checkin",
    "category": "Malware Command and Control Activity Detected",
    "severity": 1,
    "action": "blocked",
    "metadata": {"signature_severity": ["Major"], "confidence": ["High"]},
}


@pytest.fixture
def whole(site: Any, server: MailServer) -> Iterator[Office]:
    """The notifier on the database of a site whose broker, centre and box run."""
    site.start("broker", "center")
    site.wait(lambda: site.store_path.exists())
    office = Office(Path(site.root), server, site.store_path)
    site.start("box")
    office.start()
    yield office
    office.kill()


def call_out(site: Any, number: int) -> None:
    ends = {"src_ip": "192.168.1.23", "dest_ip": "203.0.113.9", "src_port": 50000, "dest_port": 443}
    flow = {"src_ip": "192.168.1.23", "dest_ip": "203.0.113.9"}
    alert = {"signature_id": number, **CALLS_OUT}
    site.write(site.line("alert", alert=alert, flow=flow, direction="to_server", **ends))


def test_an_infection_that_calls_out_is_mailed_within_five_seconds(
    site: Any, whole: Office, server: MailServer
) -> None:
    call_out(site, 1)
    server.wait(1, 40)
    times = []
    for number in range(2, 11):
        began = time.monotonic()
        call_out(site, number)
        mails = server.wait(number)
        times.append(time.monotonic() - began)
    assert max(times) < 5.0
    assert all(str(mail["Subject"]).startswith("【重要】★★★ ") for mail in mails)
    assert "192.168.1.23" in text_of(mails[0])
    assert "遮断しました" in text_of(mails[0])
