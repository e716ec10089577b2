"""One MQTT session over one way: from the first packet to its end. It never reconnects and decides nothing.

MQTT 3.1.1 over TLS with the box's certificate, perhaps in WebSocket, perhaps through a proxy. Opening blocks in a
thread of its own; afterwards the client library runs one. Both only put facts into the daemon's inbox (at most one
PUBACK per batch in the window, acknowledgements of at most `ACK_CAP_BYTES`, what is signed of at most
`envelope.MESSAGE_CAP`). Nothing can hold a connection that is `abort`ed: its socket is shut down under whoever waits
for it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from sekisho.appliance.core import envelope, fleet, jobs, orders, switched
from sekisho.telemetry.delivery import ACK_CAP_BYTES, WINDOW_BATCHES
from sekisho.telemetry.opening import STEP_S, Opening, explain
from sekisho.telemetry.tls import Context
from sekisho.telemetry.ways import Way

KEEPALIVE_S: Final = 30
WEBSOCKET_PATH: Final = "/mqtt"
_MID_BITS: Final = 16


@dataclass(frozen=True)
class Connected:
    """The broker accepted the connection and the subscription was asked for."""

    serial: int


@dataclass(frozen=True)
class Disconnected:
    """The connection ended or could not be made."""

    serial: int
    reason: str


@dataclass(frozen=True)
class BrokerHas:
    """PUBACK: the client library will not repeat this message by itself any more."""

    mid: int


@dataclass(frozen=True)
class AckArrived:
    """The centre's acknowledgement, not yet parsed."""

    payload: bytes


@dataclass(frozen=True)
class FleetTold:
    """A message about the fleet's bad files, not yet checked; an empty one on `own` takes back what stood there."""

    payload: bytes
    own: bool
    """It came on this box's own topic."""


@dataclass(frozen=True)
class OrdersArrived:
    """What the customer decided at the centre, not yet checked."""

    payload: bytes


@dataclass(frozen=True)
class RulesTold:
    """What the centre switched off for all boxes, not yet checked."""

    payload: bytes


@dataclass(frozen=True)
class JobArrived:
    """What calls itself a job, not looked into."""

    name: str
    """Of the topic, as the broker says."""
    payload: bytes


Fact = Connected | Disconnected | BrokerHas | AckArrived | FleetTold | OrdersArrived | RulesTold | JobArrived
Tell = Callable[[Fact], None]
WAITING_CAP: Final = 16 << 20
"""Bytes of messages that wait for the daemon."""
_COST: Final = 512
"""Bytes that a message takes beside what it says."""


class Facts(SimpleQueue[Fact]):
    """What waits for the daemon. Messages beyond `WAITING_CAP` are lost, as others are with a connection; what the
    client library says itself (at most one for each batch in the window, and the session's begin and end) never is.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock, self._bytes = threading.Lock(), 0

    def put(self, item: Fact, block: bool = True, timeout: float | None = None) -> None:
        cost = _cost(item)
        with self._lock:
            if cost and self._bytes + cost > WAITING_CAP:
                return
            self._bytes += cost
        super().put(item, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Fact:
        fact = super().get(block, timeout)
        with self._lock:
            self._bytes -= _cost(fact)
        return fact

    def get_nowait(self) -> Fact:
        return self.get(block=False)


def _cost(fact: Fact) -> int:
    return 0 if isinstance(fact, Connected | Disconnected | BrokerHas) else _COST + len(fact.payload)


class _Client(mqtt.Client):
    """The library's client on a socket of ours: nothing else can end its opening."""

    opening: Opening

    def _create_socket_connection(self) -> socket.socket:
        return self.opening.open()


class Connection:
    """A session that is being made, or is there."""

    def __init__(
        self, serial: int, way: Way, client_id: str, context: Context, topic: str, tell: Tell, *, immunity: bool = True
    ) -> None:
        """Prepare it; `serial` tells its facts from those of the ones before, `topic` is the box's own.

        With `immunity` it also hears what the fleet knows of bad files.
        """
        self.way = way
        self.serial = serial
        self._topic = topic
        lists = [f"{topic}/known", fleet.TOPIC_ALL, fleet.TOPIC_CHANGE] if immunity else []
        self._topics = [f"{topic}/ack", f"{topic}/{orders.LEVEL}", switched.TOPIC, f"{topic}/{jobs.LEVEL}/+", *lists]
        self._tell = tell
        self._ended = threading.Lock()
        self._opening = Opening(way)
        self._client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=True,
            protocol=mqtt.MQTTv311,
            transport="websockets" if way.websocket else "tcp",
            reconnect_on_failure=False,
        )
        self._client.opening = self._opening
        if way.websocket:
            self._client.ws_set_options(path=WEBSOCKET_PATH)
        if way.alpn:
            context.set_alpn_protocols([way.alpn])
        self._client.tls_set_context(context)
        self._client.connect_timeout = STEP_S
        self._client.max_inflight_messages_set(WINDOW_BATCHES)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda _c, _u, _f, reason, _p: self._end(str(reason))
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message

    def open(self, will: bytes) -> None:
        """Begin; returns at once. `will` is what the broker says when this session breaks."""
        self._client.will_set(f"{self._topic}/state", will, qos=1, retain=True)
        threading.Thread(target=self._open, name=f"open-{self.serial}", daemon=True).start()

    def publish(self, level: str, payload: bytes, *, retain: bool = False) -> int:
        """Hand a message to the client library; returns an id that no other connection uses."""
        mid = self._client.publish(f"{self._topic}/{level}", payload, qos=1, retain=retain).mid
        return self.serial << _MID_BITS | mid

    def close(self) -> None:
        """Say goodbye without the last will."""
        self._client.disconnect()

    def abort(self, reason: str) -> None:
        """End it wherever it is."""
        self._end(reason)
        self._opening.give_up()
        self._client.disconnect()

    def _open(self) -> None:
        try:
            self._client.connect(self.way.host, self.way.port, keepalive=KEEPALIVE_S)
        except (OSError, ValueError) as err:
            self._end(explain(err))
        else:
            self._client.loop_start()

    def _end(self, reason: str) -> None:
        if self._ended.acquire(blocking=False):  # once
            self._tell(Disconnected(self.serial, reason))

    def _on_connect(self, client: mqtt.Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            self._end(f"the broker refused the connection: {reason}")
            return
        # QoS 0: what is lost with a connection comes again with the next (acknowledgements are answers to the birth,
        # jobs are sent until the box itself has answered, the rest is retained), and NATS keeps a consumer for every
        # QoS 1 subscription, which may die with its node.
        client.subscribe([(topic, 0) for topic in self._topics])
        self._tell(Connected(self.serial))

    def _on_subscribe(self, client: mqtt.Client, _u: Any, _mid: int, reasons: Any, _p: Any) -> None:
        """Deaf to the centre is as good as not connected: a broker in trouble refuses a subscription, too."""
        if reasons[0].is_failure:  # of the acknowledgements; without the rest a box still reports
            self._end("the broker refused the subscription")
            client.disconnect()

    def _on_publish(self, _c: mqtt.Client, _u: Any, mid: int, _r: Any, _p: Any) -> None:
        self._tell(BrokerHas(self.serial << _MID_BITS | mid))

    def _on_message(self, _c: mqtt.Client, _u: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic == f"{self._topic}/ack":
            if len(message.payload) <= ACK_CAP_BYTES:
                self._tell(AckArrived(bytes(message.payload)))
        elif len(message.payload) > envelope.MESSAGE_CAP:
            return
        elif message.topic == f"{self._topic}/{orders.LEVEL}":
            self._tell(OrdersArrived(bytes(message.payload)))
        elif message.topic.startswith(f"{self._topic}/{jobs.LEVEL}/"):
            self._tell(JobArrived(message.topic.rpartition("/")[2], bytes(message.payload)))
        elif message.topic == switched.TOPIC:
            self._tell(RulesTold(bytes(message.payload)))
        else:
            self._tell(FleetTold(bytes(message.payload), message.topic == f"{self._topic}/known"))
