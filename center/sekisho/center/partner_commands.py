"""`sekisho center partner ...`: who may use the API, and with which certificates.

Only the arguments are here: what they do needs the API, which no other command waits for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sekisho.center.account_commands import ROLES
from sekisho.center.settings import DEFAULT_STORE

DEFAULT_AUTHORITY: Final = Path("/var/lib/sekisho-center-partners")
"""Holds ca.crt and ca.key of the partners' CA; root's alone."""


def register(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `partner` to the `center` group."""
    sub = group.add_parser("partner", help="who may use the API").add_subparsers(required=True, metavar="COMMAND")
    authority = sub.add_parser("authority", help="make the partners' CA; prints its certificate's path")
    authority.set_defaults(func=_work("authority"))
    add = sub.add_parser("add", help="a new partner; it has no certificate yet")
    add.add_argument("name")
    add.add_argument("--role", choices=ROLES, required=True, help="its rights are those of the role in the portal")
    add.add_argument("--tenant", action="append", default=[], help="of an admin or member; may be repeated")
    add.add_argument("--reseller", default="", help="of a reseller: the chamber's identifier")
    add.set_defaults(func=_work("add"))
    show = sub.add_parser("list", help="every partner with its certificates")
    show.add_argument("--json", action="store_true")
    show.set_defaults(func=_work("show"))
    revoke = sub.add_parser("revoke", help="end a partner at once and for ever, or one certificate of it 失効")
    revoke.add_argument("name")
    revoke.add_argument("--fingerprint", default="", help="SHA-256 of the one certificate that ends")
    revoke.set_defaults(func=_work("revoke"))
    certificate = sub.add_parser("certificate", help="sign a partner's request; prints the certificate")
    certificate.add_argument("name")
    certificate.add_argument("--csr", type=Path, required=True, help="the request (PEM); the partner keeps the key")
    certificate.add_argument("--days", type=int, default=365, help="1 to 825 (365)")
    certificate.set_defaults(func=_work("certificate"))
    for parser in (authority, certificate):
        parser.add_argument("--authority", type=Path, default=DEFAULT_AUTHORITY)
    for parser in (add, show, revoke, certificate):
        parser.add_argument("--store", default=DEFAULT_STORE, help="the database: a file or postgresql://...")


def _work(name: str) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        from sekisho.center.api import commands

        work: Callable[[argparse.Namespace], int] = getattr(commands, name)
        return work(args)

    return run
