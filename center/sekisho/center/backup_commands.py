"""`sekisho center backup` and `sekisho center restore`."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import SekishoError
from sekisho.center import backup, restore, settings
from sekisho.center.settings import DEFAULT_STORE


def register(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `backup` and `restore` to the `center` group."""
    save = group.add_parser("backup", help="copy the database into a directory, check the copy, let old ones go")
    save.add_argument("directory", type=Path)
    save.add_argument("--keep", type=int, default=backup.KEEP, help="how many stay (%(default)s)")
    save.set_defaults(func=_backup)
    bring = group.add_parser("restore", help="bring a backup into an empty centre; stop the centre's daemons first")
    bring.add_argument("file", type=Path)
    bring.set_defaults(func=_restore)
    for parser in (save, bring):
        where = parser.add_mutually_exclusive_group()
        where.add_argument("--store", default=DEFAULT_STORE, help="the database: a file or postgresql://...")
        where.add_argument("--settings", type=Path, help="the centre's settings, which say where the database is")
        parser.add_argument("--json", action="store_true")


def _backup(args: argparse.Namespace) -> int:
    try:
        saved = backup.save(_store(args), args.directory, dt.datetime.now(dt.UTC), args.keep)
    except SekishoError as err:
        return _fail(err)
    _say(args, saved, f"{saved.path}: {saved.size} bytes, read again and sound; {len(saved.removed)} older ones gone")
    return 0


def _restore(args: argparse.Namespace) -> int:
    try:
        made = restore.restore(_store(args), args.file, dt.datetime.now(dt.UTC))
    except SekishoError as err:
        return _fail(err)
    _say(args, made, f"{made.events} events of {made.streams} streams are back; boxes will send what they still keep")
    return 0


def _store(args: argparse.Namespace) -> str:
    return str(settings.load(args.settings).store if args.settings else args.store)


def _say(args: argparse.Namespace, found: msgspec.Struct, text: str) -> None:
    sys.stdout.write((msgspec.json.encode(found).decode() if args.json else text) + "\n")


def _fail(err: SekishoError) -> int:
    sys.stderr.write(f"{err}\n")
    return 3
