"""The centre's settings: one strict TOML file; an unknown key or a wrong type is an error that names it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.names import NAME

MAX_SETTINGS_BYTES = 64 << 10
DEFAULT_STORE = "/var/lib/sekisho-center/events.db"


class BrokerLink(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How the centre reaches the broker; `client` is its certificate's CN."""

    host: str
    ca: str
    cert: str
    key: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8883
    client: Annotated[str, msgspec.Meta(pattern=f"^{NAME}$")] = "center"


class Notify(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How people are told: the mail server that takes our mails, and what they say of us."""

    smtp_host: str = ""
    """Empty = no mail is sent; what is due waits and is shown."""
    smtp_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    """The server's certificate is always verified; "none" is for a server on this machine."""
    ca: str = ""
    """PEM file of the server's issuer; empty = the system's."""
    user: str = ""
    password_file: str = ""
    """Readable by the notifier's user only: /etc/sekisho-center-notify is such a place."""
    sender: str = ""
    """The mails' From address; its domain is in their Message-IDs."""
    sender_name: Annotated[str, msgspec.Meta(max_length=80)] = "sekisho"
    help_desk: Annotated[str, msgspec.Meta(max_length=120)] = ""
    """Whom a mail says to call, as people know them (相談窓口 03-0000-0000)."""
    links: str = ""
    """Where people reach the web service, https://host[:port]; empty = mails have no links."""
    operator: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    """Mail addresses of the centre's own staff: outages, mails that could not be delivered."""
    operator_locale: Literal["ja", "en"] = "ja"


class Ca(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The device CA's daemon, the only one that reads the CA's key."""

    directory: str = "/var/lib/sekisho-center-ca"
    """Holds ca.crt and ca.key."""
    socket: str = "/run/sekisho-center-ca/sign.sock"
    """Where the web service asks for certificates."""
    revoked: str = "/var/lib/sekisho-revoked"
    """Where brokers read which certificates are revoked; nothing in it is secret."""
    brokers: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    """What a box is told to connect to, "host" or "host:port"; empty = the broker of [broker]."""
    certificate_days: Annotated[float, msgspec.Meta(gt=0, le=825)] = 90
    grace_days: Annotated[float, msgspec.Meta(ge=0, le=3650)] = 400
    """How long after its end a certificate may still be renewed: a box that was switched off for a year."""


class Web(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The web service: boxes enrol and renew here, people follow the links of their mails."""

    cert: str
    """The server's certificate with its chain, PEM. Boxes accept only one that the centre's own CA signed."""
    key: str
    address: str = ""
    """Empty = every address, both families."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8443
    connections: Annotated[int, msgspec.Meta(ge=8, le=100_000)] = 512
    """Open at once; what comes beyond is answered 503."""
    connections_of_one: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 32
    """Open at once from one address (IPv6: from one /64), beside those of `behind`; what comes beyond is closed."""
    behind: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    """Addresses of proxies whose X-Forwarded-For is believed."""


class Portal(Web, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The portal for people. Its certificate is one that browsers accept."""

    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 443
    origin: Annotated[str, msgspec.Meta(pattern=r"^https://[a-z0-9.:\[\]-]{1,260}$")]
    """How people's browsers reach it, without a slash at the end: https://portal.example."""
    proof_key: str = "/var/lib/sekisho-center-portal/reports.key"
    """Signs the reports that are issued, so that they can be proven later; made at first use. Belongs in the backup."""


class Api(Web, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The API for partners: both sides show a certificate."""

    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8444
    client_ca: str
    """The partners' CA, PEM: `sekisho center partner authority` makes it. No box has a certificate of it."""
    requests_per_minute: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 600
    """Of one partner; what comes beyond is answered 429."""


_KeptDays = Annotated[int, msgspec.Meta(ge=1, le=3660)]


class Days(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """For how many whole days events are kept at the centre, by lane."""

    verdicts: _KeptDays = 400
    alerts: _KeptDays = 400
    metadata: _KeptDays = 90


class Retention(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How long events are kept."""

    everyone: Days = Days()
    tenants: dict[str, Days] = {}
    """For tenants that want less; more than everybody's is not kept."""


class JetStream(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Ingest from a NATS cluster in place of MQTT; certificate and key are those of `[broker]`."""

    servers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=16)]
    """The nodes' `host:port` for JetStream's own clients."""
    replicas: Annotated[int, msgspec.Meta(ge=1, le=5)] = 3
    """Nodes that keep every message until it is in the database."""
    keep_mb: Annotated[int, msgspec.Meta(ge=16)] = 2048
    """How much may wait in the stream; beyond it the boxes keep their events themselves."""


class Immunity(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How the fleet's list of bad files is made, signed and sent."""

    cert: str
    """What the daemon shows the broker."""
    key: str
    lists_cert: str
    """The certificate that boxes accept lists by (pki: kind "lists")."""
    lists_key: str
    client: Annotated[str, msgspec.Meta(pattern=f"^{NAME}$")] = "immunity"
    """The CN of `cert`."""
    boxes: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    """Boxes of so many tenants must have found a file by themselves before the others stop it."""
    published: str = ""
    """The repository's `published.json`: all boxes are told of a new set as soon as it says so; empty: by hand."""


class Orders(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How what customers decide is signed and sent to their boxes."""

    cert: str
    """What the daemon shows the broker."""
    key: str
    orders_cert: str
    """The certificate that boxes accept settings by (pki: kind "orders")."""
    orders_key: str
    client: Annotated[str, msgspec.Meta(pattern=f"^{NAME}$")] = "orders"
    """The CN of `cert`."""


class Jobs(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How what operators signed is sent to its boxes; nothing is signed here."""

    cert: str
    """What the daemon shows the broker."""
    key: str
    client: Annotated[str, msgspec.Meta(pattern=f"^{NAME}$")] = "jobs"
    """The CN of `cert`."""


class NatsNode(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a NATS server must know beside what every broker must."""

    name: str = "sekisho"
    client_address: str = "127.0.0.1:-1"
    """Where ingest workers reach JetStream, `host:port`; port -1 = any free one, for nobody in particular."""
    keep_mb: Annotated[int, msgspec.Meta(ge=64)] = 4096
    """JetStream's disk at most. When it is full nothing is confirmed and the boxes wait."""
    cluster: str = ""
    """Name of the cluster; empty = this node is alone."""
    cluster_address: str = ""
    """Where this node listens for the others, `host:port`."""
    routes: tuple[str, ...] = ()
    """The other nodes, `host:port`; all certificates must serve and call (`pki.issue(..., "node")`)."""
    replicas: Annotated[int, msgspec.Meta(ge=1, le=5)] = 1
    """Nodes that keep every message, at most the cluster's size."""


class Erlang(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What RabbitMQ's Erlang machine needs on this host. Both ports are on the loopback only."""

    node: str = "sekisho@localhost"
    dist_port: int = 25672
    epmd_port: int = 4369


class Serve(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The broker this machine runs (`sekisho.center.brokers`)."""

    ca: str
    cert: str
    key: str
    kind: Literal["mosquitto", "nats", "rabbitmq"] = "mosquitto"
    directory: str = "/var/lib/sekisho-center-broker"
    address: str = ""
    """Empty = every address, both families."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8883
    websocket_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """443 lets in who is let out to the web only; 0 = none."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    """Ingest workers of the centre, by their certificates: center, center-2, …"""
    connections: Annotated[int, msgspec.Meta(ge=8, le=1_000_000)] = 10_000
    node: NatsNode = NatsNode()
    erlang: Erlang = Erlang()


class CenterSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Everything the first cut of the centre needs."""

    broker: BrokerLink
    store: str = DEFAULT_STORE
    exports: str = "/var/lib/sekisho-center/exports"
    """Where the files lie that customers take their data away in."""
    notify: Notify = Notify()
    web: Web | None = None
    portal: Portal | None = None
    immunity: Immunity | None = None
    orders: Orders | None = None
    jobs: Jobs | None = None
    api: Api | None = None
    retention: Retention = Retention()
    ca: Ca = Ca()
    jetstream: JetStream | None = None
    serve: Serve | None = None

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the services' certificates: no box may have one of them."""
        return (self.broker.client, *(one.client for one in (self.immunity, self.orders, self.jobs) if one))


def load(path: Path) -> CenterSettings:
    """Settings from a TOML file of at most `MAX_SETTINGS_BYTES`.

    Raises:
        RejectedInput: unreadable, too large, not TOML, an unknown key or a wrong type; the message names it.

    """
    try:
        with path.open("rb") as source:
            data = source.read(MAX_SETTINGS_BYTES + 1)
        if len(data) > MAX_SETTINGS_BYTES:
            raise RejectedInput(f"{path}: larger than {MAX_SETTINGS_BYTES} bytes.")
        return msgspec.convert(tomllib.loads(data.decode()), CenterSettings)
    except OSError as err:
        raise RejectedInput(f"{path}: {err.strerror}.") from err
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as err:
        raise RejectedInput(f"{path}: {err}.") from err
