"""The centre knows whether it hears its broker: from the real daemon and the real Mosquitto."""

from __future__ import annotations

import time
from typing import Any

from sekisho.center import pulse
from sekisho.center.database import Database


def test_the_intake_says_that_it_hears_the_broker_and_not_when_it_does_not(site: Any) -> None:
    site.start("center")
    site.wait(lambda: site.store_path.exists())
    database = Database(str(site.store_path), read_only=True)

    def heard() -> str:
        with database.reading() as db:
            return pulse.heard(db)

    until = time.monotonic() + 1.5
    site.wait(lambda: time.monotonic() > until)
    assert heard() == ""
    site.start("broker")
    site.wait(heard)
