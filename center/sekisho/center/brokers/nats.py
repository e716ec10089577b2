"""nats-server's configuration (2.9 and later): MQTT 3.1.1 over JetStream, one node or a cluster.

Users are mapped by the certificate's subject, with their own subjects as permissions; there are no patterns,
so every box is listed, and SIGHUP reads the list again (who is gone from it loses the connection). A box may use
MQTT only: a user of the plain protocol could read `$MQTT.sub.>`, which every MQTT user must be allowed.
The broker does not tie the client id to the certificate: ids of ours cannot be guessed (`telemetry.identity`).
Its MQTT side has no cap on a packet: the stream that keeps them has one (`jetstream`), and so has what parses them.
"""

from __future__ import annotations

import shutil
from typing import Final

import msgspec

from sekisho.appliance.core.fsio import write_atomic
from sekisho.center.brokers.model import (
    CENTER_READS,
    CENTER_WRITES,
    PACKET_CAP,
    WINDOW,
    Broker,
    Launch,
)
from sekisho.center.pki import Credentials
from sekisho.center.settings import NatsNode

ACCOUNT: Final = "SEKISHO"
ACK_WAIT: Final = "60s"
"""After this a message the centre has not confirmed goes again: longer than a slow commit."""
DELIVERIES: Final = "$MQTT.sub.>"
"""Where the server hands a session its QoS 1 messages."""
API: Final = ("$JS.API.>", "$JS.ACK.>")
"""What a client of JetStream itself (not through MQTT) publishes to."""

_Table = dict[str, object]


def write_config(broker: Broker, node: NatsNode | None = None) -> Launch:
    """Write `nats.conf`; the caller's user runs it.

    Raises:
        RejectedInput: the members are not listed, or a name is none.
        OSError: the directory cannot be written.

    """
    broker.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = broker.directory / "nats.conf"
    write_atomic(config, msgspec.json.format(msgspec.json.encode(_conf(broker, node or NatsNode()))))
    return Launch((shutil.which("nats-server") or "/usr/sbin/nats-server", "-c", str(config)), config)


def _conf(broker: Broker, node: NatsNode) -> _Table:
    tls = _tls(broker.credentials)
    conf: _Table = {
        "server_name": node.name,
        "listen": node.client_address,
        "tls": tls,
        "max_payload": PACKET_CAP,
        "max_connections": broker.max_connections,
        "jetstream": {"store_dir": str(broker.directory / "jetstream"), "max_file": node.keep_mb << 20},
        "mqtt": {
            "listen": _endpoint(broker.address, broker.port),
            "tls": tls,
            "ack_wait": ACK_WAIT,
            "max_ack_pending": WINDOW,
            "stream_replicas": node.replicas,
            # A copied consumer for each subscription is more than three nodes can make when a node's boxes come over.
            **({"consumer_replicas": 1, "consumer_memory_storage": True} if node.replicas > 1 else {}),
        },
        "accounts": {ACCOUNT: {"jetstream": "enabled", "users": _users(broker)}},
    }
    if broker.websocket_port:
        conf["websocket"] = {
            "listen": _endpoint(broker.address, broker.websocket_port),
            "tls": tls,
        }
    if node.cluster:
        conf["cluster"] = {
            "name": node.cluster,
            "listen": node.cluster_address,
            "routes": [f"nats://{route}" for route in node.routes],
            "tls": _tls(broker.credentials, maps_users=False),
        }
    return conf


def _endpoint(address: str, port: int) -> str:
    """Empty = everywhere: Go listens on both families when it is told the wildcard of one."""
    host = f"[{address}]" if ":" in address else address or "0.0.0.0"  # noqa: S104 - what an empty address asks for
    return f"{host}:{port}"


def _tls(files: Credentials, *, maps_users: bool = True) -> _Table:
    who: _Table = {"verify_and_map": True} if maps_users else {"verify": True}
    return {"cert_file": str(files.cert), "key_file": str(files.key), "ca_file": str(files.ca), "timeout": 10} | who


def _users(broker: Broker) -> list[_Table]:
    center = {
        "publish": [*(_subject(f"sk/1/+/+/{level}") for level in CENTER_WRITES), *API],
        "subscribe": [*(_subject(f"sk/1/+/+/{level}") for level in CENTER_READS), DELIVERIES, "_INBOX.>"],
    }
    users: list[_Table] = [{"user": f"CN={name}", "permissions": center} for name in broker.centers]
    for publisher, (writes, reads) in broker.publishers.items():
        some = {"publish": list(map(_subject, writes)), "subscribe": [*map(_subject, reads), DELIVERIES]}
        users.append({"user": f"CN={publisher}", "permissions": some, "allowed_connection_types": ["MQTT"]})
    for member in broker.listed():
        own = {
            "publish": list(map(_subject, member.writes)),
            "subscribe": [*map(_subject, member.reads), DELIVERIES],
        }
        users.append({"user": f"CN={member.box}", "permissions": own, "allowed_connection_types": ["MQTT", "MQTT_WS"]})
    return users


def _subject(topic: str) -> str:
    return topic.replace("/", ".").replace("+", "*")
