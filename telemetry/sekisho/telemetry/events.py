"""Every kind of event that may leave the box, and every field it may carry.

These types are the privacy boundary (REQUIREMENTS B1, B2): EVE lines and journals are decoded *into*
them, and what is not listed here does not exist afterwards. There is no free-form field. Strings are
cut at their cap when an event is made (`telemetry.decode`), URLs lose user, password and fragment, and
query values are masked. Lane 0: verdicts and bypass, lane 1: alerts, lane 2: metadata.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

Outcome = Literal["clean", "blocked", "released_by_policy", "delivered_then_found"]


class Flow(msgspec.Struct, omit_defaults=True, frozen=True):
    """Who talked to whom. Addresses as text, ports 0 where the protocol has none."""

    src_ip: str = ""
    src_port: int = 0
    dst_ip: str = ""
    dst_port: int = 0
    proto: str = ""
    mac: str = ""
    """The LAN device's address, aa:bb:cc:dd:ee:ff; empty when the inventory does not know it (yet)."""


class _Event(msgspec.Struct, omit_defaults=True, frozen=True, tag_field="type"):
    at: str
    """UTC, RFC 3339 with microseconds: when it was seen on the wire."""
    lane: ClassVar[int] = 2


class Alert(_Event, tag="alert", frozen=True):
    """A Suricata rule matched."""

    lane: ClassVar[int] = 1
    flow: Flow = Flow()
    sid: int = 0
    rev: int = 0
    signature: str = ""
    category: str = ""
    severity: int = 3
    action: Literal["allowed", "blocked"] = "allowed"
    app: str = ""
    url: str = ""
    host: str = ""
    sni: str = ""
    dns_name: str = ""
    mail_from: str = ""
    mail_to: list[str] = []
    mail_subject: str = ""
    file_name: str = ""


class FileVerdict(_Event, tag="file", frozen=True):
    """The truthful outcome of one file that crossed the box (REQUIREMENTS A6).

    "blocked" is said only when bytes were withheld from the receiver.
    """

    lane: ClassVar[int] = 0
    flow: Flow = Flow()
    """src is the file's sender, dst its receiver."""
    outcome: Outcome = "clean"
    reason: str = ""
    """Why, where the outcome alone does not say it: too_large, timeout, damaged, worker_lost, detect_only, restart."""
    rules: list[str] = []
    """YARA rules that matched, at most 16."""
    file_name: str = ""
    sha256: str = ""
    size: int = 0
    app: str = ""
    url: str = ""
    host: str = ""
    mail_from: str = ""
    mail_to: list[str] = []
    mail_subject: str = ""
    quarantine: str = ""
    """Identifier in the local quarantine; empty when nothing was kept."""
    held_ms: float = 0.0
    """How long the completing packet waited."""


class Bypass(_Event, tag="bypass", frozen=True):
    """Traffic passed (or was stopped, fail-closed) without inspection for a while."""

    lane: ClassVar[int] = 0
    part: Literal["engine", "gate"] = "engine"
    state: Literal["began", "ended"] = "began"
    reason: str = ""
    seconds: float = 0.0
    total_seconds: float = 0.0


class Health(_Event, tag="health", frozen=True):
    """The box's own state: a part started, stopped, refused a rule set, ran out of disk."""

    lane: ClassVar[int] = 0
    part: str = ""
    state: str = ""
    detail: str = ""
    rules: int = 0
    yara_rules: int = 0


class Device(_Event, tag="device", frozen=True):
    """A LAN device was seen for the first time, or with a new address."""

    mac: str = ""
    ipv4: list[str] = []
    ipv6: list[str] = []
    first_seen: str = ""
    last_seen: str = ""


class Web(_Event, tag="web", frozen=True):
    """One HTTP request: who asked for which URL."""

    flow: Flow = Flow()
    method: str = ""
    host: str = ""
    url: str = ""
    status: int = 0
    length: int = 0


class Tls(_Event, tag="tls", frozen=True):
    """One TLS or QUIC handshake: the name asked for."""

    flow: Flow = Flow()
    sni: str = ""
    version: str = ""


class Dns(_Event, tag="dns", frozen=True):
    """One DNS question."""

    flow: Flow = Flow()
    name: str = ""
    rrtype: str = ""


class Mail(_Event, tag="mail", frozen=True):
    """One SMTP envelope, without subject: headers leave the box for *detected* mail only."""

    flow: Flow = Flow()
    mail_from: str = ""
    mail_to: list[str] = []


class Gap(_Event, tag="gap", frozen=True):
    """Events the box had to drop at its byte cap: declared, so that the centre can tell loss from silence."""

    lane: ClassVar[int] = 0
    first: int = 0
    last: int = 0
    count: int = 0
    """Rows dropped between `first` and `last`."""
    runs: list[tuple[int, int]] = []
    """Where rows between them survive: the runs (first, last) in which none does, at most `GAP_RUNS`."""
    why: str = ""

    def dropped(self) -> list[tuple[int, int]]:
        """Runs of numbers of which none waits on the box any more: each was delivered or dropped."""
        return self.runs or [(self.first, self.last)]


Event = Alert | FileVerdict | Bypass | Health | Device | Web | Tls | Dns | Mail | Gap
LANES = 3
GAP_RUNS = 256

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Event).decode


def lane_of(event: Event) -> int:
    """Delivery lane: 0 before 1 before 2. A clean file is metadata, not a verdict anyone waits for."""
    if isinstance(event, FileVerdict) and event.outcome == "clean":
        return 2
    return event.lane
