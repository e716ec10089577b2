"""`sekisho center account ...`: the first operator's account, and what is to be done when nobody gets in any more.

Only the arguments are here: what they do needs the portal, which no other command waits for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Final

from sekisho.center.settings import DEFAULT_STORE

ROLES: Final = ("operator", "helpdesk", "reseller", "admin", "member")


def register(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `account` to the `center` group."""
    sub = group.add_parser("account", help="who may use the portal").add_subparsers(required=True, metavar="COMMAND")
    add = sub.add_parser("add", help="a new account; prints a link by which its owner chooses a password")
    add.add_argument("login", metavar="MAIL-ADDRESS")
    add.add_argument("--role", choices=ROLES, required=True)
    add.add_argument("--tenant", default="", help="of an admin or member")
    add.add_argument("--reseller", default="", help="of a reseller: the chamber's identifier")
    add.add_argument("--name", default="")
    add.add_argument("--locale", choices=("ja", "en"), default="ja")
    add.add_argument("--password-stdin", action="store_true", help="read a password instead of printing a link")
    add.set_defaults(func=_work("add"))
    show = sub.add_parser("list", help="every account")
    show.add_argument("--json", action="store_true")
    show.set_defaults(func=_work("show"))
    close = sub.add_parser("close", help="an account is no more; its sessions end at once")
    close.set_defaults(func=_work("close"))
    reset = sub.add_parser("reset", help="a new link for a password; second factors are taken away, sessions end")
    reset.set_defaults(func=_work("reset"))
    for parser in (close, reset):
        parser.add_argument("login", metavar="MAIL-ADDRESS")
    for parser in (add, reset):
        parser.add_argument("--origin", default="", help="how browsers reach the portal: https://portal.example")
    for parser in (add, show, close, reset):
        parser.add_argument("--store", default=DEFAULT_STORE, help="the database: a file or postgresql://...")


def _work(name: str) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        from sekisho.center.portal import commands

        work: Callable[[argparse.Namespace], int] = getattr(commands, name)
        return work(args)

    return run
