"""The MQTT client id of a box or of the centre: its name, and what nobody without its private key can guess.

A broker ends a session when its client id connects anew (MQTT 3.1.1, 3.1.4-2). Mosquitto ties the id to the
certificate; NATS and RabbitMQ take what the client says, so with ids that can be guessed any box could push any
other, or the centre, off the broker. The id is the same after a restart: the new session takes the old one over.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from sekisho.appliance.core.errors import RejectedInput

KEY_CAP = 64 << 10


def client_id(name: str, key: Path) -> str:
    """`name`, a dash and 16 hex digits that follow from the private key in `key`.

    Raises:
        RejectedInput: the key cannot be read.

    """
    try:
        with key.open("rb") as source:
            secret = source.read(KEY_CAP)
    except OSError as err:
        raise RejectedInput(f"The key {key} cannot be read: {err.strerror}.") from err
    return f"{name}-{hashlib.blake2b(b'client id', key=hashlib.sha256(secret).digest(), digest_size=8).hexdigest()}"
