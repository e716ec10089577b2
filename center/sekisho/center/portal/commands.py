"""What `sekisho center account ...` does; its arguments are in `center.account_commands`."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import sys

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.database import Database
from sekisho.center.portal import accounts, audit, sessions
from sekisho.center.portal.access import factors, onetime, passwords
from sekisho.center.portal.accounts import ACCOUNT

LIST_CAP = 10_000
COMMAND = "sekisho center account"
"""Who did it, for the audit log."""


class Shown(msgspec.Struct, frozen=True):
    """An account as it is listed."""

    login: str
    role: str
    of: str
    """The customer or chamber; empty for staff."""
    state: str
    second_factor: bool
    name: str


def add(args: argparse.Namespace) -> int:
    password = _password(args) if args.password_stdin else ""
    kept = passwords.hashed(password) if password else ""
    now = dt.datetime.now(dt.UTC)
    with Database(args.store).transaction() as db:
        account = accounts.make(
            db,
            args.login,
            args.role,
            tenant=args.tenant,
            reseller=args.reseller,
            name=args.name,
            locale=args.locale,
            state="active" if kept else "invited",
            now=now,
        )
        if kept:
            passwords.set_password(db, account, kept, now)
        audit.write(db, _found(db, args.login), "member.add", f"{args.login} {args.role}", by=COMMAND)
        link = "" if kept else onetime.make(db, account, "invite", now)
    if link:
        _say(f"{args.origin}{link}")
    return 0


def show(args: argparse.Namespace) -> int:
    with Database(args.store).reading() as db:
        rows = db.execute(sa.select(ACCOUNT).order_by(ACCOUNT.c.role, ACCOUNT.c.login).limit(LIST_CAP)).all()
        shown = [
            Shown(
                row.login, row.role, row.tenant or row.reseller, row.state, factors.of_account(db, row.id).any, row.name
            )
            for row in rows
        ]
    if args.json:
        _say(msgspec.json.encode(shown).decode())
        return 0
    for one in shown:
        second = "second factor" if one.second_factor else "password only"
        _say(f"{one.login:<40} {one.role:<9} {one.of or '-':<20} {one.state:<8} {second}")
    return 0


def close(args: argparse.Namespace) -> int:
    with Database(args.store).transaction() as db:
        row = _found(db, args.login)
        audit.write(db, row, "member.close", row.login, by=COMMAND)
        accounts.remove(db, row.id)
    return 0


def reset(args: argparse.Namespace) -> int:
    now = dt.datetime.now(dt.UTC)
    with Database(args.store).transaction() as db:
        row = _found(db, args.login)
        factors.reset(db, row.id)
        sessions.end_all(db, row.id)
        audit.write(db, row, "second.reset", row.login, by=COMMAND)
        link = onetime.make(db, row.id, "invite" if row.state == "invited" else "password", now)
    _say(f"{args.origin}{link}")
    return 0


def _found(db: sa.Connection, login: str) -> accounts.Row:
    row = accounts.by_login(db, login)
    if row is None:
        raise RejectedInput(f"There is no account {login[:80]!r}.")
    return row


def _password(args: argparse.Namespace) -> str:
    """A password from standard input, one line; asked for where that is a terminal."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
    else:
        password = sys.stdin.readline(passwords.LONGEST + 2).rstrip("\n")
    why = passwords.weakness(password, (args.login, args.name))
    if why is not None:
        raise RejectedInput(_WHY[why])
    return password


_WHY = {
    "short": f"A password has at least {passwords.SHORTEST} characters.",
    "long": f"A password has at most {passwords.LONGEST} characters.",
    "common": "Many people use this password, so it is guessed at once. Choose another.",
    "own": "The password must not be the name or the mail address. Choose another.",
}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
