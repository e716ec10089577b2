"""`sekisho telemetry ...`: what waits on the box, and exactly what was sent (REQUIREMENTS B6)."""

from __future__ import annotations

import argparse
import datetime as dt
import re
import sys
import time
from contextlib import closing
from itertools import chain
from pathlib import Path

import msgspec

from sekisho.appliance.core import settings, utc
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.telemetry import aliases, fields, link, privacy_page
from sekisho.telemetry.link import LinkStatus
from sekisho.telemetry.spool_view import LaneStatus, SpoolView

DEFAULT_SETTINGS = Path("/etc/sekisho/box.toml")


class Status(msgspec.Struct, frozen=True):
    """The spool as it is now."""

    box: str
    epoch: str
    next_seq: int
    connected: bool
    link: LinkStatus
    """By which way, since when, and why the others were not taken."""
    lanes: list[LaneStatus]


def register(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `telemetry` group to the command line."""
    group = sub.add_parser("telemetry", help="what the box reports to the monitoring centre").add_subparsers(
        required=True, metavar="COMMAND"
    )
    status = group.add_parser("status", help="what waits to be sent")
    status.set_defaults(func=_status)
    sent = group.add_parser("sent", help="everything that left the box, exactly as it was sent")
    sent.add_argument("--since", type=_moment, default=0.0, metavar="TIME", help="2h, 3d or RFC 3339; default: all")
    sent.add_argument("--limit", type=int, metavar="N", help="of what the centre has received, only the newest")
    sent.set_defaults(func=_sent)
    whois = group.add_parser("whois", help="which device a pseudonym stands for (mask_internal)")
    whois.add_argument("pseudonym", help="ip-…, mac-… or dev-… as the centre shows it")
    whois.set_defaults(func=_whois)
    listed = group.add_parser("fields", help="every field that may leave the box, and what it means")
    listed.add_argument("--markdown", action="store_true", help="as the page docs/privacy.md")
    listed.add_argument("--json", action="store_true")
    listed.set_defaults(func=_fields)
    for parser in (status, sent, whois):
        parser.add_argument("--settings", type=Path, default=DEFAULT_SETTINGS)
        parser.add_argument("--json", action="store_true")


def _status(args: argparse.Namespace) -> int:
    try:
        config = settings.load(args.settings)
        with closing(SpoolView(config.spool)) as spool:
            known = link.read(config.link_status)
            status = Status(config.box, spool.epoch(), spool.next_seq(), spool.connected(), known, spool.waiting())
    except (RejectedInput, DeviceFault) as err:
        return _fail(err)
    if args.json:
        _say(msgspec.json.encode(status).decode())
        return 0
    _say(f"box {status.box}   epoch {status.epoch}   next event {status.next_seq}")
    _say(_connection(status))
    for trial in status.link.tried:
        _say(f"  tried {trial.way}: {trial.reason} (since {trial.since})")
    _say(f"{'lane':<6}{'waiting':>9}{'bytes':>12}  oldest")
    for lane in status.lanes:
        _say(f"{lane.lane:<6}{lane.rows:>9}{lane.bytes:>12}  {lane.oldest or '-'}")
    return 0


def _connection(status: Status) -> str:
    if not status.connected:
        return "NOT connected to the centre: events are kept"
    by = f" by {status.link.way}" if status.link.way else ""
    silent = "" if status.link.answered else "; it has NOT ANSWERED yet: events are kept"
    return f"connected to the centre{by}{silent}"


def _sent(args: argparse.Namespace) -> int:
    """Births and wills first, then what the centre has acknowledged, then what is published and under way."""
    since = utc.of_unix(args.since)
    try:
        with closing(SpoolView(settings.load(args.settings).spool)) as spool:
            for said in spool.said(since):
                line = f"{said.topic:>10}  {said.at}  {bytes(said.message).decode()}"
                _say(msgspec.json.encode(said).decode() if args.json else line)
            limit = None if args.limit is None else max(0, args.limit)
            for row in chain(spool.sent(limit, int(args.since)), spool.under_way()):
                line = f"{row.seq:>10}  {bytes(row.event).decode()}" + ("" if row.acknowledged else "  (under way)")
                _say(msgspec.json.encode(row).decode() if args.json else line)
    except (RejectedInput, DeviceFault) as err:
        return _fail(err)
    return 0


def _moment(text: str) -> float:
    """Unix seconds of "2h", "3d", "90m" ago, or of a time as RFC 3339 writes it (without zone: UTC)."""
    if span := re.fullmatch(r"([0-9]{1,6})([smhdw])", text):
        return max(0.0, time.time() - int(span[1]) * _UNITS[span[2]])
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a span (2h, 3d) nor a time (RFC 3339)") from err
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp())


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _fields(args: argparse.Namespace) -> int:
    if args.markdown:
        sys.stdout.write(privacy_page.page())
        return 0
    for field in fields.every():
        _say(
            msgspec.json.encode(field).decode() if args.json else f"{field.type}.{field.name:<24} {field.ja} {field.en}"
        )
    return 0


def _whois(args: argparse.Namespace) -> int:
    try:
        plain = aliases.whois(settings.load(args.settings).aliases, args.pseudonym)
    except (RejectedInput, DeviceFault) as err:
        return _fail(err)
    if args.json:
        _say(msgspec.json.encode({"pseudonym": args.pseudonym, "plain": plain}).decode())
    else:
        _say(plain or f"{args.pseudonym} is no pseudonym of this box. この装置の仮名ではありません。")
    return 0 if plain else 1


def _fail(err: RejectedInput | DeviceFault) -> int:
    sys.stderr.write(f"{err}\n")
    return 2 if isinstance(err, RejectedInput) else 3


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
