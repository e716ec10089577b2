"""Closing the live session of a box whose certificate was revoked.

By the protocol itself: a connection with the same client id makes the broker disconnect the one it has (MQTT 3.1.1,
MQTT-3.1.4-2), which with Mosquitto is the certificate's CN. NATS and RabbitMQ lose the box from their list of members
and close its session themselves (brokers/keeper.py); there this changes nothing. For that instant the CA gives itself
a certificate with the box's name; it lives an hour, is in the history as "cut", and its key is on no disk after
the handshake. The list of the revoked must be out before, or the box comes straight back.
"""

from __future__ import annotations

import datetime as dt
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as mqtt
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from paho.mqtt.enums import CallbackAPIVersion

from sekisho.appliance.core.errors import PeerError
from sekisho.center import pki
from sekisho.center.ca import csr, granting
from sekisho.center.settings import BrokerLink

LIFE: Final = dt.timedelta(hours=1)
CONNECT_S: Final = 5.0


class Stand:
    """A certificate with a box's name, for one connection."""

    def __init__(self, ca: pki.Authority, box: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.box = box
        self._fingerprint = csr.fingerprint(key.public_key())
        self._cert = pki.sign(ca, box, key.public_key(), LIFE)
        self._pem = self._cert.public_bytes(Encoding.PEM) + key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )

    def lasts(self, now: dt.datetime) -> bool:
        """Whether it is good for another connection."""
        return self._cert.not_valid_after_utc - now > LIFE / 10

    def record(self, db: sa.Connection, now: dt.datetime) -> None:
        granting.record(db, self._cert, "", self._fingerprint, "cut", "", now)

    def take_session(self, link: BrokerLink) -> None:
        """Connect in the box's place and leave at once.

        Raises:
            PeerError: the broker could not be reached. That it refuses us is as good: it lets no such box in.

        """
        context = ssl.create_default_context(cafile=link.ca)
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # 0600, gone at the end
            Path(file.name).write_bytes(self._pem)
            context.load_cert_chain(file.name)
        answered = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self.box, protocol=mqtt.MQTTv311)
        client.tls_set_context(context)
        client.connect_timeout = CONNECT_S

        def told(*_: Any) -> None:
            answered.set()

        client.on_connect = client.on_disconnect = told
        try:
            client.connect(link.host, link.port, keepalive=10)
            client.loop_start()
            if not answered.wait(CONNECT_S):
                raise PeerError(f"The broker does not answer; the session of {self.box} may still be open.")
        except (OSError, ValueError) as err:
            raise PeerError(f"The broker cannot be reached to close the session of {self.box}: {err}.") from err
        finally:
            client.disconnect()
            client.loop_stop()
