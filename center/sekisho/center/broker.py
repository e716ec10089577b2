"""Mosquitto's configuration, written from a typed model.

Every client shows a certificate; its CN becomes the user name *and* the client id, so that no box
can write under another's topics or push another off the broker. The centre's own name is the only
one with more rights. The broker's memory is a convenience: nothing in the delivery depends on it.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from sekisho.appliance.core.fsio import write_atomic
from sekisho.center.pki import Credentials


@dataclass(frozen=True)
class Broker:
    """What one Mosquitto needs to know."""

    directory: Path
    """Holds mosquitto.conf, acl and the persistence file; made if absent."""
    credentials: Credentials
    address: str = "127.0.0.1"
    """The address it listens on; empty = every address, both families."""
    port: int = 8883
    center_cn: str = "center"
    max_connections: int = 10_000

    @property
    def config(self) -> Path:
        return self.directory / "mosquitto.conf"


def write_config(broker: Broker) -> Path:
    """Write `mosquitto.conf` and `acl`; start with `mosquitto -c <returned path>`.

    The broker runs as the user who wrote its files: only that one can read the key.

    Raises:
        OSError: the directory cannot be written.

    """
    broker.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(broker.directory / "acl", _acl(broker.center_cn).encode())
    write_atomic(broker.config, _conf(broker).encode())
    return broker.config


def _acl(center_cn: str) -> str:
    return f"""\
user {center_cn}
topic read sk/1/+/+/ev/+
topic read sk/1/+/+/state
topic write sk/1/+/+/ack

pattern write sk/1/+/%u/ev/#
pattern write sk/1/+/%u/state
pattern read sk/1/+/%u/ack
"""


def _conf(broker: Broker) -> str:
    directory, files = broker.directory, broker.credentials
    return f"""\
user {pwd.getpwuid(os.geteuid()).pw_name}
per_listener_settings true
persistence true
persistence_location {directory}/
autosave_interval 30
max_inflight_messages 64
max_queued_messages 1000
max_packet_size 266240
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
log_type notice
connection_messages true

listener {broker.port}{" " + broker.address if broker.address else ""}
max_connections {broker.max_connections}
cafile {files.ca}
certfile {files.cert}
keyfile {files.key}
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {directory}/acl
"""
