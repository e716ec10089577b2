"""Devices, and at a glance whether each is really protected: what share of its bytes of a day was looked at."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import msgspec
from litestar import Response, get

from sekisho.appliance import portrait
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.coverage import GROUP, Tally
from sekisho.portal_agent.office import Asked, office_of

HOURS: Final = 24
SHOWN: Final = 300
PARTLY: Final = 0.05
"""From this share on that nobody looked at, a device counts as protected in part."""


class Row(msgspec.Struct, frozen=True):
    """One device on the page."""

    name: str
    kind: str
    vendor: str
    random_mac: bool
    mac: str
    addresses: str
    last_seen: str
    word: str
    octets: str
    inspected: int
    opaque: int
    past: int
    """Per cent that passed without a look."""


@get("/devices", right="owner", sync_to_thread=True)
def devices(request: Asked) -> Response[Any]:
    office = office_of(request)
    told: portrait.Told | None = None
    with suppress(DeviceFault, OSError):
        told = portrait.coverage(office.settings, HOURS, live=False)
    shares = {share.mac: share.tally for share in told.devices} if told else {}
    known = portrait.devices(office.settings)
    rows = [_row(each, shares.get(each.mac, Tally()) if told else None) for each in known[:SHOWN]]
    others = [tally for mac, tally in shares.items() if mac not in {each.mac for each in known} and mac != GROUP]
    reasons = sorted(told.total.bypassed.items(), key=lambda item: -item[1])[:8] if told else []
    return office.page(
        request,
        "devices.html",
        rows=rows,
        more=max(0, len(known) - SHOWN),
        told=told,
        others=len(others),
        off=portrait.duration(told.off_seconds) if told else "",
        reasons=[(why, portrait.size(octets)) for why, octets in reasons],
    )


def _row(each: portrait.Seen, tally: Tally | None) -> Row:
    """`tally` is None while nothing was counted of anyone."""
    counted = tally or Tally()
    whole = counted.total
    past = (sum(counted.bypassed.values()) + counted.unseen) / (whole or 1)
    word = "uncounted" if tally is None else "quiet" if not whole else "partly" if past >= PARTLY else "covered"
    return Row(
        each.name, each.kind, each.vendor, each.random_mac, each.mac,
        ", ".join([*each.ipv4[-2:], *each.ipv6[-1:]]), each.last_seen, word, portrait.size(whole) if tally else "-",
        round(100 * counted.inspected / (whole or 1)), round(100 * counted.opaque / (whole or 1)), round(100 * past),
    )  # fmt: skip


HANDLERS: Final = (devices,)
