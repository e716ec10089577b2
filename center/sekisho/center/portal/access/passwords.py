"""Passwords: what is a good one (NIST SP 800-63B 5.1.1.2), and how one is kept (Argon2id, RFC 9106).

A password is twelve characters or more, of any kind; what everybody knows or can guess of its owner is refused. There
is no rule about digits and signs, and none that it must be changed. A check takes as long for an account that does
not exist.
"""

from __future__ import annotations

import datetime as dt
import re
import threading
import unicodedata
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Final, Literal

import argon2
import sqlalchemy as sa
from argon2.exceptions import InvalidHashError, VerificationError

from sekisho.appliance.core import utc
from sekisho.center.database import metadata

SHORTEST: Final = 12
LONGEST: Final = 256
"""Characters; more is refused and never looked at."""
AT_ONCE: Final = 4
"""Argon2 takes 64 MiB for each check: so many are made at a time."""

PASSWORD: Final = sa.Table(
    "password",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("changed_at", sa.Text, nullable=False),
    info={"goes_with_account": True},
)

Weakness = Literal["short", "long", "common", "own"]

_HASHER: Final = argon2.PasswordHasher()
_TURN: Final = threading.BoundedSemaphore(AT_ONCE)
_END = re.compile(r"[\W\d_]+$")
_LEET = str.maketrans("013457@$!", "oleastasi")
_ROWS: Final = ("abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "1qaz2wsx3edc4rfv")


def weakness(password: str, about: Iterable[str] = ()) -> Weakness | None:
    """Why this is no good password for somebody who is `about`: login, name, the customer's name."""
    text = _normal(password)
    if len(text) < SHORTEST:
        return "short"
    if len(password) > LONGEST:
        return "long"
    plain = text.lower()
    if any(plain in (word, word * 2) or _END.sub("", plain) == word for word in _of_owner(about)):
        return "own"
    return "common" if _common(plain) else None


def set_password(db: sa.Connection, account: str, kept: str, now: dt.datetime) -> None:
    """Keep what `hashed` made."""
    db.execute(PASSWORD.delete().where(PASSWORD.c.account == account))
    db.execute(PASSWORD.insert().values(account=account, hash=kept, changed_at=utc.text(now)))


def of_account(db: sa.Connection, account: str) -> str:
    """What is kept of an account's password; empty when it has none."""
    return db.execute(sa.select(PASSWORD.c.hash).where(PASSWORD.c.account == account)).scalar() or ""


def hashed(password: str) -> str:
    """What is kept of a password. Takes a moment: not for an event loop or inside a transaction."""
    with _TURN:
        return _HASHER.hash(_normal(password))


def matches(kept: str, password: str) -> bool:
    """Whether it is the password; takes as long where there is none (`kept` is empty)."""
    text = _normal(password) if len(password) <= LONGEST else ""
    with _TURN:
        try:
            return _HASHER.verify(kept or _nobody(), text) and bool(kept) and bool(text)
        except (VerificationError, InvalidHashError):
            return False


@cache
def _nobody() -> str:
    return _HASHER.hash("there is no such account")


def _normal(password: str) -> str:
    """One spelling, however a keyboard composes it (SP 800-63B: NFKC)."""
    return unicodedata.normalize("NFKC", password[: LONGEST + 1])


def _of_owner(about: Iterable[str]) -> set[str]:
    words = set()
    for text in about:
        whole = _normal(text).lower().strip()
        words |= {whole, whole.partition("@")[0], whole.rpartition("@")[2], whole.replace(" ", "")}
    return {word for word in words if len(word) >= 3}


def _common(plain: str) -> bool:
    """What is on everybody's list, also with digits behind it, spelt with them, said again, or along the keyboard."""
    if any(plain == (plain[:size] * len(plain))[: len(plain)] for size in range(1, 5)):
        return True
    if any(plain in row * 3 or plain in row[::-1] * 3 for row in _ROWS):
        return True
    found = _words()
    for text in (plain, _END.sub("", plain).translate(_LEET)):
        stem = _END.sub("", text).lstrip("0123456789")
        half = stem[: len(stem) // 2]
        if text in found or stem in found or not stem or (half * 2 == stem and half in found):
            return True
        if any(stem[size:] in found and stem[:size] in found for size in range(4, len(stem))):
            return True
    return False


@cache
def _words() -> frozenset[str]:
    text = resources.files(__package__).joinpath("common_passwords.txt").read_text(encoding="utf-8")
    return frozenset(line.strip() for line in text.splitlines() if line.strip())
