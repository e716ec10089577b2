"""The addresses behind a mail's buttons: signed, expiring, good for one mail and one action. Pure but for `keys`.

A token is `key.mail.action.expiry.signature`; the signature is HMAC-SHA256 over what stands before it. The mail's
identifier is made from tenant, notice and recipient, so a token says nothing about any other. Keys are made by
the notifier, a new one every `KEY_DAYS`, and go when no link of theirs can still be good.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import sqlalchemy as sa

from sekisho.center.notify.tables import link_key, text

Action = Literal["call", "fine"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
VALID: Final = dt.timedelta(days=30)
KEY_DAYS: Final = 30
TOKEN_CAP: Final = 200

_TOKEN = re.compile(r"(([0-9a-f]{8})\.([0-9a-f]{32})\.([a-z]{1,8})\.([0-9]{1,12}))\.([A-Za-z0-9_-]{43})")
_PURPOSE: Final = b"sekisho mail link 1\0"


@dataclass(frozen=True)
class Grant:
    """What a genuine token allows, or allowed."""

    mail: str
    action: Action
    expired: bool


def make(key: str, secret: bytes, mail: str, action: Action, at: dt.datetime) -> str:
    """A token for a mail of this time; the same arguments give the same token."""
    signed = f"{key}.{mail}.{action}.{int((at + VALID).timestamp())}"
    return f"{signed}.{_sign(secret, signed)}"


def read(keys: Mapping[str, bytes], token: str, now: dt.datetime) -> Grant | None:
    """What the token allows; None when it is not one of ours."""
    match = _TOKEN.fullmatch(token) if len(token) <= TOKEN_CAP else None
    if not match:
        return None
    signed, key, mail, action, expiry, signature = match.groups()
    secret = keys.get(key)
    if secret is None or not hmac.compare_digest(_sign(secret, signed), signature):
        return None
    known: dict[str, Action] = {name: name for name in ACTIONS}
    if action not in known:
        return None
    return Grant(mail, known[action], int(expiry) <= now.timestamp())


def keys(db: sa.Connection) -> dict[str, bytes]:
    """Every key whose links may still be good."""
    return {row.id: row.secret for row in db.execute(sa.select(link_key))}


def signing_key(db: sa.Connection, now: dt.datetime) -> tuple[str, bytes]:
    """(name, secret) to sign with, made when the newest is too old; inside a transaction."""
    db.execute(sa.delete(link_key).where(link_key.c.made_at < text(now - dt.timedelta(days=KEY_DAYS) - VALID)))
    young = link_key.c.made_at > text(now - dt.timedelta(days=KEY_DAYS))
    found = db.execute(sa.select(link_key).where(young).order_by(link_key.c.made_at.desc())).first()
    if found is not None:
        return found.id, found.secret
    name, secret = secrets.token_hex(4), secrets.token_bytes(32)
    db.execute(sa.insert(link_key).values(id=name, secret=secret, made_at=text(now)))
    return name, secret


def _sign(secret: bytes, signed: str) -> str:
    digest = hmac.new(secret, _PURPOSE + signed.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
