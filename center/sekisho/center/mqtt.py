"""An MQTT client with the centre's certificate: what every daemon of the centre needs to speak with the broker."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.settings import BrokerLink
from sekisho.telemetry.identity import client_id

CONFIRM_S: Final = 5.0

log = logging.getLogger(__name__)


def tls(link: BrokerLink) -> ssl.SSLContext:
    """The centre's certificate towards a broker of its own authority.

    Raises:
        RejectedInput: the certificate or its key cannot be used.

    """
    try:
        context = ssl.create_default_context(cafile=link.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(link.cert, link.key)
    except (OSError, ValueError) as err:
        raise RejectedInput(f"The centre's certificate cannot be used ({link.cert}): {err}.") from err
    return context


def make_client(link: BrokerLink, on_connect: Callable[[], None], *, keep_session: bool = False) -> paho.Client:
    """A client that is not connected yet; `on_connect` is called in its thread after each connection.

    With `keep_session` the broker keeps what comes while the client is away, and messages are acknowledged by hand.

    Raises:
        RejectedInput: the certificate or its key cannot be used.

    """
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id(link.client, Path(link.key)),
        clean_session=not keep_session,
        protocol=paho.MQTTv311,
        manual_ack=keep_session,
    )
    client.tls_set_context(tls(link))
    client.reconnect_delay_set(1, 5)
    client.on_socket_open = _no_delay
    client.on_disconnect = _on_disconnect

    def connected(_c: paho.Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            log.warning("the broker refused the connection: %s", reason)
            return
        log.info("connected to the broker")
        on_connect()

    client.on_connect = connected
    return client


def _no_delay(_c: paho.Client, _u: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _on_disconnect(_c: paho.Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
    log.warning("not connected to the broker: %s", reason)


def wait_for(given: Sequence[paho.MQTTMessageInfo]) -> list[bool]:
    """Of which the broker has said within `CONFIRM_S` that it has them: one deadline for all, a watchdog waits."""
    until = time.monotonic() + CONFIRM_S
    return [_confirmed(info, until) for info in given]


def _confirmed(info: paho.MQTTMessageInfo, until: float) -> bool:
    try:
        info.wait_for_publish(max(0.0, until - time.monotonic()))
        return info.is_published()
    except (RuntimeError, ValueError):
        return False
