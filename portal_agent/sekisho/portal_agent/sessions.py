"""Who is signed in: a few random tokens in memory, of which only digests are kept. A restart signs everyone out."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from hmac import compare_digest
from typing import Final

import msgspec

IDLE_S: Final = 30 * 60
LONGEST_S: Final = 12 * 3600
AT_ONCE: Final = 16
TOKEN_CHARS: Final = 43


class Session(msgspec.Struct):
    """One browser that knows the password; times are monotonic seconds."""

    began: float
    used: float
    csrf: str
    """Goes into every form and comes back with it."""
    said: str = ""
    """A sentence for the next page: what became of a form."""


class Sessions:
    """All of them; the one unused for longest makes room. Safe to call from threads."""

    def __init__(self) -> None:
        self._held: OrderedDict[bytes, Session] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, now: float) -> str:
        """A new token, for a cookie."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            while len(self._held) >= AT_ONCE:
                self._held.popitem(last=False)
            self._held[_digest(token)] = Session(now, now, secrets.token_urlsafe(32))
        return token

    def of(self, token: str, now: float) -> Session | None:
        """The session of a cookie, which counts as used now; None when it is over or never was."""
        if len(token) != TOKEN_CHARS:
            return None
        key = _digest(token)
        with self._lock:
            held = self._held.pop(key, None)
            if held is None or now - held.used > IDLE_S or now - held.began > LONGEST_S:
                return None
            held.used = now
            self._held[key] = held
            return held

    def end(self, token: str) -> None:
        with self._lock:
            self._held.pop(_digest(token), None)

    def end_all(self) -> None:
        with self._lock:
            self._held.clear()


def is_of(session: Session, csrf: str) -> bool:
    """Whether a form came from a page of this session."""
    return compare_digest(session.csrf.encode(), csrf.encode(errors="replace"))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
