"""Mosquitto's configuration: the broker of a centre on one machine.

A certificate's CN becomes the user name *and* the client id, so that no box can write under another's
topics or push another off the broker. Members and revoked certificates are read again on SIGHUP.
"""

from __future__ import annotations

import os
import pwd
import shutil

from sekisho.appliance.core.fsio import write_atomic
from sekisho.center.brokers.model import (
    ALL_READ,
    BOX_READS,
    BOX_WRITES,
    CENTER_READS,
    CENTER_WRITES,
    PACKET_CAP,
    QUEUED_BYTES,
    QUEUED_MESSAGES,
    WINDOW,
    Broker,
    Launch,
)


def write_config(broker: Broker) -> Launch:
    """Write `mosquitto.conf` and `acl`. The broker runs as the user who wrote them: only that one can read the key.

    Raises:
        RejectedInput: a member's name is none.
        OSError: the directory cannot be written.

    """
    broker.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = broker.directory / "mosquitto.conf"
    write_atomic(broker.directory / "acl", _acl(broker).encode())
    write_atomic(config, _conf(broker).encode())
    return Launch((shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(config)), config)


def _acl(broker: Broker) -> str:
    lines = []
    for center in broker.centers:
        lines.append(f"user {center}")
        lines += [f"topic read sk/1/+/+/{level}" for level in CENTER_READS]
        lines += [f"topic write sk/1/+/+/{level}" for level in CENTER_WRITES]
    for publisher, (writes, reads) in broker.publishers.items():
        lines += [f"user {publisher}", *(f"topic write {topic}" for topic in writes)]
        lines += [f"topic read {topic}" for topic in reads]
    if broker.members is None:
        lines += [f"pattern write sk/1/+/%u/{level}" for level in BOX_WRITES]
        lines += [f"pattern read sk/1/+/%u/{level}" for level in BOX_READS]
        lines += [f"pattern read {topic}" for topic in ALL_READ]
    else:
        for member in broker.listed():
            lines.append(f"user {member.box}")
            lines += [f"topic write {topic}" for topic in member.writes]
            lines += [f"topic read {topic}" for topic in member.reads]
    return "\n".join(lines) + "\n"


def _conf(broker: Broker) -> str:
    directory = broker.directory
    conf = f"""\
user {pwd.getpwuid(os.geteuid()).pw_name}
per_listener_settings true
persistence true
persistence_location {directory}/
autosave_interval 30
max_inflight_messages {WINDOW}
max_queued_messages {QUEUED_MESSAGES}
max_queued_bytes {QUEUED_BYTES}
max_packet_size {PACKET_CAP}
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
log_type notice
connection_messages true
"""
    # The file of the list is read at SIGHUP; its directory is asked for a newer one at each handshake (ca/revoking.py).
    # Not for WebSocket: Mosquitto 2.0 never checks it there, and crashes at the next client after a SIGHUP.
    crl = f"crlfile {broker.crl}\ncapath {broker.crl.parent}\n" if broker.crl else ""
    conf += _listener(broker, broker.port) + crl
    if broker.websocket_port:
        conf += _listener(broker, broker.websocket_port) + "protocol websockets\n"
    return conf


def _listener(broker: Broker, port: int) -> str:
    files = broker.credentials
    return f"""
listener {port}{" " + broker.address if broker.address else ""}
max_connections {broker.max_connections}
cafile {files.ca}
certfile {files.cert}
keyfile {files.key}
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {broker.directory}/acl
"""
