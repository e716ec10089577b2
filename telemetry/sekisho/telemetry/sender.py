"""The MQTT side: connects, publishes, hands what arrives to the daemon's inbox. Decides nothing.

MQTT 3.1.1 over TLS with the box's certificate. The client library runs one thread; its callbacks only
put facts into a bounded-by-protocol inbox (at most one PUBACK per batch in the window, acknowledgements
of at most `ACK_CAP_BYTES`), which the daemon's single thread takes from.
"""

from __future__ import annotations

import random
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from sekisho.appliance.core.settings import Settings
from sekisho.telemetry import tls
from sekisho.telemetry.delivery import ACK_CAP_BYTES, WINDOW_BATCHES
from sekisho.telemetry.identity import client_id

KEEPALIVE_S = 30
RECONNECT_FIRST_S = 0.5
RECONNECT_CAP_S = 30.0


@dataclass(frozen=True)
class Connected:
    """The broker accepted the connection and the subscription was asked for."""


@dataclass(frozen=True)
class Disconnected:
    """The connection ended or could not be made."""

    reason: str


@dataclass(frozen=True)
class BrokerHas:
    """PUBACK: the client library will not repeat this message by itself any more."""

    mid: int


@dataclass(frozen=True)
class AckArrived:
    """The centre's acknowledgement, not yet parsed."""

    payload: bytes


Fact = Connected | Disconnected | BrokerHas | AckArrived


class State(msgspec.Struct, omit_defaults=True):
    """The retained birth ("on") and last will ("lost")."""

    st: str
    bd: int
    epoch: str = ""
    next: int = 0
    n: str = ""


class Sender:
    """One box's connection to its broker."""

    def __init__(self, settings: Settings, inbox: SimpleQueue[Fact], birth: int, sense: tls.TimeSense) -> None:
        """Prepare the connection.

        Raises:
            RejectedInput: the certificate, key or CA cannot be used; the message says which.

        """
        link = settings.telemetry
        self._inbox = inbox
        self._link = link
        self._topic = f"sk/1/{settings.tenant}/{settings.box}"
        self._birth = birth
        self._failures = 0
        self._tls = tls.context(link.ca, link.cert, link.key, sense)
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id(settings.box, Path(link.key)),
            clean_session=True,
            protocol=mqtt.MQTTv311,
        )
        self._client.tls_set_context(self._tls)
        self._client.max_inflight_messages_set(WINDOW_BATCHES)
        self._client.will_set(f"{self._topic}/state", msgspec.json.encode(State("lost", birth)), qos=1, retain=True)
        self._client.on_socket_open = _no_delay
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message

    def start(self) -> None:
        """Connect in the background and keep trying, for ever."""
        self._back_off()
        self._client.connect_async(self._link.host, self._link.port, keepalive=KEEPALIVE_S)
        self._client.loop_start()

    def announce(self, epoch: str, next_seq: int, nonce: str) -> None:
        """Publish the birth: the centre learns the epoch and how far the numbers go, and answers with the time."""
        state = State("on", self._birth, epoch, next_seq, nonce)
        self._client.publish(f"{self._topic}/state", msgspec.json.encode(state), qos=1, retain=True)

    def publish(self, lane: int, payload: bytes) -> int:
        """Hand a batch to the client library; returns its message id."""
        return self._client.publish(f"{self._topic}/ev/{lane}", payload, qos=1).mid

    def peer_valid_at(self, unix_s: float) -> bool:
        """Whether the broker's certificate is valid then: an answer that came with another time is not believed."""
        return self._tls.valid_at(unix_s)

    def stop(self) -> None:
        """Say goodbye without the last will; what is unacknowledged stays in the spool."""
        self._client.disconnect()

    def _back_off(self) -> None:
        """Full jitter, so that a thousand boxes do not come back in the same instant."""
        ceiling = min(RECONNECT_CAP_S, RECONNECT_FIRST_S * 2 ** min(self._failures, 8))
        delay: Any = random.uniform(RECONNECT_FIRST_S, max(ceiling, 2 * RECONNECT_FIRST_S))  # noqa: S311 - jitter
        self._client.reconnect_delay_set(delay, delay)

    def _on_connect(self, client: mqtt.Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            self._lost(f"the broker refused the connection: {reason}")
            return
        self._failures = 0
        client.subscribe(f"{self._topic}/ack", qos=1)
        self._inbox.put(Connected())

    def _on_connect_fail(self, _c: mqtt.Client, _u: Any) -> None:
        # The client library calls this while it handles the error that says why.
        self._lost(f"the broker could not be reached: {sys.exc_info()[1]}")

    def _on_disconnect(self, _c: mqtt.Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        self._lost(str(reason))

    def _lost(self, reason: str) -> None:
        self._failures += 1
        self._back_off()
        self._inbox.put(Disconnected(reason))

    def _on_publish(self, _c: mqtt.Client, _u: Any, mid: int, _r: Any, _p: Any) -> None:
        self._inbox.put(BrokerHas(mid))

    def _on_message(self, _c: mqtt.Client, _u: Any, message: mqtt.MQTTMessage) -> None:
        if len(message.payload) <= ACK_CAP_BYTES:
            self._inbox.put(AckArrived(bytes(message.payload)))


def _no_delay(_c: mqtt.Client, _u: Any, sock: Any) -> None:
    """An alert is one small packet: do not let it wait for the answer to the one before."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
