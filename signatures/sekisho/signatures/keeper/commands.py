"""`sekisho signatures status|update|import`: the channel as a person at the box meets it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.desk import ask
from sekisho.appliance.core.errors import DeviceFault, RejectedInput, SekishoError
from sekisho.appliance.core.settings import Settings, load
from sekisho.signatures.keeper import counter, status

TURN_S: Final = 120.0
"""So long an import waits for its turn while another set is tried, proven or gone back from."""
ASK_S: Final = 1.0


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs."""
    shown = _verb(verbs, "status", "show what is in force, as the inspectors themselves say", _status)
    shown.add_argument("--json", action="store_true", help="print facts as JSON")
    update = _verb(verbs, "update", "ask the channel for a newer set", _update)
    update.add_argument("--now", action="store_true", help="also take a set that was refused or rolled back before")
    taken = _verb(verbs, "import", "take the set of a repository's copy, as from a USB stick", _import)
    taken.add_argument("directory", type=Path, help="where metadata/ and targets/ are")
    taken.add_argument(
        "--confirm-old",
        action="store_true",
        help="you vouch that nothing newer exists: take it though its signatures' time is over (it is logged)",
    )


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    func: Callable[[Settings, argparse.Namespace], int],
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text)
    verb.add_argument("--settings", type=Path, default=Path("/etc/sekisho/box.toml"), help="box settings (TOML)")

    def run(args: argparse.Namespace) -> int:
        try:
            return func(load(args.settings), args)
        except SekishoError as err:
            sys.stderr.write(f"{err}\n")
            return 2 if isinstance(err, RejectedInput) else 3

    verb.set_defaults(func=run)
    return verb


def _status(settings: Settings, args: argparse.Namespace) -> int:
    """0: both inspectors prove the set that should be in force; 1: something is wrong, and it is said what."""
    found = status.look(settings)
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n" if args.json else status.table(found))
    return 1 if found.wrong else 0


def _update(settings: Settings, args: argparse.Namespace) -> int:
    sys.stdout.write(f"{_ask(settings, counter.Update(now=args.now)).said}\n")
    return 0


def _import(settings: Settings, args: argparse.Namespace) -> int:
    """Who stands there with a stick need not come back because another set is on its way."""
    question = counter.Import(str(args.directory.absolute()), confirm_old=args.confirm_old)
    until, told = time.monotonic() + TURN_S, ""
    while isinstance(answer := _ask(settings, question), counter.Busy):
        if time.monotonic() > until:
            raise RejectedInput(answer.said, "Try again in some minutes.")
        if answer.said != told and sys.stderr.isatty():
            sys.stderr.write(f"{answer.said} This one waits for its turn.\n")
        told = answer.said
        time.sleep(ASK_S)
    sys.stdout.write(f"{answer.said}\n")
    return 0


def _ask(settings: Settings, question: counter.Update | counter.Import) -> counter.Taken | counter.Busy:
    socket = counter.socket_of(settings)
    if not socket.exists():
        raise DeviceFault("The signatures daemon does not run.", "Start it: systemctl start sekisho-signatures")
    frames = list(ask(socket, msgspec.json.encode(question)))
    return msgspec.json.decode(frames[0], type=counter.Taken | counter.Busy)
