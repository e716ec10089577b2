"""`sekisho firmware build|publish|operators`: the centre's side of releases."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from pathlib import Path
from typing import Final, get_args

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.jobs import Kind, Operator, Operators
from sekisho.firmware.build import press, publishing
from sekisho.firmware.build.bundle import Terms
from sekisho.firmware.build.press import Order
from sekisho.firmware.content import Machine
from sekisho.signatures.depot import adopting
from sekisho.signatures.depot.ceremony import Made
from sekisho.signatures.depot.commands import common, hand_over, ring_of, tree_of
from sekisho.signatures.depot.files import read

_KEY_CAP: Final = 4096
_LIST_CAP: Final = 256 << 10
_DAY_S: Final = 86_400


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the centre's verbs to the `firmware` group."""
    verb = verbs.add_parser("build", help="make a release from a commit, the same bytes each time (centre)")
    verb.add_argument("--machine", choices=get_args(Machine), required=True, help="the boxes' processor")
    verb.add_argument("--counter", type=int, required=True, help="above that of every release before")
    verb.add_argument("--version", required=True, help="for people: 1.4.0")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="where bundle and release.json are put")
    verb.add_argument("--source", type=Path, default=Path(), help="the repository (default: here)")
    verb.add_argument("--commit", default="HEAD", help="of it (default: HEAD)")
    verb.add_argument("--hardware", default="", help="name of the hardware, where releases are its own")
    verb.add_argument("--python", default="3.11", help="the boxes' (default: 3.11)")
    verb.add_argument("--engine", action="store_true", help="with Suricata, as this machine's apt has it")
    verb.add_argument("--from-counter", type=int, default=0, help="boxes below take an earlier release first")
    verb.add_argument("--urgent", action="store_true", help="it closes a hole")
    verb.add_argument("--notes", type=Path, help="TOML with ja and en: what is new, for the customer")
    verb.add_argument("--cache", type=Path, help="directory that keeps what is fetched")
    verb.set_defaults(func=_build)
    verb = verbs.add_parser("publish", help="sign a built release with two offline keys (centre)")
    verb.add_argument("release", type=Path, metavar="DIR", help="directory that `firmware build` made")
    verb.add_argument("--out", type=Path, help="do not put it in force here; directory for `repository adopt`")
    common(verb, keys=True)
    verb.set_defaults(func=_publish)
    group = verbs.add_parser("operators", help="who may sign jobs (centre)").add_subparsers(dest="act", required=True)
    act = group.add_parser("list", help="who may, as published")
    act.add_argument("--json", action="store_true", help="print facts as JSON")
    common(act, keys=False)
    act.set_defaults(func=_list)
    act = group.add_parser("add", help="put somebody into a list that is published later")
    act.add_argument("--list", type=Path, required=True, metavar="FILE", help="begun from what is published")
    act.add_argument("--key", type=Path, required=True, metavar="FILE", help="what `center jobs key new` printed")
    act.add_argument("--kinds", required=True, help="of jobs, separated by commas; all: every kind")
    act.add_argument("--days", type=int, default=365, help="for how long (default: 365)")
    common(act, keys=False)
    act.set_defaults(func=_add)
    act = group.add_parser("publish", help="sign a list with two offline keys")
    act.add_argument("list", type=Path, metavar="FILE", help="operators.json")
    act.add_argument("--out", type=Path, help="do not put it in force here; directory for `repository adopt`")
    common(act, keys=True)
    act.set_defaults(func=_publish_operators)


def _build(args: argparse.Namespace) -> int:
    import tomllib

    notes: dict[str, str] = {}
    if args.notes:
        try:
            notes = msgspec.convert(tomllib.loads(read(args.notes, 16 << 10).decode()), dict[str, str])
        except (ValueError, msgspec.ValidationError) as err:
            raise RejectedInput(f"{args.notes} cannot be read: {err}.") from err
    order = Order(
        machine=args.machine,
        counter=args.counter,
        version=args.version,
        hardware=args.hardware,
        python=args.python,
        engine=args.engine,
        terms=Terms(
            from_counter=args.from_counter,
            urgent=args.urgent,
            notes_ja=notes.get("ja", ""),
            notes_en=notes.get("en", ""),
        ),
    )
    made = press.build(args.source, order, args.out, args.cache, args.commit)
    sys.stdout.write(
        f"Release {made.counter} ({made.version}) for {made.hardware}: {args.out / Path(made.path).name}\n"
        f"{made.length} bytes, SHA-256 {made.sha256}; {made.unpacked >> 20} MB on a box"
        f"{f', with Suricata {made.engine}' if made.engine else ''}.\n"
    )
    return 0


def _publish(args: argparse.Namespace) -> int:
    now = _now()
    tree, ring = tree_of(args), ring_of(args)
    found, made = publishing.release(tree, ring, args.release, now, args.clock_is_right)
    _use(args, made, now)
    if not args.out:
        sys.stdout.write(f"Release {found.counter} ({found.version}) for {found.hardware} is in force.\n")
    return 0


def _list(args: argparse.Namespace) -> int:
    found = publishing.operators(tree_of(args))
    if args.json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return 0
    for one in found.operators:
        until = dt.datetime.fromtimestamp(one.until, dt.UTC).date()
        sys.stdout.write(f"{one.name:<20} {one.person:<20} until {until}  {' '.join(one.kinds)}\n")
    if not found.operators:
        sys.stdout.write("Nobody may sign jobs yet.\n")
    return 0


def _add(args: argparse.Namespace) -> int:
    known = _read(args.list) if args.list.exists() else publishing.operators(tree_of(args))
    kinds = list(get_args(Kind)) if args.kinds == "all" else args.kinds.split(",")
    try:
        told = msgspec.json.decode(read(args.key, _KEY_CAP), type=dict[str, str])
        one = msgspec.convert({**told, "kinds": kinds, "until": _until(args.days)}, Operator)
    except msgspec.MsgspecError as err:
        raise RejectedInput(
            f"This cannot be an operator: {err}.", "Make the key: sekisho center jobs key new --out KEY --name NAME"
        ) from err
    wanted = publishing.with_operator(known, one)
    args.list.write_bytes(msgspec.json.format(msgspec.json.encode(wanted), indent=1) + b"\n")
    sys.stdout.write(f"{one.name} is in {args.list}; to sign it: sekisho firmware operators publish {args.list}\n")
    return 0


def _publish_operators(args: argparse.Namespace) -> int:
    now = _now()
    tree, ring = tree_of(args), ring_of(args)
    wanted = _read(args.list)
    publishing.publish_operators(tree, ring, wanted, now, lambda made: _use(args, made, now), args.clock_is_right)
    if not args.out:
        sys.stdout.write(f"{len(wanted.operators)} keys may sign jobs now.\n")
    return 0


def _use(args: argparse.Namespace, made: Made, now: dt.datetime) -> None:
    if args.out:
        hand_over(made, args.out)
    else:
        adopting.adopt(tree_of(args), ring_of(args), made, now, clock_is_right=args.clock_is_right)


def _read(path: Path) -> Operators:
    try:
        return msgspec.json.decode(read(path, _LIST_CAP), type=Operators)
    except msgspec.DecodeError as err:
        raise RejectedInput(f"{path} is no list of operators: {err}.") from err


def _until(days: int) -> int:
    return int(_now().timestamp()) + days * _DAY_S


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
