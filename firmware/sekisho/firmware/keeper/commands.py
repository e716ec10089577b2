"""`sekisho firmware status|stage|activate|postpone|cancel`: the box's own software, for a person at the box."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from sekisho.appliance.core import desk as desks
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.settings import Settings, load
from sekisho.firmware.keeper import desk
from sekisho.firmware.keeper.desk import Shown, Way
from sekisho.firmware.keeper.journal import Choice
from sekisho.firmware.reboot import desk as restarts

BY = "command"


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs."""
    _verb(verbs, "status", "show what runs, what waits, and how the last one ended", lambda _: desk.Status())
    _verb(verbs, "refresh", "ask the channel what is newest", lambda _: desk.Refresh())
    stage = _verb(verbs, "stage", "fetch a release and have it ready; nothing in use changes", _stage)
    stage.add_argument("counter", type=int, nargs="?", default=0, help="its number; absent: the newest")
    stage.add_argument("--again", action="store_true", help="also one that was tried here and went back")
    activate = _verb(verbs, "activate", "use the release that is ready", _activate)
    activate.add_argument("counter", type=int, help="its number")
    when = activate.add_mutually_exclusive_group()
    when.add_argument("--at", type=_time, default=0.0, metavar="TIME", help="not before, e.g. 2026-12-01T03:00")
    when.add_argument("--window", action="store_true", help="in the weekly window of the portal's settings")
    postpone = _verb(verbs, "postpone", "ask again later", _postpone)
    postpone.add_argument("counter", type=int, help="its number")
    postpone.add_argument("until", type=_time, metavar="TIME", help="e.g. 2026-12-01T09:00")
    restart = verbs.add_parser("restart", help="the restart that the centre's people ask for: show it, say when, or no")
    restart.add_argument("--settings", type=Path, default=Path("/etc/sekisho/box.toml"), help="box settings (TOML)")
    restart.add_argument("--json", action="store_true", help="print facts as JSON")
    word = restart.add_mutually_exclusive_group()
    word.add_argument("--now", action="store_true")
    word.add_argument("--at", type=_time, default=0.0, metavar="TIME", help="not before, e.g. 2026-12-01T03:00")
    word.add_argument("--window", action="store_true", help="in the weekly window of the portal's settings")
    word.add_argument("--no", action="store_true", help="it is not to restart")
    restart.set_defaults(func=_restart)
    cancel = _verb(verbs, "cancel", "give it up", lambda args: desk.Cancel(args.counter, BY))
    cancel.add_argument("counter", type=int, help="its number")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    question: Callable[[argparse.Namespace], desk.Question],
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text)
    verb.add_argument("--settings", type=Path, default=Path("/etc/sekisho/box.toml"), help="box settings (TOML)")
    verb.add_argument("--json", action="store_true", help="print facts as JSON")

    def run(args: argparse.Namespace) -> int:
        found = ask(load(args.settings), question(args))
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n" if args.json else table(found))
        return 0

    verb.set_defaults(func=run)
    return verb


def _stage(args: argparse.Namespace) -> desk.Question:
    return desk.Stage(counter=args.counter, by=BY, again=args.again)


def _activate(args: argparse.Namespace) -> desk.Question:
    return desk.Activate(counter=args.counter, by=BY, at=args.at, window=args.window)


def _postpone(args: argparse.Namespace) -> desk.Question:
    return desk.Postpone(args.counter, args.until, BY)


def _restart(args: argparse.Namespace) -> int:
    """1 where no restart waits."""
    path = restarts.socket_of(load(args.settings))
    found = _told(path, restarts.Show())
    if found.wanted is not None and (args.now or args.at or args.window):
        found = _told(path, restarts.Choose(found.wanted.job, BY, at=args.at, window=args.window))
    elif found.wanted is not None and args.no:
        found = _told(path, restarts.Refuse(found.wanted.job, BY))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n" if args.json else _waits(found))
    return 0 if found.wanted is not None or args.no else 1


def _told(path: Path, question: restarts.Question) -> restarts.Shown:
    for frame in desks.ask(path, msgspec.json.encode(question)):
        return msgspec.json.decode(frame, type=restarts.Shown)
    raise RejectedInput("The firmware daemon said nothing.")


def _when(choice: Choice) -> str:
    return "in the weekly window" if choice.window else _at(choice.at) if choice.at else "now"


def _waits(found: restarts.Shown) -> str:
    wanted = found.wanted
    rows = [("restart", f"{wanted.state}: {wanted.job} {wanted.reason}".rstrip() if wanted else "none is asked for")]
    expected = f"about {found.expected_s:.0f} s, by the last {found.measured}" if found.measured else "not measured yet"
    rows.append(("", f"traffic is interrupted: {expected}"))
    if wanted and wanted.choice:
        rows.append(("chosen", f"by {wanted.choice.by}, {_when(wanted.choice)}"))
    rows += [("last", f"{one.job}: {one.state} {one.why} {one.at}") for one in found.over[:1]]
    return "".join(f"{name:<10}{value}\n" for name, value in rows)


def ask(settings: Settings, question: desk.Question) -> Shown:
    """The daemon's answer.

    Raises:
        DeviceFault: it does not run. RejectedInput: it refuses. PeerError: its answer was cut short.

    """
    if not settings.firmware_socket.exists():
        raise DeviceFault("The firmware daemon does not run.", "Start it: systemctl start sekisho-firmware")
    for frame in desks.ask(settings.firmware_socket, msgspec.json.encode(question)):
        return msgspec.json.decode(frame, type=Shown)
    raise RejectedInput("The firmware daemon said nothing.")


def table(found: Shown) -> str:
    """For people."""
    running = found.running
    rows = [
        ("in use", f"release {running.counter} {running.version}".rstrip() if running.counter else "as it came"),
        ("where", " ".join(filter(None, (running.place.release, running.place.slot))) or "the system's own programs"),
        ("before", f"release {found.previous.counter}, kept" if found.previous.counter else "none is kept"),
        ("channel", f"newest is {found.newest} {found.newest_version}".rstrip() if found.newest else "nothing newer"),
        *_way(found.way, found.window_at),
    ]
    if found.grace_until > time.time():
        rows.append(("", f"the system before is kept untouched until {_at(found.grace_until)}"))
    if found.last is not None:
        last = found.last
        why = f" ({last.why}) {last.detail}".rstrip() if last.why else ""
        rows.append(("last", f"release {last.counter}: {last.state}, {last.at}{why}"))
    rows += [("refused", f"release {counter}: {why}") for counter, why in sorted(found.refused.items())[-3:]]
    if found.said:
        rows.append(("", found.said))
    return "".join(f"{name:<10}{value}\n" for name, value in rows)


def _way(way: Way | None, window_at: float) -> list[tuple[str, str]]:
    if way is None:
        return []
    name = f"release {way.counter} {way.version}".rstrip() if way.counter else "the newest release"
    rows = [("on its way", f"{name}: {way.state}" + (f" ({way.why})" if way.why else ""))]
    if way.tier == 1:
        rows.append(("", "traffic goes on while it is changed"))
    elif way.tier:
        expected = f"{way.expected_s:.0f} s, by the last {way.measured}" if way.expected_s else "not measured here yet"
        rows.append(("", f"traffic is interrupted: {expected}"))
    if way.chosen_by:
        when = "in the weekly window" if way.chosen_window else _at(way.chosen_at) if way.chosen_at else "now"
        rows.append(("chosen", f"{when}, by {way.chosen_by}"))
        if way.chosen_window and window_at:
            rows.append(("", f"which opens {_at(window_at)}"))
    elif way.state == "staged":
        rows.append(("waits", f"`sekisho firmware activate {way.counter}`, the page, the portal, or the button"))
    if way.deadline:
        rows.append(("deadline", f"{_at(way.deadline)}; nothing restarts for it"))
    return rows


def _at(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def _time(text: str) -> float:
    """Local time, ISO 8601."""
    try:
        return dt.datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r} is no time like 2026-12-01T03:00") from err
