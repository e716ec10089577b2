"""The box's settings: one strict TOML file. An unknown key or a wrong type is an error that names it.

`load` reads and checks; nothing here touches the network or the kernel (that is `preflight`).
`DEFAULTS` is the commented file an owner starts from; a test keeps it equal to the types below.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.names import RULE, is_name

_PROXY = r"^(http://([^@/\s]+@)?([^@/:\s\[\]]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}/?)?$"
MAX_SETTINGS_BYTES = 256 << 10

Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]


class Bridge(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where the two cables go."""

    lan: str = "eth-lan"
    wan: str = "eth-wan"
    name: str = "br0"
    addresses: tuple[str, ...] = ()
    """The box's own addresses with prefix length; empty = the box has none and cannot reach the centre."""
    gateways: tuple[str, ...] = ()


class Inspection(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is looked at and what happens when looking is not possible."""

    mode: Literal["block", "detect"] = "block"
    fail_mode: Literal["open", "closed"] = "open"
    home_networks: tuple[str, ...] = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
    queues: Annotated[int, msgspec.Meta(ge=0, le=16)] = 0
    """Inspection queues, one engine thread each; 0 = one per processor core."""
    scan_limit_mb: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    scan_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0
    scan_workers: Annotated[int, msgspec.Meta(ge=1, le=8)] = 2
    memory_mb: Annotated[int, msgspec.Meta(ge=16, le=4096)] = 192
    """Upper bound of file bytes kept in memory while they wait for their verdict."""
    on_unscanned: Literal["release", "block"] = "release"
    """What happens to a file that could not be scanned (too large, too deep, a bomb, time-out, damaged)."""
    on_encrypted: Literal["release", "block"] = "release"
    """What happens to an archive or document that is encrypted, so that nobody but its reader can look into it."""
    on_unparsable: Literal["block", "release"] = "block"
    """What happens to a transfer that two readers could understand differently."""
    container_depth: Annotated[int, msgspec.Meta(ge=1, le=16)] = 6
    """Archives inside archives that are opened; what lies deeper was not scanned."""
    container_mb: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 128
    """Bytes unpacked from one file, all its members and levels together."""
    container_files: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 5000
    """Members looked at in one file, all levels together."""


class Quarantine(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How long what was stopped is kept."""

    keep_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 90
    max_mb: Annotated[int, msgspec.Meta(ge=1)] = 1024


class Signatures(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where rule sets come from: the owner's directories, else the centre's channel, else what ships with the box."""

    rules_dir: str = ""
    yara_dir: str = ""
    channel: Annotated[str, msgspec.Meta(pattern=r"^(https://[^@\s]{1,200})?$")] = ""
    """The centre's signed repository of sets, https://name[:port]/path; empty = none, sets come by USB stick only."""
    channel_ca: str = ""
    """PEM file of the authority of that server's certificate; empty = `telemetry.ca`, or the system's."""
    root: str = "/etc/sekisho/updates-root.json"
    """TUF root metadata the box was given when it was made: whom it believes, whatever the server says."""
    soak_minutes: Annotated[float, msgspec.Meta(ge=0, le=1440)] = 15.0
    """How long a new set is watched: its new dropping rules only report until then, and too loud ones are muted."""


class Firmware(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Releases of the box's own software: which fit, where they lie, how long a new one is tried."""

    hardware: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{0,32}$")] = ""
    """The name under which releases for this machine are published; empty = by its processor (amd64, arm64)."""
    releases: str = "/opt/sekisho/releases"
    """Releases of tier 1, each whole in a directory of its own."""
    link: str = "/opt/sekisho/venv"
    """The programs in use: a link into one of them."""
    trial_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 300.0
    """Within this time everything that worked before must work with a new release, `steady_s` without a break."""
    steady_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 120.0
    grace_h: Annotated[float, msgspec.Meta(ge=0, le=24 * 30)] = 72.0
    """After a new system image proved itself, the one before is kept so long before a third may replace it."""


class Policy(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where the owner's policy is; a file that does not exist is an empty policy."""

    file: str = "/etc/sekisho/policy.toml"


class Telemetry(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How the box reaches the monitoring centre."""

    host: str = ""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8883
    hosts: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    """More nodes of the same broker: a box takes any of them and stays with it, so that a fleet spreads."""
    fallback_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 443
    """Where the broker is tried when its own port is closed to the office, plainly and in WebSocket; 0 = nowhere."""
    proxy: Annotated[str, msgspec.Meta(pattern=_PROXY)] = ""
    """An HTTP proxy that lets CONNECT through, with name and password percent-encoded; tried before direct ways."""
    ca: str = ""
    cert: str = ""
    key: str = ""
    centre: str = ""
    """The centre's web service, https://name[:port], where the certificate is renewed; `sekisho box enrol` sets it."""
    immunity: bool = True
    """Whether files that other boxes found malicious are stopped here, and the other way round."""
    spool_mb: Annotated[int, msgspec.Meta(ge=1)] = 1536
    """MiB on the disk for what waits and what is kept; a busy week without the centre takes half of this."""
    keep_hours: Annotated[int, msgspec.Meta(ge=0, le=24 * 31)] = 48
    """How long what the centre has acknowledged is kept, in case it has to be restored from a backup."""
    mask_internal: bool = False
    """Whether addresses and names of the office's devices leave the box as pseudonyms only (telemetry.masking)."""


class Page(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The box's own page for the office, on the box's own addresses; nobody on the internet's side reaches it."""

    enabled: bool = True
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 443
    door_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 80
    """Plain HTTP: one page that explains the browser's warning and leads on; 0 = none."""


class Paths(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    run: str = "/run/sekisho"
    state: str = "/var/lib/sekisho"


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Everything an owner or the centre can set on one box."""

    box: str
    tenant: str = "default"
    help_desk: Annotated[str, msgspec.Meta(max_length=40)] = ""
    """Whom the page of a refusal says to ask, as people know them; empty = "your administrator"."""
    bridge: Bridge = Bridge()
    inspection: Inspection = Inspection()
    quarantine: Quarantine = Quarantine()
    signatures: Signatures = Signatures()
    firmware: Firmware = Firmware()
    policy: Policy = Policy()
    telemetry: Telemetry = Telemetry()
    page: Page = Page()
    paths: Paths = Paths()

    @property
    def run(self) -> Path:
        return Path(self.paths.run)

    @property
    def state(self) -> Path:
        return Path(self.paths.state)

    @property
    def eve(self) -> Path:
        """Suricata's alerts and metadata, one JSON line each, on tmpfs."""
        return self.run / "eve" / "eve.json"

    @property
    def files_log(self) -> Path:
        """Suricata's `fileinfo` lines once more, in a file: what inspect reads after its own restart."""
        return self.run / "eve" / "files.json"

    @property
    def files_socket(self) -> Path:
        """Unix datagram socket on which inspect hears of a completed file before its packet arrives."""
        return self.run / "inspect" / "files.sock"

    @property
    def filestore(self) -> Path:
        """Tmpfs directory into which Suricata extracts files."""
        return self.run / "filestore"

    @property
    def control_socket(self) -> Path:
        """Suricata's command socket."""
        return self.run / "suricata" / "command.sock"

    @property
    def gate_beat(self) -> Path:
        """Inspect's heartbeat: 8 bytes, CLOCK_MONOTONIC in ms, little endian, rewritten in place every 100 ms."""
        return self.run / "inspect" / "beat"

    @property
    def inspect_socket(self) -> Path:
        """Unix stream socket: JSON request line in, JSON reply line out (status, reload)."""
        return self.run / "inspect" / "control.sock"

    @property
    def quarantine_socket(self) -> Path:
        """Unix stream socket (core.desk) on which inspect shows and releases what is in quarantine."""
        return self.run / "inspect" / "quarantine.sock"

    @property
    def sent_socket(self) -> Path:
        """Unix stream socket (core.desk) on which telemetry shows what was sent, and how the link is."""
        return self.run / "telemetry" / "sent.sock"

    @property
    def doorway(self) -> Path:
        """There while the packet rule that keeps the internet's side from the page is in force; by appliance."""
        return self.run / "appliance" / "doorway"

    @property
    def page_state(self) -> Path:
        """The page's own (0700): password, certificate, restart plan, what was done on it. Beside `state`, not in it:
        there the other daemons may rename what is not theirs.
        """
        return self.state.with_name(self.state.name + "-page")

    @property
    def page_run(self) -> Path:
        """Wishes of the page for root's errands (0700, the page's); gone with the power."""
        return self.run.with_name(self.run.name + "-page")

    @property
    def errands_run(self) -> Path:
        """What became of the wishes (root's, readable for all); gone with the power."""
        return self.run.with_name(self.run.name + "-errands")

    @property
    def sets(self) -> Path:
        """Compiled, proven signature sets and the `current` link."""
        return self.state / "signatures"

    @property
    def channel(self) -> Path:
        """The signatures daemon's own: trust metadata and floors, downloads, sources of published sets, its journal."""
        return self.state / "channel"

    @property
    def operators(self) -> Path:
        """Who may sign jobs (core.jobs.Operators), as verified from the signed channel; by the firmware daemon."""
        return self.firmware_state / "operators.json"

    @property
    def firmware_state(self) -> Path:
        """The firmware daemon's own: trust, downloads, its journal, why a release went back. Beside `state`, as the
        page's, for the same reason; the group may read.
        """
        return self.state.with_name(self.state.name + "-firmware")

    @property
    def firmware_run(self) -> Path:
        """Wishes of the firmware daemon for root's errands, what became of them, and what it shows; gone with the
        power.
        """
        return self.run.with_name(self.run.name + "-firmware")

    @property
    def firmware_socket(self) -> Path:
        """Unix stream socket (core.desk) on which the firmware daemon answers the page, the command and the jobs."""
        return self.firmware_run / "firmware.sock"

    @property
    def jobs_inbox(self) -> Path:
        """Jobs as they came by the broker, one file each, unchecked; from telemetry to the jobs daemon."""
        return self.state / "jobs"

    @property
    def jobs_state(self) -> Path:
        """The jobs daemon's own (0750): what was asked of this box, and how far each has got. Beside `state`, as the
        page's, for the same reason.
        """
        return self.state.with_name(self.state.name + "-jobs")

    @property
    def jobs_run(self) -> Path:
        """What the jobs daemon shows (readable for all); gone with the power."""
        return self.run.with_name(self.run.name + "-jobs")

    @property
    def policies(self) -> Path:
        """Compiled policies: `<digest>/policy.rules` and the lists it asks."""
        return self.state / "policy"

    @property
    def journals(self) -> Path:
        """Directory of `NAME.jsonl` journals (core.journal) that telemetry reads: inspect, appliance."""
        return self.state / "journal"

    @property
    def quarantine_dir(self) -> Path:
        return self.state / "quarantine"

    @property
    def spool(self) -> Path:
        return self.state / "telemetry" / "spool.db"

    @property
    def aliases(self) -> Path:
        """What the pseudonyms of `mask_internal` stand for; telemetry's own, never sent."""
        return self.state / "telemetry" / "aliases.db"

    @property
    def link_status(self) -> Path:
        """How the box reaches the centre, and why not by better ways (telemetry.link)."""
        return self.spool.with_name("link.json")

    @property
    def fleet(self) -> Path:
        """The fleet's list of bad files: the centre's signed messages, and `bad.bin`; written by telemetry."""
        return self.state / "fleet"

    @property
    def authority(self) -> Path:
        """A copy of `telemetry.ca` for daemons that may not look where the box's own key is; written by telemetry."""
        return self.fleet / "ca.pem"

    @property
    def fleet_bad(self) -> Path:
        """Sorted 32-byte hashes of files that other boxes found malicious; read by inspect."""
        return self.fleet / "bad.bin"

    @property
    def orders(self) -> Path:
        """What the customer decided at the centre, as it was signed; written by telemetry, read by appliance."""
        return self.state / "orders" / "orders.json"

    @property
    def known_files(self) -> Path:
        """Hashes of files found malicious (core.known), rewritten by inspect, read by appliance for the engine."""
        return self.state / "known.json"

    @property
    def inventory(self) -> Path:
        """LAN devices by IP, JSON {"ip": "mac"}, rewritten atomically by appliance, read by telemetry."""
        return self.run / "inventory.json"

    @property
    def device_kinds(self) -> Path:
        """What LAN devices seem to be, JSON {"mac": "kind"}, rewritten atomically by appliance, read by telemetry."""
        return self.run / "kinds.json"


DEFAULTS = """\
# sekisho box settings. Lines starting with # show the value that is used when the line is absent.
# 設定ファイル: 行頭の # を外して値を変えます。 `sekisho box check` で確認できます。

box = "{box}"                   # this box's name at the monitoring centre, as in its certificate
# tenant = "default"
# help_desk = ""                # 遮断画面に出す連絡先 whom the page of a refusal says to ask, e.g. "情報課 内線 123"

[bridge]
# lan = "eth-lan"               # the port towards the office
# wan = "eth-wan"               # the port towards the internet
# name = "br0"
# addresses = []                # the box's own addresses, e.g. ["192.168.1.2/24"]
# gateways = []                 # e.g. ["192.168.1.1"]

[inspection]
# mode = "block"                # "detect" looks and reports, stops nothing
# fail_mode = "open"            # "closed": no traffic while inspection is not running
# home_networks = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]
# queues = 0                    # 0 = one per processor core
# scan_limit_mb = 64            # files larger than this are released, and said to be
# scan_timeout_s = 10.0
# scan_workers = 2
# memory_mb = 192               # file bytes kept in memory while they wait
# on_unscanned = "release"      # "block": what could not be scanned does not pass
# on_encrypted = "release"      # "block": encrypted archives and documents do not pass
# on_unparsable = "block"       # "release": transfers that two readers could understand differently do pass
# container_depth = 6           # archives inside archives that are opened
# container_mb = 128            # unpacked from one file at most
# container_files = 5000        # members of one file at most

[quarantine]
# keep_days = 90
# max_mb = 1024

[signatures]
# rules_dir = ""                # empty = the rules that ship with the product
# yara_dir = ""
# channel = ""                  # 署名付き更新の配布元 the centre's signed rule sets, https://...; empty = none
# channel_ca = ""
# root = "/etc/sekisho/updates-root.json"
# soak_minutes = 15.0           # how long a new set is watched before it stays

[firmware]
# hardware = ""                 # 機種 the name releases for this machine have; empty = by its processor
# releases = "/opt/sekisho/releases"
# link = "/opt/sekisho/venv"    # the programs in use
# trial_s = 300.0               # within this, everything that worked before must work with a new release
# steady_s = 120.0              # ... for so long without a break; else the release before comes back
# grace_h = 72.0                # the system image before is kept so long before a third may replace it

[policy]
# file = "/etc/sekisho/policy.toml"   # what the office allows and refuses: sekisho policy check

[telemetry]
# host = ""                     # the monitoring centre's broker; empty = events are kept, not sent
# port = 8883
# hosts = []                    # more nodes of that broker: any of them is taken
# fallback_port = 443           # tried when port is closed to the office, also with WebSocket; 0 = not
# proxy = ""                    # 社内プロキシ, e.g. "http://name:password@proxy.example:3128"
# ca = ""
# cert = ""
# key = ""
# centre = ""                   # where the certificate is renewed; set by `sekisho box enrol`
# immunity = true               # stop what another box of the service found malicious
# spool_mb = 1536
# keep_hours = 48
# mask_internal = false         # true: 端末の IP・MAC・名前は仮名で送る devices are told of by pseudonyms only

[page]
# enabled = true                # 装置の画面 the box's own page: https://<one of addresses>
# port = 443
# door_port = 80                # explains the browser's warning; 0 = none

[paths]
# run = "/run/sekisho"
# state = "/var/lib/sekisho"
"""


def parse(text: str, source: str = "settings") -> Settings:
    """Settings from TOML text.

    Raises:
        RejectedInput: not TOML, an unknown key, a wrong type or an impossible value; the message names it.

    """
    try:
        settings = msgspec.convert(tomllib.loads(text), Settings)
        _check(settings)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as err:
        raise RejectedInput(f"{source}: {err}.", "The settings in force were kept.") from err
    return settings


def load(path: Path) -> Settings:
    """Settings from a file of at most `MAX_SETTINGS_BYTES`.

    Raises:
        RejectedInput: unreadable, too large, or `parse` refused it.

    """
    try:
        with path.open("rb") as source:
            data = source.read(MAX_SETTINGS_BYTES + 1)
        if len(data) > MAX_SETTINGS_BYTES:
            raise RejectedInput(f"{path}: larger than {MAX_SETTINGS_BYTES} bytes.")
        text = data.decode()
    except OSError as err:
        raise RejectedInput(f"{path}: {err.strerror}.") from err
    except UnicodeDecodeError as err:
        raise RejectedInput(f"{path}: not UTF-8 text.") from err
    return parse(text, str(path))


def _check(settings: Settings) -> None:
    for name in (settings.box, settings.tenant):
        if not is_name(name):
            raise ValueError(f"{name!r} is not {RULE}")
    for iface in (settings.bridge.lan, settings.bridge.wan, settings.bridge.name):
        if not re.fullmatch(r"[^\s/]{1,15}", iface):
            raise ValueError(f"{iface!r} is not an interface name")
    for address in settings.bridge.addresses:
        ipaddress.ip_interface(address)
    for gateway in settings.bridge.gateways:
        ipaddress.ip_address(gateway)
    for network in settings.inspection.home_networks:
        ipaddress.ip_network(network)
