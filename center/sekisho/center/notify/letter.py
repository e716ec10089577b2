"""What a mail says, before it has words: kept with the mail, so that every attempt to send it says the same."""

from __future__ import annotations

from typing import Literal

import msgspec

from sekisho.center.notify.told import Told
from sekisho.center.tenants import Locale

Kind = Literal[
    "alert",
    "again",
    "storm",
    "quiet",
    "digest",
    "offline",
    "back",
    "flapping",
    "steady",
    "outage",
    "over",
    "deaf",
    "hears",
    "silent",
    "stale",
    "halted",
    "failed",
    "invite",
    "password",
    "account",
]


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is told, and how often it was."""

    told: Told
    count: int
    first: str
    last: str
    device_name: str = ""
    """What the device calls itself."""
    device_kind: str = ""
    others: bool = False
    """It stands for several things of which only the first is described."""


class Letter(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of one mail."""

    kind: Kind
    tenant: str
    at: str
    locale: Locale = "ja"
    time_zone: str = "Asia/Tokyo"
    tenant_name: str = ""
    entries: list[Entry] = []
    total: int = 0
    """How many things happened in all, also those that are not listed."""
    more: int = 0
    """Topics that are not listed."""
    sites: dict[str, str] = {}
    """Box -> the name of its place."""
    box: str = ""
    """Whose reachability it is about."""
    since: str = ""
    number: int = 0
    """Of drops, of boxes."""
    detail: str = ""
    unaddressed: bool = False
    """It goes to the centre's staff because the tenant has named nobody."""
    thread: str = ""
    """What the first mail of its thread was about."""
    link: str = ""
    """Where its one button leads; good once and for a while only."""
