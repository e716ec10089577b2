"""What time is it? Asked with every birth, answered by the centre: a nonce tells the fresh answer from an old one.

The acknowledgement is a retained message, which a broker may repeat years later: it tells the time only if it
repeats the nonce of the last birth, once, and soon after it.
"""

from __future__ import annotations

import secrets
from typing import Final

ROUND_TRIP_S: Final = 10.0
"""An answer that took longer says nothing: the truth lies anywhere within its round trip."""
ASK_AGAIN_S: Final = 1.0
ASK_CAP_S: Final = 600.0
"""Unanswered, it waits for twice as long before each next time, at most this."""
CONFIRM_S: Final = 3600.0
"""An answer is good for this long: a clock without reference drifts by seconds a day."""
PATIENCE_S: Final = 5.0
"""How long rows of a clock nobody has confirmed wait for the answer, if that clock may be right."""


class Question:
    """One question at a time. Times are monotonic seconds given by the caller."""

    def __init__(self) -> None:
        self._nonce = ""
        self._asked_at = 0.0
        self._ask_at, self._wait_s = 0.0, ASK_AGAIN_S
        self._patient_until = float("inf")

    def connected(self, now: float) -> None:
        """Asked at once, and patience begins anew."""
        self._ask_at, self._wait_s = now, ASK_AGAIN_S
        self._patient_until = now + PATIENCE_S

    def due(self, now: float) -> bool:
        return now >= self._ask_at

    def ask(self, now: float) -> str:
        """The nonce for the birth that goes out now; earlier ones lose their meaning."""
        self._nonce, self._asked_at, self._ask_at = secrets.token_hex(8), now, now + self._wait_s
        self._wait_s = min(2 * self._wait_s, ASK_CAP_S)
        return self._nonce

    def answer(self, nonce: str, centre_ms: int, now: float) -> float | None:
        """The true unix time now, if this is the fresh answer; its error is half the round trip."""
        if not self._nonce or nonce != self._nonce:
            return None
        self._nonce = ""
        took = now - self._asked_at
        if took > ROUND_TRIP_S:
            return None
        self._ask_at, self._wait_s = now + CONFIRM_S, ASK_AGAIN_S
        return centre_ms / 1000 + took / 2

    def out_of_patience(self, now: float) -> bool:
        """Whether the centre has not answered for so long that a clock that may be right is taken for right."""
        return now >= self._patient_until
