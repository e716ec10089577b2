"""Passkeys (WebAuthn Level 3): a key in somebody's device or key ring; what is stored here is its public half.

A challenge is made for one browser and one purpose, is good for five minutes and is taken away by its first use,
whatever comes of it. Origin, site and the holder's own check (PIN, finger, face) are verified, so that a passkey is
two factors at once.
"""

from __future__ import annotations

import datetime as dt
import secrets
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa
import webauthn
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url, options_to_json
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.database import metadata
from sekisho.center.portal import accounts
from sekisho.center.portal.sessions import digest

CHALLENGE_LIVES: Final = dt.timedelta(minutes=5)
OF_ACCOUNT_CAP: Final = 20
ID_CAP: Final = 1400
"""Characters of a credential's identifier, at most 1023 bytes (WebAuthn 4)."""

PASSKEY: Final = sa.Table(
    "passkey",
    metadata,
    sa.Column("credential", sa.Text, primary_key=True, doc="base64url"),
    sa.Column("id", sa.Text, nullable=False, unique=True, doc="what pages call it"),
    sa.Column("account", sa.Text, nullable=False, index=True),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("sign_count", sa.BigInteger, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("made_at", sa.Text, nullable=False),
    sa.Column("used_at", sa.Text, nullable=False),
    info={"goes_with_account": True},
)
CHALLENGE: Final = sa.Table(
    "challenge",
    metadata,
    sa.Column("holder", sa.Text, primary_key=True, doc="purpose and the browser's own digest"),
    sa.Column("challenge", sa.LargeBinary, nullable=False),
    sa.Column("until", sa.Text, nullable=False, index=True),
)

Purpose = Literal["register", "sign_in", "confirm"]


class Site(msgspec.Struct, frozen=True):
    """What a passkey is for: the portal's origin and its host."""

    origin: str

    @property
    def host(self) -> str:
        return urlsplit(self.origin).hostname or ""

    @property
    def able(self) -> bool:
        """Whether browsers make passkeys here: not for a site that is a bare address (WebAuthn 5.1.3)."""
        return not self.host.replace(".", "").isdecimal() and ":" not in self.host


def ask_new(db: sa.Connection, site: Site, account: str, login: str, name: str, browser: str, now: dt.datetime) -> str:
    """What a browser needs to make a passkey, as JSON."""
    options = webauthn.generate_registration_options(
        rp_id=site.host,
        rp_name="sekisho",
        user_id=account.encode(),
        user_name=login,
        user_display_name=name or login,
        challenge=_challenge(db, "register", browser, now),
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        exclude_credentials=[
            PublicKeyCredentialDescriptor(base64url_to_bytes(row.credential)) for row in of_account(db, account)
        ],
    )
    return options_to_json(options)


def keep(db: sa.Connection, site: Site, account: str, browser: str, answer: Any, name: str, now: dt.datetime) -> None:
    """Keep the passkey a browser made.

    Raises:
        RejectedInput: it is none, was made for another site, or answers no question of ours.

    """
    challenge = _take(db, "register", browser, now)
    if count(db, account) >= OF_ACCOUNT_CAP:
        raise RejectedInput(f"An account has at most {OF_ACCOUNT_CAP} passkeys.")
    try:
        made = webauthn.verify_registration_response(
            credential=_json(answer),
            expected_challenge=challenge,
            expected_rp_id=site.host,
            expected_origin=site.origin,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, TypeError, KeyError) as err:
        raise RejectedInput("This passkey cannot be used.") from err
    credential = bytes_to_base64url(made.credential_id)
    if db.execute(sa.select(PASSKEY.c.id).where(PASSKEY.c.credential == credential)).first():
        raise RejectedInput("This passkey is known already.")
    values = {"public_key": made.credential_public_key, "sign_count": made.sign_count, "made_at": utc.text(now)}
    shown = accounts.clean(name)[:40]
    db.execute(
        PASSKEY.insert().values(
            credential=credential, id=secrets.token_hex(8), account=account, name=shown, used_at="", **values
        )
    )


def ask(db: sa.Connection, site: Site, purpose: Purpose, browser: str, now: dt.datetime) -> str:
    """What a browser needs to sign in by any passkey it has for this site, as JSON; it names no account."""
    options = webauthn.generate_authentication_options(
        rp_id=site.host,
        challenge=_challenge(db, purpose, browser, now),
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return options_to_json(options)


def check(db: sa.Connection, site: Site, purpose: Purpose, browser: str, answer: Any, now: dt.datetime) -> str:
    """Whose passkey answered; the account's id.

    Raises:
        RejectedInput: no passkey of ours, made for another site, or an answer to nothing we asked.

    """
    challenge = _take(db, purpose, browser, now)
    credential = answer.get("id") if isinstance(answer, dict) else None
    if not isinstance(credential, str) or len(credential) > ID_CAP:
        raise RejectedInput("This passkey is not known here.")
    row = db.execute(sa.select(PASSKEY).where(PASSKEY.c.credential == credential)).one_or_none()
    if row is None:
        raise RejectedInput("This passkey is not known here.")
    try:
        parsed = webauthn.helpers.parse_authentication_credential_json(_json(answer))
        verified = webauthn.verify_authentication_response(
            credential=parsed,
            expected_challenge=challenge,
            expected_rp_id=site.host,
            expected_origin=site.origin,
            credential_public_key=row.public_key,
            credential_current_sign_count=row.sign_count,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, TypeError, KeyError) as err:
        raise RejectedInput("This passkey does not open this account.") from err
    if parsed.response.user_handle != row.account.encode():
        raise RejectedInput("This passkey does not open this account.")
    change = {"sign_count": verified.new_sign_count, "used_at": utc.text(now)}
    db.execute(PASSKEY.update().where(PASSKEY.c.credential == credential).values(**change))
    return str(row.account)


def of_account(db: sa.Connection, account: str) -> list[sa.Row[Any]]:
    return list(db.execute(sa.select(PASSKEY).where(PASSKEY.c.account == account).order_by(PASSKEY.c.made_at)))


def count(db: sa.Connection, account: str) -> int:
    query = sa.select(sa.func.count()).select_from(PASSKEY).where(PASSKEY.c.account == account)
    return db.execute(query).scalar_one()


def remove(db: sa.Connection, account: str, name: str) -> bool:
    """Forget one; False when the account has none of this name."""
    return db.execute(PASSKEY.delete().where(PASSKEY.c.account == account, PASSKEY.c.id == name)).rowcount == 1


def remove_all(db: sa.Connection, account: str) -> None:
    db.execute(PASSKEY.delete().where(PASSKEY.c.account == account))


def _challenge(db: sa.Connection, purpose: Purpose, browser: str, now: dt.datetime) -> bytes:
    holder = f"{purpose}:{digest(browser)}"
    db.execute(CHALLENGE.delete().where((CHALLENGE.c.holder == holder) | (CHALLENGE.c.until < utc.text(now))))
    made = secrets.token_bytes(32)
    until = utc.text(now + CHALLENGE_LIVES)
    db.execute(CHALLENGE.insert().values(holder=holder, challenge=made, until=until))
    return made


def _take(db: sa.Connection, purpose: Purpose, browser: str, now: dt.datetime) -> bytes:
    """The browser's open challenge, which is none any more; random bytes, which nothing answers, where it has none."""
    holder = CHALLENGE.c.holder == f"{purpose}:{digest(browser)}"
    found = db.execute(sa.select(CHALLENGE).where(holder)).one_or_none()
    taken = db.execute(CHALLENGE.delete().where(holder)).rowcount == 1
    return bytes(found.challenge) if found and taken and found.until > utc.text(now) else secrets.token_bytes(32)


def _json(answer: Any) -> dict[str, Any]:
    """The browser's answer, without what is longer than any passkey needs.

    Raises:
        ValueError: it is no object of short texts.

    """
    if not isinstance(answer, dict) or len(msgspec.json.encode(answer)) > 32 << 10:
        raise ValueError("no passkey's answer")
    return answer
