"""`sekisho center immunity ...`: what the fleet stops, and an operator's last word on it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault, RejectedInput, SekishoError
from sekisho.center.database import Database
from sekisho.center.immunity.judge import next_number
from sekisho.center.immunity.tables import FLEET_FILE
from sekisho.center.settings import DEFAULT_STORE

_SHA256 = re.compile(r"[0-9a-f]{64}")
PAGE = 1000


class Listed(msgspec.Struct, frozen=True):
    """One file of the list, or one that was."""

    sha256: str
    state: str
    box: str
    tenant: str
    rules: msgspec.Raw
    at: str
    why: str


def register(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `immunity` to the `center` group."""
    commands = group.add_parser("immunity", help="files that one box found and all boxes stop").add_subparsers(
        required=True, metavar="COMMAND"
    )
    show = commands.add_parser("list", help="the newest files, and who found them first")
    show.add_argument("--json", action="store_true")
    show.set_defaults(func=_list)
    remove = commands.add_parser("remove", help="let a file pass again on every box; it does not come back")
    add = commands.add_parser("add", help="have every box stop a file")
    for parser, func in ((remove, _remove), (add, _add)):
        parser.add_argument("sha256")
        parser.add_argument("--why", required=True, help="what the record says about it")
        parser.set_defaults(func=func)
    for parser in (show, remove, add):
        parser.add_argument("--store", default=DEFAULT_STORE, help="path, or postgresql://...")


def withdraw(database: Database, sha256: str, why: str) -> None:
    """A file passes again on every box, now and whenever one finds it once more.

    Raises:
        RejectedInput: that is no SHA-256.
        DeviceFault: the database refused.

    """
    _say_once(database, sha256, "withdrawn", why)


def enlist(database: Database, sha256: str, why: str) -> None:
    """Every box stops a file, also one that was withdrawn.

    Raises:
        RejectedInput: that is no SHA-256.
        DeviceFault: the database refused.

    """
    _say_once(database, sha256, "listed", why)


def _say_once(database: Database, sha256: str, state: str, why: str) -> None:
    if not _SHA256.fullmatch(sha256):
        raise RejectedInput(f"{sha256!r} is no SHA-256: 64 digits from 0 to 9 and a to f.")
    with database.transaction() as db:
        known = db.execute(sa.select(FLEET_FILE.c.state).where(FLEET_FILE.c.sha256 == sha256)).scalar()
        if known == state:
            return
        values = {"state": state, "n": next_number(db), "why": why[:200]}
        if known is None:
            first = {"sha256": sha256, "box": "", "tenant": "", "rules": "[]", "at": utc.now()}
            db.execute(FLEET_FILE.insert().values(**first, **values))
        else:
            db.execute(FLEET_FILE.update().where(FLEET_FILE.c.sha256 == sha256).values(**values))


def _list(args: argparse.Namespace) -> int:
    columns = [FLEET_FILE.c[name] for name in Listed.__struct_fields__]
    try:
        with Database(args.store, read_only=True).reading() as db:
            rows = db.execute(sa.select(*columns).order_by(FLEET_FILE.c.n.desc()).limit(PAGE)).all()
    except DeviceFault as err:
        return _fail(err)
    files = [Listed(**{**row._mapping, "rules": msgspec.Raw(row.rules.encode())}) for row in rows]
    for file in files:
        line = f"{file.sha256}  {file.state:<9}  {file.at[:19]}  {file.box or 'operator':<12}  {file.why}"
        sys.stdout.write((msgspec.json.encode(file).decode() if args.json else line) + "\n")
    return 0


def _remove(args: argparse.Namespace) -> int:
    return _act(args, withdraw)


def _add(args: argparse.Namespace) -> int:
    return _act(args, enlist)


def _act(args: argparse.Namespace, act: Callable[[Database, str, str], None]) -> int:
    try:
        if not Path(args.store).exists() and not args.store.startswith("postgresql:"):
            raise DeviceFault(f"There is no store at {args.store}.")
        act(Database(args.store), args.sha256, args.why)
    except SekishoError as err:
        return _fail(err)
    return 0


def _fail(err: SekishoError) -> int:
    sys.stderr.write(f"{err}\n")
    return 2 if isinstance(err, RejectedInput) else 3
