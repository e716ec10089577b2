"""Second factors: codes of an app (TOTP, RFC 6238), recovery codes on paper, and who must have one.

A code opens once: its time step is written down, and none of that step or before is taken again. What is stored of a
recovery code is its digest; it goes with its use. The secret of an app is in a table of its own and never logged.
"""

from __future__ import annotations

import datetime as dt
import hmac
import secrets
from typing import Final

import msgspec
import pyotp
import segno
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center import tenants
from sekisho.center.database import metadata
from sekisho.center.portal import accounts, sessions
from sekisho.center.portal.access import passkeys
from sekisho.center.portal.rights import Role

MUST: Final[frozenset[Role]] = frozenset({"operator", "helpdesk", "reseller"})
"""Who sees more than one customer has a second factor."""
STEP_S: Final = 30
AROUND: Final = 1
"""Steps before and after the present one that are taken: clocks are off, and people type slowly."""
RECOVERY_CODES: Final = 10
CODE_CAP: Final = 32
ISSUER: Final = "sekisho"
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyz23456789"
"""No characters that look like others."""

TOTP: Final = sa.Table(
    "totp",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("made_at", sa.Text, nullable=False),
    sa.Column("confirmed_at", sa.Text, nullable=False, doc="empty: shown as a QR code, not yet proved"),
    sa.Column("last_step", sa.BigInteger, nullable=False, doc="codes of this step and before open no more"),
    info={"goes_with_account": True},
)
RECOVERY: Final = sa.Table(
    "recovery",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, nullable=False, index=True),
    info={"goes_with_account": True},
)


class Factors(msgspec.Struct, frozen=True):
    """What an account has beside its password."""

    totp: bool
    passkeys: int
    recovery: int

    @property
    def any(self) -> bool:
        return self.totp or self.passkeys > 0


def of_account(db: sa.Connection, account: str) -> Factors:
    app = db.execute(sa.select(TOTP.c.confirmed_at).where(TOTP.c.account == account)).scalar()
    left = db.execute(sa.select(sa.func.count()).select_from(RECOVERY).where(RECOVERY.c.account == account))
    return Factors(bool(app), passkeys.count(db, account), left.scalar_one())


def required(db: sa.Connection, account: accounts.Row) -> bool:
    """Whether this account may not be without a second factor."""
    return account.role in MUST or bool(account.tenant and tenants.load(db, account.tenant).second_factor)


def offer(db: sa.Connection, account: str, now: dt.datetime) -> str:
    """The secret an app is to have; the same until it is proved. Nothing asks for its codes yet."""
    which = TOTP.c.account == account
    found = db.execute(sa.select(TOTP).where(which)).one_or_none()
    if found is not None and not found.confirmed_at:
        return str(found.secret)
    if found is not None:
        raise ValueError("this account has an app already")
    secret = pyotp.random_base32()
    values = {"account": account, "secret": secret, "made_at": utc.text(now), "confirmed_at": "", "last_step": 0}
    db.execute(TOTP.insert().values(**values))
    return secret


def picture(secret: str, login: str) -> str:
    """The QR code an app reads, as the address of an image (data:)."""
    made: str = segno.make(_address(secret, login), error="m").svg_data_uri(scale=5, border=4, light="#fff")
    return made


def prove(db: sa.Connection, account: str, code: str, now: dt.datetime) -> bool:
    """From now on the app's codes are asked for, once it has shown one."""
    if not take_code(db, account, code, now, confirmed=False):
        return False
    db.execute(TOTP.update().where(TOTP.c.account == account).values(confirmed_at=utc.text(now)))
    return True


def take_code(db: sa.Connection, account: str, code: str, now: dt.datetime, *, confirmed: bool = True) -> bool:
    """Whether the code opens, and it is the last time that it does."""
    found = db.execute(sa.select(TOTP).where(TOTP.c.account == account)).one_or_none()
    code = "".join(code[:CODE_CAP].split())
    if found is None or bool(found.confirmed_at) != confirmed or not (len(code) == 6 and code.isdecimal()):
        return False
    app, present = pyotp.TOTP(found.secret), int(now.timestamp()) // STEP_S
    for step in range(present - AROUND, present + AROUND + 1):
        if hmac.compare_digest(app.generate_otp(step).encode(), code.encode()):
            newer = (TOTP.c.account == account, TOTP.c.last_step < step)
            return db.execute(TOTP.update().where(*newer).values(last_step=step)).rowcount == 1
    return False


def new_recovery_codes(db: sa.Connection, account: str) -> list[str]:
    """Codes to write down, in place of those before; each opens once."""
    db.execute(RECOVERY.delete().where(RECOVERY.c.account == account))
    codes = [
        "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4)) for _ in range(RECOVERY_CODES)
    ]
    db.execute(RECOVERY.insert(), [{"digest": _recovery(account, code), "account": account} for code in codes])
    return codes


def take_recovery(db: sa.Connection, account: str, code: str) -> bool:
    """Whether it is one of the codes; it is none any more."""
    which = (RECOVERY.c.account == account, RECOVERY.c.digest == _recovery(account, code[:CODE_CAP]))
    return db.execute(RECOVERY.delete().where(*which)).rowcount == 1


def remove_totp(db: sa.Connection, account: str) -> None:
    db.execute(TOTP.delete().where(TOTP.c.account == account))
    _tidy(db, account)


def reset(db: sa.Connection, account: str) -> None:
    """Take away every second factor: the person has lost them."""
    passkeys.remove_all(db, account)
    remove_totp(db, account)


def _tidy(db: sa.Connection, account: str) -> None:
    """Recovery codes stand for a second factor, and open nothing without one."""
    if not of_account(db, account).any:
        db.execute(RECOVERY.delete().where(RECOVERY.c.account == account))


def remove_passkey(db: sa.Connection, account: str, name: str) -> bool:
    gone = passkeys.remove(db, account, name)
    _tidy(db, account)
    return gone


def _address(secret: str, login: str) -> str:
    return pyotp.TOTP(secret).provisioning_uri(name=login, issuer_name=ISSUER)


def _recovery(account: str, code: str) -> str:
    plain = "".join(char for char in code.lower() if char.isalnum())
    return sessions.digest(f"{account}:{plain}")
