"""What boxes tell of attacks, and the alerts that come of it."""

from __future__ import annotations

import re

import sqlalchemy as sa
from office import US, Office

from sekisho.center.views.alerts import ALERT
from sekisho.telemetry.events import Alert, Flow

MAC = "02:00:00:00:00:01"


def calls_out(at: str, **more: object) -> Alert:
    """An infection calling home."""
    flow = Flow("192.168.1.10", 4000, "203.0.113.9", 443, "TCP", MAC)
    values: dict[str, object] = {
        "sid": 2_029_340,
        "signature": "ET MALWARE CnC",
        "action": "blocked",
        "direction": "out",
    }
    return Alert(at=at, flow=flow, stars=3, why_stars="calls_out", **{**values, **more})  # type: ignore[arg-type]


def probed(at: str, **more: object) -> Alert:
    """An attack from outside that was stopped."""
    flow = Flow("203.0.113.5", 4000, "192.168.1.20", 445, "TCP", "02:00:00:00:00:02")
    return Alert(at=at, flow=flow, sid=7, action="blocked", stars=1, why_stars="attack_stopped", direction="in", **more)  # type: ignore[arg-type]


def ids(office: Office, tenant: str = US) -> list[int]:
    """The tenant's alerts, oldest first."""
    with office.store.database.reading() as db:
        return list(db.scalars(sa.select(ALERT.c.id).where(ALERT.c.tenant == tenant).order_by(ALERT.c.id)))


def listed(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'data-alert="(\d+)"', text)]
