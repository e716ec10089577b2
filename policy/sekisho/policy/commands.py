"""`sekisho policy …`: prove a policy, put it in force, see what it says and how often it was used."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings, load
from sekisho.appliance.reload import reload
from sekisho.policy import build, categories, ordered, overlay, source
from sekisho.policy.applications import table
from sekisho.policy.model import Policy
from sekisho.policy.overlay import laid_over
from sekisho.telemetry.spool_view import SpoolView

DEFAULT_SETTINGS: Final = Path("/etc/sekisho/box.toml")


def register(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `policy` group."""
    group = sub.add_parser("policy", help="what the office allows and refuses")
    verbs = group.add_subparsers(dest="verb", required=True)
    for verb, func, text in (
        ("check", _check, "prove a policy and its lists; changes nothing"),
        ("apply", _apply, "put a policy in force without interrupting anything"),
        ("show", _show, "the policy in the file, or what it can name"),
        ("hits", _hits, "how often each entry and exception was used"),
        ("defaults", _defaults, "print the commented policy file"),
    ):
        parser = verbs.add_parser(verb, help=text)
        parser.add_argument("--settings", type=Path, default=DEFAULT_SETTINGS, metavar="FILE")
        parser.add_argument("--json", action="store_true", help="print facts as JSON")
        if verb in ("check", "apply"):
            parser.add_argument("file", type=Path, nargs="?", help="another policy file than the settings name")
        if verb == "show":
            parser.add_argument("--categories", action="store_true", help="the categories a policy can name")
            parser.add_argument("--applications", action="store_true", help="the applications a policy can name")
        parser.set_defaults(func=func)


def _say(args: argparse.Namespace, facts: Any, lines: list[str]) -> None:
    sys.stdout.write((msgspec.json.encode(facts).decode() if args.json else "\n".join(lines)) + "\n")


def _proven(settings: Settings, file: Path) -> dict[str, int]:
    made = build.plan(file, settings.policies)
    found = categories.collect(made.policy, file.parent)
    every = [*found.values(), *made.guards.values()]
    return {
        "rules": len(made.compiled.book.lines),
        "lists": len(made.compiled.sets.content),
        "domains": sum(len(names.domains) for names in every),
        "urls": sum(len(names.urls) for names in every),
        "addresses": sum(len(names.addresses) for names in every),
        "unused_lines": sum(names.unused for names in every),
    }


def _check(args: argparse.Namespace) -> int:
    settings = load(args.settings)
    file = args.file or Path(settings.policy.file)
    counts = _proven(settings, file)
    words = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in counts.items())
    _say(args, {"ok": True, "file": str(file), **counts}, [f"{file}: {words}. 確認しました。"])
    return 0


def _apply(args: argparse.Namespace) -> int:
    settings = load(args.settings)
    file = Path(settings.policy.file)
    counts = _proven(settings, args.file or file)
    if args.file is not None and args.file.resolve() != file.resolve():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, args.file.read_bytes(), 0o644)
        except OSError as err:
            raise DeviceFault(f"{file} cannot be written: {err.strerror}.") from err
        _proven(settings, file)
    engine = reload(settings)
    line = engine.refused or f"The policy is in force: {counts['rules']} rules. 反映しました。"
    _say(args, {"ok": not engine.refused, "engine": engine, **counts}, [line])
    return 1 if engine.refused else 0


def _show(args: argparse.Namespace) -> int:
    if args.categories:
        titles = categories.titles()
        _say(args, titles, [f"{name:16} {title.ja} / {title.en}" for name, title in titles.items()])
    elif args.applications:
        known = list(table().values())
        _say(args, known, [f"{one.id:16} {one.ja} / {one.en}" for one in known])
    else:
        own, both = _both(load(args.settings))
        _say(args, both, _lines(both, own))
    return 0


def _both(settings: Settings) -> tuple[Policy, Policy]:
    """The box's own policy, and the same with what the customer decided at the centre."""
    own = source.load(Path(settings.policy.file))
    orders = ordered.received(settings)
    return own, laid_over(own, overlay.parse(bytes(orders.policy)))[0] if orders else own


def _lines(policy: Policy, own: Policy) -> list[str]:
    """A line for each entry; those of the centre say so."""
    lines = []
    for kind in ("web_guard", "url_category", "keyword", "application", "firewall", "isolation"):
        for entry in getattr(policy, kind):
            what = getattr(entry, "name", "") or ", ".join(
                getattr(entry, "categories", ()) or getattr(entry, "applications", ())
            )
            whom = ", ".join(entry.groups) or "everybody"
            lines.append(f"{kind:13} {entry.action:6} {what}  ({whom}; {entry.schedule or 'always'})")
            lines[-1] += "" if entry in getattr(own, kind) else "  (centre センター)"
    for exemption in policy.exception:
        what = exemption.function or f"signatures {', '.join(map(str, exemption.sids))}"
        lines.append(f"{'exception':13} {exemption.id}: {what} {exemption.entry}  {exemption.reason}")
        lines[-1] += f"  (until {exemption.expires:%Y-%m-%d %H:%M})" if exemption.expires else ""
        lines[-1] += "" if exemption in own.exception else "  (centre センター)"
    return lines or ["The policy is empty: nothing is refused. ポリシーは空です。"]


def _hits(args: argparse.Namespace) -> int:
    """The entries that were never used are listed too: an exception nobody uses can go."""
    settings = load(args.settings)
    used = SpoolView(settings.spool).hits()
    seen = {hit.exception for hit in used}
    unused = [one.id for one in _both(settings)[1].exception if one.id not in seen]
    lines = [
        f"{hit.count:8} {hit.last[:19]}  {hit.function or 'signature'} {hit.entry} {hit.action}"
        + (f" (exception {hit.exception})" if hit.exception else "")
        for hit in used
    ]
    lines += [f"{0:8} {'never':19}  exception {name}" for name in unused]
    _say(args, {"hits": used, "unused_exceptions": unused}, lines or ["Nothing was refused or reported so far."])
    return 0


def _defaults(args: argparse.Namespace) -> int:
    sys.stdout.write((categories.SHIPPED / "policy.toml").read_text())
    return 0
