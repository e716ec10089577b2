"""What `sekisho center partner ...` does; its arguments are in `center.partner_commands`.

Partners have a CA of their own: nothing that trusts the boxes' CA (brokers, enrolment) takes a partner's certificate,
and the API takes no box's.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import pki
from sekisho.center.api import partners
from sekisho.center.ca import csr as requests
from sekisho.center.database import Database
from sekisho.center.portal import audit
from sekisho.center.scope import only

COMMAND: Final = "sekisho center partner"
"""Who did it, for the audit log."""
DAYS_CAP: Final = 825
REQUEST_CAP_BYTES: Final = 16 << 10


def authority(args: argparse.Namespace) -> int:
    _say(str(pki.create_ca(args.authority, "sekisho partners CA")))
    return 0


def add(args: argparse.Namespace) -> int:
    with Database(args.store).transaction() as db:
        now = dt.datetime.now(dt.UTC)
        partners.add(db, args.name, args.role, reseller=args.reseller, tenants=args.tenant, now=now)
        _note(db, args.name, "partner.add", f"{args.name} {args.role} {args.reseller or ' '.join(args.tenant)}".strip())
    return 0


def show(args: argparse.Namespace) -> int:
    with Database(args.store).reading() as db:
        found = partners.listed(db)
    if args.json:
        _say(msgspec.json.encode(found).decode())
        return 0
    for one in found:
        state = f"revoked {one.revoked_at:.10}" if one.revoked_at else "active"
        _say(f"{one.name:<20} {one.role:<9} {one.reseller or ' '.join(one.tenants) or '-':<20} {state}")
        for held in one.certificates:
            _say(f"  {held.fingerprint}  until {held.until:.10}{'  revoked' if held.revoked_at else ''}")
    return 0


def revoke(args: argparse.Namespace) -> int:
    with Database(args.store).transaction() as db:
        ended = partners.revoke(db, args.name, dt.datetime.now(dt.UTC), args.fingerprint)
        _note(db, args.name, "partner.revoke", f"{args.name} {args.fingerprint}".strip())
    _say(f"{args.name}: {ended} certificates revoked.")
    return 0


def certificate(args: argparse.Namespace) -> int:
    if not 1 <= args.days <= DAYS_CAP:
        raise RejectedInput(f"A certificate lives 1 to {DAYS_CAP} days.")
    key = requests.key_of(requests.read(_text(args.csr)))
    made = pki.sign(pki.load_ca(args.authority), args.name, key, dt.timedelta(days=args.days))
    fingerprint = made.fingerprint(hashes.SHA256()).hex()
    with Database(args.store).transaction() as db:
        partners.admit(db, args.name, fingerprint, made.not_valid_after_utc, dt.datetime.now(dt.UTC))
        _note(db, args.name, "partner.certificate", f"{args.name} {fingerprint}")
    sys.stdout.write(made.public_bytes(Encoding.PEM).decode())
    return 0


def _note(db: sa.Connection, name: str, action: str, what: str) -> None:
    audit.note(db, partners.as_viewer(name, "member", only(), COMMAND), action, what, tenant="")


def _text(path: Path) -> str:
    try:
        with path.open("rb") as source:
            return source.read(REQUEST_CAP_BYTES).decode()
    except (OSError, UnicodeDecodeError) as err:
        raise RejectedInput(f"{path} cannot be read as a certificate signing request.") from err


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
