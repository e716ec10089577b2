"""`sekisho center rules ...`: what is switched off for all boxes, which set is the newest, what is usual."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core.errors import DeviceFault, RejectedInput, SekishoError
from sekisho.appliance.core.fsio import write_atomic
from sekisho.center.database import Database
from sekisho.center.rules import switching, usual
from sekisho.center.settings import DEFAULT_STORE


def register(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `rules` to the `center` group."""
    commands = group.add_parser("rules", help="switch a rule off for all boxes; announce a set").add_subparsers(
        required=True, metavar="COMMAND"
    )
    off = commands.add_parser("off", help="all boxes stop using a rule, within seconds")
    on = commands.add_parser("on", help="all boxes use it again")
    for parser, func in ((off, _off), (on, _on)):
        parser.add_argument("rule", help="a Suricata rule's number, or a YARA rule's name")
        parser.set_defaults(func=func)
    off.add_argument("--why", required=True, help="what the record says about it")
    show = commands.add_parser("list", help="what is switched off, by whom and why")
    show.add_argument("--json", action="store_true")
    show.set_defaults(func=_list)
    announce = commands.add_parser("announce", help="tell all boxes that a set was published")
    announce.add_argument("--number", type=int, required=True)
    announce.set_defaults(func=_announce)
    baseline = commands.add_parser("baseline", help="how often rules speak per box and day, for the next set")
    baseline.add_argument("--out", required=True, help="file to write")
    baseline.add_argument(
        "--days", type=int, default=usual.DAYS, help=f"whole days before today, 1 to {usual.MAX_DAYS}"
    )
    baseline.set_defaults(func=_baseline)
    for parser in (off, on, show, announce, baseline):
        parser.add_argument("--store", default=DEFAULT_STORE, help="path, or postgresql://...")


def _off(args: argparse.Namespace) -> int:
    def act(database: Database) -> None:
        with database.transaction() as db:
            kind, rule = switching.named(args.rule)
            if switching.off(db, args.rule, getpass.getuser(), args.why):
                _note(db, "rule.off", f"{kind} {rule}: {args.why}")

    return _act(args, act)


def _on(args: argparse.Namespace) -> int:
    def act(database: Database) -> None:
        with database.transaction() as db:
            kind, rule = switching.named(args.rule)
            if not switching.on(db, args.rule):
                raise RejectedInput(f"{args.rule} is not switched off.")
            _note(db, "rule.on", f"{kind} {rule}")

    return _act(args, act)


def _note(db: sa.Connection, action: str, about: str) -> None:
    from sekisho.center.portal import audit  # the portal's framework: no other command waits for it

    audit.AUDIT.create(db, checkfirst=True)  # a centre whose portal never ran
    audit.note_machine(db, getpass.getuser(), action, about)


def _announce(args: argparse.Namespace) -> int:
    def act(database: Database) -> None:
        with database.transaction() as db:
            switching.announce(db, args.number)

    return _act(args, act)


def _list(args: argparse.Namespace) -> int:
    def act(database: Database) -> None:
        with database.reading() as db:
            rules = switching.listed(db)
        for one in rules:
            line = f"{one.kind:<4}  {one.rule:<40}  {one.at[:19]}  {one.by:<16}  "
            line += f"{'sent' if one.sent else 'waiting'}  {one.why}"
            sys.stdout.write((msgspec.json.encode(one).decode() if args.json else line) + "\n")

    return _act(args, act)


def _baseline(args: argparse.Namespace) -> int:
    def act(database: Database) -> None:
        if not 1 <= args.days <= usual.MAX_DAYS:
            raise RejectedInput(f"Counts are kept for {usual.MAX_DAYS} whole days: --days 1 to {usual.MAX_DAYS}.")
        with database.reading() as db:
            found = usual.count(db, dt.datetime.now(dt.UTC).date(), args.days)
        try:
            write_atomic(Path(args.out), msgspec.json.encode(found) + b"\n", 0o644)
        except OSError as err:
            raise DeviceFault(f"Cannot write {args.out}: {err.strerror}.") from err
        sys.stdout.write(f"{found.boxes} boxes, {len(found.sids)} rules, {len(found.yara)} YARA rules: {args.out}\n")

    return _act(args, act)


def _act(args: argparse.Namespace, act: Callable[[Database], None]) -> int:
    try:
        if not Path(args.store).exists() and not args.store.startswith("postgresql:"):
            raise DeviceFault(f"There is no store at {args.store}.")
        act(Database(args.store))
    except SekishoError as err:
        sys.stderr.write(f"{err}\n")
        return 2 if isinstance(err, RejectedInput) else 3
    return 0
