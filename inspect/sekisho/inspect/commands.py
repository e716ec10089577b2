"""`sekisho quarantine ...`: what was stopped, and the owner's decision about it.

Reads and changes the entries directly; the daemon need not run, and may. Content is shown to nobody:
`release` writes it to a new file that only the caller may read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from sekisho.appliance.core import settings
from sekisho.appliance.core.errors import RejectedInput
from sekisho.inspect.kept import Entry
from sekisho.inspect.quarantine import Quarantine

DEFAULT_SETTINGS = Path("/etc/sekisho/box.toml")


class Listing(msgspec.Struct, frozen=True):
    """What is kept; `damaged` are entries that cannot be read any more."""

    entries: list[Entry]
    damaged: list[str]


def register(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `quarantine` group to the command line."""
    group = sub.add_parser("quarantine", help="files that were stopped").add_subparsers(
        required=True, metavar="COMMAND"
    )
    listing = group.add_parser("list", help="what is kept, oldest first")
    listing.set_defaults(func=_list)
    show = group.add_parser("show", help="all that is known about one entry")
    show.set_defaults(func=_show)
    release = group.add_parser("release", help="write an entry's content to a new file; the entry stays")
    release.add_argument("--to", type=Path, required=True, metavar="FILE", help="must not exist yet")
    release.add_argument("--reason", required=True, metavar="TEXT", help="why; noted in the entry")
    release.set_defaults(func=_release)
    purge = group.add_parser("purge", help="delete one entry, or all that are older than keep_days")
    purge.set_defaults(func=_purge)
    for parser in (show, release):
        parser.add_argument("id", metavar="ID")
    which = purge.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?", metavar="ID")
    which.add_argument("--expired", action="store_true", help="everything older than keep_days")
    for parser in (listing, show, release, purge):
        parser.add_argument("--settings", type=Path, default=DEFAULT_SETTINGS, metavar="FILE")
        parser.add_argument("--json", action="store_true", help="print facts as JSON")


def _open(args: argparse.Namespace) -> Quarantine:
    config = settings.load(args.settings)
    kept = config.quarantine
    return Quarantine(config.quarantine_dir, max_bytes=kept.max_mb << 20, keep_days=kept.keep_days, writer=False)


def _list(args: argparse.Namespace) -> int:
    quarantine = _open(args)
    found = Listing(quarantine.entries(), quarantine.damaged())
    if args.json:
        _say(msgspec.json.encode(found).decode())
        return 1 if found.damaged else 0
    if found.entries:
        _say(f"{'id':<29}{'bytes':>11}  {'file':<28} {'rules':<28} from -> to")
    for entry in found.entries:
        rules = ",".join(entry.rules)
        line = f"{entry.id:<29}{entry.size:>11}  {_plain(entry.file_name):<28} {_plain(rules):<28} "
        _say(f"{line}{entry.src} -> {entry.dst}{'  released' if entry.released else ''}")
    for ident in found.damaged:
        _say(f"{ident:<29}  damaged: it cannot be read any more")
    if not found.entries and not found.damaged:
        _say("Nothing is in quarantine. 隔離されたファイルはありません。")
    return 1 if found.damaged else 0


def _show(args: argparse.Namespace) -> int:
    entry = _open(args).show(args.id)
    if args.json:
        _say(msgspec.json.encode(entry).decode())
        return 0
    for name, value in msgspec.structs.asdict(entry).items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        _say(f"{name:<10} {_plain(text)}".rstrip())
    return 0


def _release(args: argparse.Namespace) -> int:
    reason = args.reason.strip()
    if not reason:
        raise RejectedInput("A release needs a reason.", "Say why with --reason.")
    entry = _open(args).release(args.id, args.to, reason)
    if args.json:
        _say(msgspec.json.encode(entry).decode())
    else:
        _say(f"{entry.id} was written to {args.to}. It is malicious by {', '.join(entry.rules)}: handle with care.")
    return 0


def _purge(args: argparse.Namespace) -> int:
    gone = _open(args).purge(None if args.expired else args.id)
    _say(msgspec.json.encode({"purged": gone}).decode() if args.json else "\n".join([*gone, f"{len(gone)} deleted."]))
    return 0


def _plain(text: str) -> str:
    """Names come from strangers: nothing in them may steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
