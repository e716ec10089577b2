"""Every kind of event that may leave the box, and every field it may carry.

These types are the privacy boundary (REQUIREMENTS B1, B2): EVE lines and journals are decoded *into*
them, and what is not listed here does not exist afterwards. There is no free-form field. Strings are
cut at their cap when an event is made (`telemetry.decode`), URLs lose user, password and fragment, and
query values are masked. Lane 0: verdicts and bypass, lane 1: alerts, lane 2: metadata.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from sekisho.appliance.core import jobs

Outcome = Literal["clean", "blocked", "released_by_policy", "delivered_then_found"]
Stars = Annotated[int, msgspec.Meta(ge=0, le=3)]
"""Importance: 1 to 3, 0 = nothing people are told of (`telemetry.stars`)."""
MUTED_SIDS = 64
"""Muted rules that one event names."""
Function = Literal["web_guard", "url_category", "keyword", "application", "firewall", "isolation", "known_file"]


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


class _Told(_Event, frozen=True):
    """An event people may be told of."""

    stars: Stars = 0
    why_stars: str = ""
    """Code of the rubric's line that decided; its texts are in `telemetry.stars`."""


class Alert(_Told, tag="alert", frozen=True):
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
    """The protocol, in the engine's word: http, tls, smtp."""
    application: str = ""
    """What an owner calls it: "YouTube", "Microsoft 365" (signatures.applications)."""
    function: Function | Literal[""] = ""
    """The policy function that decided; empty for a signature."""
    policy: str = ""
    """Which entry of that function: a category, a keyword's or a firewall rule's name."""
    exception: str = ""
    """Identifier of the exception that let it pass; empty when none did."""
    direction: Literal["out", "in", "internal", ""] = ""
    """Who opened the connection, seen from the office: a device of it, somebody outside, one device to another."""
    url: str = ""
    host: str = ""
    sni: str = ""
    dns_name: str = ""
    mail_from: str = ""
    mail_to: list[str] = []
    mail_subject: str = ""
    file_name: str = ""
    count: Annotated[int, msgspec.Meta(ge=1, lt=1 << 62)] = 1
    """How many this stands for: repeats leave as one (`telemetry.folds`)."""
    until: str = ""
    """When the last of them was; empty where there is one."""


class FileVerdict(_Told, tag="file", frozen=True):
    """The truthful outcome of one file that crossed the box (REQUIREMENTS A6).

    "blocked" is said only when bytes were withheld from the receiver.
    """

    lane: ClassVar[int] = 0
    flow: Flow = Flow()
    """src is the file's sender, dst its receiver."""
    outcome: Outcome = "clean"
    reason: str = ""
    """Why, where the outcome alone does not say it: too_large, timeout, damaged, worker_lost, memory, detect_only,
    restart and late (judged after the fact), unparsable (no reader could be sure what it says), encrypted, depth, bomb,
    neutralised, range."""
    rules: list[str] = []
    """YARA rules that matched, at most 16."""
    file_name: str = ""
    inner: str = ""
    """Name of the member inside a container that decided, with "/" between levels."""
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


class Bypass(_Told, tag="bypass", frozen=True):
    """Traffic passes (or is stopped, fail-closed) uninspected: told as it begins, after 1 and 10 min, as it ends."""

    lane: ClassVar[int] = 0
    part: Literal["engine", "gate"] = "engine"
    state: Literal["began", "lasts", "ended"] = "began"
    reason: str = ""
    seconds: float = 0.0
    total_seconds: float = 0.0


class Health(_Told, tag="health", frozen=True):
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
    vendor: str = ""
    name: str = ""
    """Host name as the device tells it (DHCP, mDNS, NetBIOS, LLMNR)."""
    kind: str = ""
    """A guess: computer, phone, printer, camera, router, nas, tv, other; empty = no guess."""
    random_mac: bool = False


class Delivery(msgspec.Struct, omit_defaults=True, frozen=True):
    """One device that got a file before it was known to be bad."""

    at: str = ""
    ip: str = ""
    mac: str = ""
    app: str = ""
    file_name: str = ""
    url: str = ""
    host: str = ""


class Retro(_Told, tag="retro", frozen=True):
    """A file that was delivered as clean is known to be malicious now (new rules, or seen bad elsewhere)."""

    lane: ClassVar[int] = 0
    sha256: str = ""
    rules: list[str] = []
    why: Literal["rules", "hash_list", "seen_bad"] = "rules"
    deliveries: list[Delivery] = []
    """At most `MAX_DELIVERIES`, newest first."""
    more: int = 0
    """Deliveries beyond those."""


class Share(msgspec.Struct, omit_defaults=True, frozen=True):
    """Bytes, as the ports count them, that crossed for one reason."""

    why: str = ""
    octets: int = 0


class Coverage(_Event, tag="coverage", frozen=True):
    """What share of one device's bytes was looked at in one hour (REQUIREMENTS A10)."""

    mac: str = ""
    hour: str = ""
    """The hour's beginning, UTC, RFC 3339."""
    seconds: int = 0
    """How much of that hour this tells of."""
    inspected: int = 0
    opaque: int = 0
    """Encrypted: the handshake was inspected, the content cannot be."""
    bypassed: list[Share] = []
    """Passed without inspection, and why (engine_hung, engine_stopped, too_large, ...)."""
    unseen: int = 0
    """Not IP, or not on the inspected path."""
    off_seconds: float = 0.0
    """Seconds of this hour in which inspection was off."""


class Web(_Event, tag="web", frozen=True):
    """One HTTP request: who asked for which URL."""

    flow: Flow = Flow()
    application: str = ""
    method: str = ""
    host: str = ""
    url: str = ""
    status: int = 0
    length: int = 0


class Tls(_Event, tag="tls", frozen=True):
    """One TLS or QUIC handshake: the name asked for."""

    flow: Flow = Flow()
    application: str = ""
    sni: str = ""
    version: str = ""


class Dns(_Event, tag="dns", frozen=True):
    """One DNS question."""

    flow: Flow = Flow()
    application: str = ""
    name: str = ""
    rrtype: str = ""


class Mail(_Event, tag="mail", frozen=True):
    """One SMTP envelope, without subject: headers leave the box for *detected* mail only."""

    flow: Flow = Flow()
    mail_from: str = ""
    mail_to: list[str] = []


class Gap(_Told, tag="gap", frozen=True):
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


class Applied(_Event, tag="applied", frozen=True):
    """What became of the settings that the customer made at the centre."""

    lane: ClassVar[int] = 0
    number: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0
    """Of the document."""
    state: Literal["in_force", "refused"] = "in_force"
    """"refused": the one before stays in force."""
    why: Literal["", "damaged", "not_understood", "cannot_be_made", "engine", "own_policy"] = ""
    """Why it was refused: no document of this box's version; a name or number that cannot be; the engine did not load
    it; the box's own policy file is broken, and has to be mended first."""
    overruled: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)] = 0
    """Entries about which the box's own policy file says something else: it goes before."""


class Vitals(_Event, tag="vitals", frozen=True):
    """The box's vital signs, every ten minutes. What it cannot measure is 0."""

    temperature: float = 0.0
    """Of its hottest sensor, degrees Celsius."""
    disk_free: int = 0
    """Bytes, of the disk that keeps its state; likewise `disk_size`."""
    disk_size: int = 0
    memory_free: int = 0
    """Bytes that programs can still have; likewise `memory_size`, all there are."""
    memory_size: int = 0
    uptime: int = 0
    """Seconds since the machine started."""
    version: str = ""
    """Of the product."""


class Signatures(_Told, tag="signatures", frozen=True):
    """What became of a rule set, and how fresh the one in force is: told at every change and every six hours.

    Everything but `state`, `refused` and `detail` is of the set in force at that moment, as the inspectors count it.
    """

    lane: ClassVar[int] = 0
    state: Literal["active", "soaking", "refused", "rolled_back", "muted", "silent", "repaired", "freshness"] = (
        "freshness"
    )
    """"soaking": in force, its new dropping rules only report for now; "active": its soak is over; "refused": never
    in force, "rolled_back": in force and taken back, the set before goes on; "muted": `sids` are left out; "silent":
    an inspector works without the rules it should have, told as it is noticed and again after 60 and 600 s;
    "repaired": it has them again; "freshness": nothing new."""
    number: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0
    """Published number of the set in force; 0: it is not of the channel."""
    set: str = ""
    """First 16 hexadecimal digits of its identifier."""
    rules: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)] = 0
    """Suricata rules the engine has loaded; likewise `yara` of the file scanner, `failed` those it could not load."""
    yara: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)] = 0
    failed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)] = 0
    freshness: Literal["fresh", "aging", "stale", "unknown"] = "unknown"
    """"unknown": the box's clock cannot be believed, or it has no channel."""
    built: str = ""
    """When the set was built, UTC."""
    checked: str = ""
    """When the box last learned from the channel what is newest, UTC; empty: never."""
    refused: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0
    """Number of the newest set that was refused or rolled back and is not in force; 0: none."""
    sids: list[int] = []
    """Rules of the set that are muted, at most `MUTED_SIDS`; with "muted" those that were added."""
    seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """"silent", "repaired": how long the inspector has been, or was, without its rules."""
    detail: str = ""
    """Why: a code word, ": ", and the reason for people."""


class Firmware(_Told, tag="firmware", frozen=True):
    """What became of a release of the box's own software: told at every state of it, and "status" once a day."""

    lane: ClassVar[int] = 0
    state: Literal[
        "offered", "downloading", "verified", "staged", "armed", "activating", "trial",
        "succeeded", "reverted", "failed", "rejected", "canceled", "expired", "status",
    ] = "status"  # fmt: skip
    """"staged": whole on the disk and not in use, also after the power was off; told again as its deadline nears.
    "reverted": it was tried and the release before is in use again; "failed": it never was. One of "succeeded" to
    "expired" ends each attempt; "status": nothing new."""
    counter: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0
    """Number of the release this is about; with "status", of the one in use."""
    version: str = ""
    """As people know it."""
    tier: Annotated[int, msgspec.Meta(ge=0, le=3)] = 0
    """1: traffic goes on, 2: the system starts anew under its kernel, 3: the machine restarts; 0: not known."""
    running: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0
    """Number of the release in use at that moment; 0: it came with the machine."""
    slot: str = ""
    """Where the system in use was started from; empty where there is one place only."""
    why: str = ""
    """A code: customer, window, deadline, overdue, network, budget, memory, disk, power_loss, refused, loop, time,
    gate:NAME, ..."""
    by: str = ""
    """Who chose: local-page, portal, button, window, command, or "job" and its identifier."""
    expected_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Seconds without traffic to be expected, by this box's own last times; 0: none, or nothing to go by."""
    took_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Seconds without traffic that were measured."""
    deadline: str = ""
    """By when it should be in use, UTC; the box never restarts for it."""
    detail: str = ""
    """Why, for people."""


class Job(_Told, tag="job", frozen=True):
    """How far a job of the operators' has got on this box (`core.jobs`): told at every change, and when asked again."""

    lane: ClassVar[int] = 0
    id: str = ""
    """ULID of the job, as signed; of what was not signed by anyone who may, as the broker called it."""
    ver: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] = 0
    """Grows with every change of this job on this box; equal numbers say the same. Of two the greater is the truth."""
    state: jobs.State = "RECEIVED"
    kind: str = ""
    """As `core.jobs.Kind`; empty where the job could not be read."""
    why: str = ""
    """Code: what it waits for (customer, window, network, budget, turn), or why it was refused or ended."""
    step: str = ""
    """Of the daemon that carries it out, in its words."""
    pct: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    by: str = ""
    """Who decided here: "local-page", "portal", "button", "job ID"; empty: the job itself."""
    rollout: str = ""
    signers: list[str] = []
    """People who signed it, by name, as this box found them; at most 4."""
    detail: str = ""
    """Why, in the box's own words."""


class Port(msgspec.Struct, omit_defaults=True, frozen=True):
    """One of the two network ports of the box. Counts are since the machine started."""

    role: Literal["lan", "wan"] = "lan"
    link: Literal["up", "down", "unknown"] = "unknown"
    speed: int = 0
    """Megabits per second; 0: not known."""
    received: int = 0
    """Frames; likewise `sent`, `errors`, `dropped`."""
    sent: int = 0
    errors: int = 0
    dropped: int = 0


class Diagnosis(_Event, tag="diagnosis", frozen=True):
    """The box's report about itself, made while the office lets the centre look. Nothing of it is of the office."""

    lane: ClassVar[int] = 0
    job: str = ""
    """ULID of the job that asked for it; empty: the owner's command."""
    version: str = ""
    uptime: int = 0
    """Seconds since the machine started."""
    load: float = 0.0
    """Programs that want a processor, over the last minute (proc_loadavg(5))."""
    temperature: float = 0.0
    memory_free: int = 0
    memory_size: int = 0
    disk_free: int = 0
    disk_size: int = 0
    phase: Literal["stopped", "starting", "running", "reloading", "unknown"] = "unknown"
    """Of the inspection engine; "unknown": nobody watches it."""
    starts: int = 0
    """Of the engine, since the daemon that watches it began."""
    engine_off: str = ""
    """Why traffic passes the engine by; empty: it does not. Likewise `gate_off` of the file inspection."""
    gate_off: str = ""
    queue_waiting: int = 0
    """Packets; likewise `queue_dropped`, of the engine's queues."""
    queue_dropped: int = 0
    rules: int = 0
    rules_expected: int = 0
    engine_canary: Literal["caught", "missed", "untried"] = "untried"
    yara: int = 0
    scanner_canary: Literal["caught", "missed", "untried"] = "untried"
    quarantine_writable: bool = False
    connected: bool = False
    """To the centre."""
    connected_since: str = ""
    """UTC of the connection, or since when there is none."""
    silent: list[str] = []
    """Daemons that should say how they are and do not."""
    ports: list[Port] = []


Event = (
    Alert
    | FileVerdict
    | Bypass
    | Health
    | Device
    | Retro
    | Coverage
    | Web
    | Tls
    | Dns
    | Mail
    | Gap
    | Applied
    | Vitals
    | Signatures
    | Firmware
    | Job
    | Diagnosis
)
LANES = 3
GAP_RUNS = 256
BATCH_RUNS = 1024
"""Dropped runs that one batch's gaps may declare: each costs the centre as much as a row."""
MAX_DELIVERIES = 64

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Event).decode


def lane_of(event: Event) -> int:
    """Delivery lane: 0 before 1 before 2. A clean file is metadata, not a verdict anyone waits for."""
    if isinstance(event, FileVerdict) and event.outcome == "clean":
        return 2
    return event.lane
