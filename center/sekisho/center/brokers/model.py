"""What a broker must know, whichever it is: where it listens, who its clients are and where they may write and read.

Every client shows a certificate of our authority; its CN is its name. A box writes and reads only below
`sk/1/{its tenant}/{its name}/`; only the centre has more. Names have no dots: NATS and RabbitMQ use them
between the levels of a topic.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sekisho.appliance.core import fleet, jobs, orders, switched
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.names import RULE, is_name
from sekisho.center.pki import Credentials

PACKET_CAP: Final = 260 << 10
"""Bytes of the largest message: the centre's cap of a batch and room for its topic."""
WINDOW: Final = 64
"""Messages a broker may have under way to one client without its answer."""
WEBSOCKET_PATH: Final = "/mqtt"
QUEUED_MESSAGES: Final = 50_000
QUEUED_BYTES: Final = 128 << 20
"""Kept for a centre that is slow or away, whichever is reached first; what is beyond the boxes repeat."""

BOX_WRITES: Final = ("ev/0", "ev/1", "ev/2", "state")
BOX_READS: Final = ("ack", "known", orders.LEVEL, f"{jobs.LEVEL}/+")
ALL_READ: Final = (fleet.TOPIC_ALL, fleet.TOPIC_CHANGE, switched.TOPIC)
"""Whole topics that every box reads: the fleet's list of bad files, the rules that are switched off."""
IMMUNITY_WRITES: Final = (*ALL_READ, "sk/1/+/+/known")
ORDERS: Final = (orders.EVERYWHERE,)
JOBS_WRITES: Final = (f"sk/1/+/+/{jobs.LEVEL}/+",)
CENTER_READS: Final = ("ev/+", "state")
CENTER_WRITES: Final = ("ack",)


@dataclass(frozen=True)
class Member:
    """A box that may connect, and the tenant in whose topics it lives."""

    box: str
    tenant: str

    def topic(self, level: str) -> str:
        return f"sk/1/{self.tenant}/{self.box}/{level}"

    @property
    def writes(self) -> list[str]:
        return [self.topic(level) for level in BOX_WRITES]

    @property
    def reads(self) -> list[str]:
        return [*(self.topic(level) for level in BOX_READS), *ALL_READ]


@dataclass(frozen=True)
class Broker:
    """One broker, or one node of a cluster of them."""

    directory: Path
    """Holds its configuration and its data; made if absent."""
    credentials: Credentials
    address: str = "127.0.0.1"
    """The address it listens on; empty = every address, both families."""
    port: int = 8883
    websocket_port: int = 0
    """MQTT in WebSocket over TLS, path `WEBSOCKET_PATH`; 0 = none."""
    center_cn: str = "center"
    immunity_cn: str = "immunity"
    """The daemon that publishes the fleet's list of bad files, and the rules that are switched off."""
    orders_cn: str = "orders"
    """The daemon that publishes what customers decide about their boxes."""
    jobs_cn: str = "jobs"
    """The daemon that sends boxes what operators signed."""
    workers: int = 1
    """Ingest workers of the centre; the second is called `{center_cn}-2`, and so on."""
    members: tuple[Member, ...] | None = None
    """The boxes that may connect. None, with Mosquitto only: every certificate of the authority, in topics of its
    own name and any tenant's (the centre compares the tenant with its registry)."""
    crl: Path | None = None
    """Revoked certificates, PEM; must exist. Mosquitto only: the others forget the member."""
    max_connections: int = 10_000

    @property
    def centers(self) -> list[str]:
        """The names of the centre's ingest workers."""
        return [self.center_cn, *(f"{self.center_cn}-{number}" for number in range(2, self.workers + 1))]

    @property
    def publishers(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """The names of the daemons that publish to boxes: the topics each may write, and those it may read."""
        return {
            self.immunity_cn: (IMMUNITY_WRITES, ()),
            self.orders_cn: (ORDERS, ORDERS),
            self.jobs_cn: (JOBS_WRITES, ()),
        }

    def listed(self) -> tuple[Member, ...]:
        """The members, for a broker that cannot do without.

        Raises:
            RejectedInput: there is no list, or a name in it is none.

        """
        if self.members is None:
            raise RejectedInput("This broker has to be told which boxes may connect.")
        for name in (
            *(name for member in self.members for name in (member.box, member.tenant)),
            self.center_cn,
            *self.publishers,
        ):
            if not is_name(name):
                raise RejectedInput(f"{name!r} is not {RULE}.")
        return self.members


@dataclass(frozen=True)
class Launch:
    """How to start a broker whose configuration has just been written. It stays in the foreground."""

    argv: tuple[str, ...]
    config: Path
