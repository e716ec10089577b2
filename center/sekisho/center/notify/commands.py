"""`sekisho center mails` and `requests`: what was sent to whom, what did not arrive, who asked for what."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import sys
from collections.abc import Sequence

import msgspec

from sekisho.center.database import Database
from sekisho.center.notify import queue, requests
from sekisho.center.settings import DEFAULT_STORE


def register(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both to the `center` group."""
    mails = group.add_parser("mails", help="mails to customers, the newest first; exit code 1 when --failed finds any")
    mails.add_argument("--tenant", default="", help="of this tenant only")
    mails.add_argument("--failed", action="store_true", help="only those that were given up or refused for good")
    mails.add_argument("--waiting", action="store_true", help="only those that are still to be sent")
    mails.add_argument("--limit", type=int, default=100)
    mails.set_defaults(func=_mails)
    asked = group.add_parser("requests", help='"call me" and "this was fine", as customers answered by a link')
    asked.add_argument("--all", action="store_true", help="also those that are done")
    asked.add_argument("--done", default="", metavar="ID", help="write down that it was seen to")
    asked.set_defaults(func=_requests)
    for parser in (mails, asked):
        parser.add_argument("--store", default=DEFAULT_STORE, help="the database: a file or postgresql://...")
        parser.add_argument("--json", action="store_true")


def _mails(args: argparse.Namespace) -> int:
    states = ("failed",) if args.failed else ("due", "sending") if args.waiting else ("",)
    database = Database(args.store, read_only=True)
    found = [
        one for state in states for one in queue.shown(database, tenant=args.tenant, state=state, limit=args.limit)
    ]
    lines = [
        f"{one.created_at[:19]}  {one.state:<8} {'★' * one.stars:<3} {one.kind:<9} {one.tenant:<12} {one.recipient}"
        + (f"  ({one.attempts} times; {one.reply})" if one.state != "sent" and one.reply else "")
        for one in found
    ]
    _say(found, lines, json=args.json)
    return 1 if args.failed and found else 0


def _requests(args: argparse.Namespace) -> int:
    database = Database(args.store, read_only=not args.done)
    if args.done:
        with database.transaction() as db:
            requests.finish(db, args.done, getpass.getuser(), dt.datetime.now(dt.UTC))
    with database.reading() as db:
        found = requests.listed(db, done=args.all)
    lines = [
        f"{one.asked_at[:19]}  {one.action:<5} {one.tenant:<12} {one.recipient}  {one.about}  {one.id}"
        + (f"  done {one.done_at[:19]} by {one.done_by}" if one.done_at else "")
        for one in found
    ]
    _say(found, lines, json=args.json)
    return 0


def _say(found: Sequence[msgspec.Struct], lines: Sequence[str], *, json: bool) -> None:
    text = msgspec.json.encode(found).decode() if json else "\n".join(lines) or "none"
    sys.stdout.write(text + "\n")
