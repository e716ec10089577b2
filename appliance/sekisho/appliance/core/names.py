"""Names of boxes, tenants and certificates: one level of an MQTT topic with every broker.

No dot: NATS and RabbitMQ write a topic's levels with dots between them, so `a.b` would be two levels there.
"""

from __future__ import annotations

import re
from typing import Final

NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
RULE: Final = "a name of letters, digits, '_', '-' (at most 64)"


def is_name(text: str) -> bool:
    return re.fullmatch(NAME, text) is not None
