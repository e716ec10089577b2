"""`sekisho center enrol-code|certificates|attempts|revoke|authority`: the operator's side of the device CA."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from sekisho.center import pki, settings
from sekisho.center.ca import coding, history, revoking, times
from sekisho.center.database import Database

DEFAULT_SETTINGS: Final = Path("/etc/sekisho-center/center.toml")
_SECONDS: Final = {"m": 60, "h": 3600, "d": 86400}
_COLUMNS: Final = "{0.serial:<12.12}  {0.box:<16} {0.tenant:<12} {0.state:<8} {0.not_after:.10}  {0.how} {0.by:.16}"
_ATTEMPT: Final = "{0.at}  {0.source:<16} {0.how:<8} {0.box:<16} {0.outcome}"


class Code(msgspec.Struct, frozen=True):
    """What `enrol-code` made; shown once, kept nowhere."""

    code: str
    box: str
    tenant: str
    expires_at: str


def register(group: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the device CA's commands to the `center` group."""
    code = group.add_parser("enrol-code", help="a one-time code with which one box joins 登録コード")
    code.add_argument("--box", required=True)
    code.add_argument("--tenant", required=True)
    code.add_argument("--valid", type=_span, default=_span("7d"), metavar="SPAN", help="30m, 12h, 7d (7d)")
    code.set_defaults(func=_code)
    found = group.add_parser("certificates", help="which certificates were given, renewed, revoked")
    found.add_argument("--box", default="")
    found.add_argument("--tenant", default="")
    found.add_argument("--serial", default="", help="or its beginning")
    found.add_argument("--revoked", action="store_true")
    found.add_argument("--expiring", type=_span, metavar="SPAN", help="ending within, and not renewed yet: 30d")
    found.set_defaults(func=_certificates)
    tried = group.add_parser("attempts", help="who asked for a certificate, and what came of it")
    tried.add_argument("--box", default="")
    tried.set_defaults(func=_attempts)
    revoke = group.add_parser("revoke", help="take a box's certificates back and close its session 失効")
    revoke.add_argument("--box", required=True)
    revoke.add_argument("--why", required=True, metavar="REASON")
    revoke.set_defaults(func=_revoke)
    authority = group.add_parser("authority", help="make the CA, or a certificate for a service of the centre")
    authority.add_argument("--issue", default="", metavar="NAME", help="for this service; without it the CA is made")
    authority.add_argument("--host", action="append", default=[], help="a server's name or address; may be repeated")
    authority.add_argument("--node", action="store_true", help="for a node of a cluster: it also calls the others")
    authority.add_argument("--signs", choices=("lists", "orders"), help="for signing these, and nothing else")
    authority.set_defaults(func=_authority)
    for parser in (code, found, tried, revoke, authority):
        parser.add_argument("--settings", type=Path, default=DEFAULT_SETTINGS)
        parser.add_argument("--json", action="store_true")
    for parser in (found, tried):
        parser.add_argument("--limit", type=int, default=1000)


def _code(args: argparse.Namespace) -> int:
    config, now = settings.load(args.settings), times.now()
    ca, services = Path(config.broker.ca), config.services
    with Database(config.store).transaction() as db:
        code = coding.make(db, ca, args.box, args.tenant, _operator(), now, args.valid, services)
    made = Code(code.text, args.box, args.tenant, times.text(now + args.valid))
    if args.json:
        _say(msgspec.json.encode(made).decode())
    else:
        _say(f"{made.code}\nfor {made.box} of {made.tenant}, once, until {made.expires_at}")
    return 0


def _certificates(args: argparse.Namespace) -> int:
    now = times.now()
    by = now + args.expiring if args.expiring else None
    search = history.Search(args.box, args.tenant, args.serial, args.revoked, by)
    with Database(settings.load(args.settings).store, read_only=True).reading() as db:
        _list(args, history.certificates(db, search, now, args.limit), _COLUMNS)
    return 0


def _attempts(args: argparse.Namespace) -> int:
    with Database(settings.load(args.settings).store, read_only=True).reading() as db:
        _list(
            args,
            history.attempts(db, args.box, args.limit),
            "{0.at}  {0.source:<16} {0.how:<8} {0.box:<16} {0.outcome}",
        )
    return 0


def _revoke(args: argparse.Namespace) -> int:
    with Database(settings.load(args.settings).store).transaction() as db:
        count = revoking.revoke(db, args.box, _operator(), args.why[:500], times.now())
    facts = {"ok": True, "box": args.box, "certificates": count}
    _say(msgspec.json.encode(facts).decode() if args.json else f"{args.box}: {count} certificates revoked.")
    return 0


def _authority(args: argparse.Namespace) -> int:
    directory = Path(settings.load(args.settings).ca.directory)
    if args.issue:
        kind: pki.Kind = args.signs or ("node" if args.node else "server" if args.host else "client")
        made = pki.issue(directory, args.issue, kind, tuple(args.host))
        files = {"ca": str(made.ca), "cert": str(made.cert), "key": str(made.key)}
    else:
        files = {"ca": str(pki.create_ca(directory))}
    _say(msgspec.json.encode(files).decode() if args.json else "\n".join(f"{k}: {v}" for k, v in files.items()))
    return 0


def _list(args: argparse.Namespace, found: Iterable[object], form: str) -> None:
    for one in found:
        _say(msgspec.json.encode(one).decode() if args.json else form.format(one).rstrip())


def _span(text: str) -> dt.timedelta:
    found = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number and m, h or d")
    return dt.timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


def _operator() -> str:
    """Whom the history names: who became root, or who we are."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
