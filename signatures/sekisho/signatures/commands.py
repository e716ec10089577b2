"""`sekisho signatures check|apply` and what its rooms add: the rule sets as a person at the box meets them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault, SekishoError
from sekisho.appliance.core.settings import Settings, load
from sekisho.signatures import compiler
from sekisho.signatures.depot import commands as depot_commands
from sekisho.signatures.keeper import commands as keeper_commands
from sekisho.signatures.model import SetInfo
from sekisho.signatures.press import commands as press_commands
from sekisho.signatures.trust import client


def register(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `signatures` group."""
    group = sub.add_parser("signatures", help="rule sets: prove, put in force, show")
    verbs = group.add_subparsers(dest="verb", required=True)
    for name, help_text, func in (
        ("check", "prove the configured rules and change nothing", compiler.check),
        ("apply", "prove the configured rules and put them in force", compiler.apply),
    ):
        verb = verbs.add_parser(name, help=help_text)
        verb.add_argument("--settings", type=Path, default=Path("/etc/sekisho/box.toml"), help="box settings (TOML)")
        verb.add_argument("--json", action="store_true", help="print facts as JSON")
        verb.set_defaults(func=_guarded(func))
    press_commands.register(verbs)
    depot_commands.register(verbs)
    client.register(verbs)
    keeper_commands.register(verbs)


def _guarded(func: Callable[[Settings], SetInfo]) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        try:
            info = func(load(args.settings))
        except SekishoError as err:
            sys.stderr.write(f"{err}\n")
            return 3 if isinstance(err, DeviceFault) else 2
        sys.stdout.write(_json(info) if args.json else _table(info))
        return 0

    return run


def _json(info: SetInfo) -> str:
    return msgspec.json.encode(info).decode() + "\n"


def _table(info: SetInfo) -> str:
    rows = [
        ("set", info.id[:16]),
        ("built", info.built_at),
        ("Suricata rules", str(info.suricata_rules)),
        ("YARA rules", str(info.yara_rules)),
        ("left out", str(info.refused_total)),
        ("where", info.path or "(not installed)"),
    ]
    rows += [("", f"{rule.where} sid {rule.sid}: {rule.why}") for rule in info.refused[:20]]
    return "".join(f"{name:<16}{value}\n" for name, value in rows)
