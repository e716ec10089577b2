"""`sekisho center ...`: the events the centre has, what is missing, how each box is."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.center import account_commands, backup_commands, partner_commands, refused, tenant_commands
from sekisho.center.ca import commands as ca_commands
from sekisho.center.database import Database
from sekisho.center.immunity import commands as immunity_commands
from sekisho.center.jobs import commands as jobs_commands
from sekisho.center.notify import commands as notify_commands
from sekisho.center.refused import Aside, Refused
from sekisho.center.rollout import commands as rollout_commands
from sekisho.center.rules import commands as rules_commands
from sekisho.center.settings import DEFAULT_STORE
from sekisho.center.store import BoxState, Declared, Missing, Store, Stored, Stream
from sekisho.center.views.rebuild import rebuild

FOLLOW_S = 0.05
PAGE = 1000


class Gaps(msgspec.Struct, frozen=True):
    """Numbers that never came, and numbers a box declared dropped."""

    missing: list[Missing]
    declared: list[Declared]


class TypeCount(msgspec.Struct, frozen=True):
    box: str
    type: str
    count: int


class Status(msgspec.Struct, frozen=True):
    """The whole store in short."""

    boxes: list[BoxState]
    streams: list[Stream]
    counts: list[TypeCount]


class Refusals(msgspec.Struct, frozen=True):
    """What ingest did not take."""

    refused: list[Refused]
    aside: list[Aside]


class _Summary(msgspec.Struct):
    """The few fields of any event that fit in a line for people."""

    type: str
    at: str = ""
    outcome: str = ""
    action: str = ""
    signature: str = ""
    file_name: str = ""
    host: str = ""
    url: str = ""
    sni: str = ""
    name: str = ""
    rules: list[str] = []
    state: str = ""
    mac: str = ""


_summary = msgspec.json.Decoder(_Summary, strict=False).decode


def register(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `center` group to the command line."""
    group = sub.add_parser("center", help="the monitoring centre's store").add_subparsers(
        required=True, metavar="COMMAND"
    )
    events = group.add_parser("events", help="the events that arrived, in the order of their arrival")
    events.add_argument("--follow", action="store_true", help="keep waiting for more")
    events.add_argument("--box", default="", help="of this box only")
    events.add_argument("--since-id", type=int, default=0, help="after this store id")
    events.set_defaults(func=_events)
    gaps = group.add_parser("gaps", help="events that are missing; exit code 1 when there is any")
    gaps.set_defaults(func=_gaps)
    status = group.add_parser("status", help="boxes, streams and counts")
    status.set_defaults(func=_status)
    tenant_commands.register(group)
    backup_commands.register(group)
    ca_commands.register(group)
    immunity_commands.register(group)
    rules_commands.register(group)
    jobs_commands.register(group)
    rollout_commands.register(group)
    notify_commands.register(group)
    account_commands.register(group)
    partner_commands.register(group)
    refusals = group.add_parser("refused", help="what boxes sent and the centre did not take, by box, kind and day")
    refusals.set_defaults(func=_refused)
    views = group.add_parser("rebuild-views", help="make what the portal shows anew from the stored events")
    views.set_defaults(func=_rebuild)
    for parser in (events, gaps, status, refusals, views):
        parser.add_argument("--store", default=DEFAULT_STORE, help="path, or postgresql://...")
        parser.add_argument("--json", action="store_true")


def _events(args: argparse.Namespace) -> int:
    since = args.since_id
    try:
        store = Store(args.store, read_only=True)
        while True:
            page = store.events(since_id=since, box=args.box, limit=PAGE)
            for stored in page:
                since = stored.id
                _say(msgspec.json.encode(stored).decode() if args.json else _for_people(stored))
            sys.stdout.flush()
            if len(page) < PAGE and not args.follow:
                return 0
            if not page:
                time.sleep(FOLLOW_S)
    except DeviceFault as err:
        return _fail(err)
    except (KeyboardInterrupt, BrokenPipeError):
        return 0


def _gaps(args: argparse.Namespace) -> int:
    try:
        store = Store(args.store, read_only=True)
        gaps = Gaps(store.missing(), store.declared())
    except DeviceFault as err:
        return _fail(err)
    if args.json:
        _say(msgspec.json.encode(gaps).decode())
    else:
        _table("missing", [f"{m.box}  {m.epoch}  {m.first}-{m.last}" for m in gaps.missing])
        _table("declared dropped", [f"{d.box}  {d.epoch}  {d.first}-{d.last}" for d in gaps.declared])
    return 1 if gaps.missing else 0


def _status(args: argparse.Namespace) -> int:
    try:
        store = Store(args.store, read_only=True)
        status = Status(store.boxes(), store.streams(), [TypeCount(*row) for row in store.counts()])
    except DeviceFault as err:
        return _fail(err)
    if args.json:
        _say(msgspec.json.encode(status).decode())
        return 0
    _table("boxes", [f"{b.box}  {b.tenant}  {b.state}  since {b.changed_at}" for b in status.boxes])
    _table(
        "streams",
        [f"{s.box}  {s.epoch}  complete to {s.upto}  repeated {s.repeated}  last {s.last_at}" for s in status.streams],
    )
    _table("events", [f"{c.box}  {c.type:<9} {c.count}" for c in status.counts])
    return 0


def _refused(args: argparse.Namespace) -> int:
    try:
        store = Store(args.store, read_only=True)
        found = Refusals(*refused.shown(store.database))
    except DeviceFault as err:
        return _fail(err)
    if args.json:
        _say(msgspec.json.encode(found).decode())
        return 0
    _table("refused", [f"{r.day}  {r.box:<12} {r.kind:<7} {r.count:>6}  {r.reason}" for r in found.refused])
    _table("set aside", [f"{a.at}  {a.topic}  {a.size} bytes  {a.error}" for a in found.aside])
    return 0


def _rebuild(args: argparse.Namespace) -> int:
    def progress(done: int, last: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done} / {last}")

    try:
        number = rebuild(Database(args.store), progress)
    except DeviceFault as err:
        return _fail(err)
    _say(msgspec.json.encode({"events": number}).decode() if args.json else f"\r{number} events are in the views.")
    return 0


def _for_people(stored: Stored) -> str:
    event = _summary(stored.event)
    facts = (
        event.outcome or event.action,
        event.signature,
        ",".join(event.rules),
        event.file_name,
        event.host + event.url,
        event.sni,
        event.name,
        event.state,
        event.mac,
    )
    return f"{event.at}  {stored.box:<12} {event.type:<7} {'  '.join(fact for fact in facts if fact)}"


def _table(title: str, lines: Iterable[str]) -> None:
    rows = list(lines)
    _say(f"{title}: {len(rows) or 'none'}")
    for row in rows:
        _say(f"  {row}")


def _fail(err: DeviceFault) -> int:
    sys.stderr.write(f"{err}\n")
    return 3


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
