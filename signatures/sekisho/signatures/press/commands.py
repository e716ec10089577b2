"""`sekisho signatures build|diff`: the build side as a person at the centre meets it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault, SekishoError
from sekisho.signatures.press import build, diff, recipe, stored

BASELINE_CAP = 16 << 20
_SHOWN = 20


def register(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to the `signatures` group."""
    verb = verbs.add_parser("build", help="build the next set at the centre")
    verb.add_argument("--recipe", type=Path, required=True, help="what the set is made of (TOML)")
    verb.add_argument("--out", type=Path, required=True, help="directory of sets; the new one is OUT/NUMBER")
    verb.add_argument(
        "--previous", type=Path, help="sets, or the one set or archive, before it (default: those in OUT)"
    )
    verb.add_argument("--baseline", type=Path, help="how often rules speak in the fleet (JSON)")
    verb.add_argument("--json", action="store_true", help="print facts as JSON")
    verb.set_defaults(func=_guarded(_build))
    verb = verbs.add_parser("diff", help="show what two sets differ in")
    verb.add_argument("old", type=Path, help="a set's directory, or its archive (tar or tar.zst)")
    verb.add_argument("new", type=Path)
    verb.add_argument("--json", action="store_true", help="print facts as JSON")
    verb.set_defaults(func=_guarded(_diff))


def _guarded(run: Callable[[argparse.Namespace], str]) -> Callable[[argparse.Namespace], int]:
    def guarded(args: argparse.Namespace) -> int:
        try:
            sys.stdout.write(run(args))
        except SekishoError as err:
            sys.stderr.write(f"{err}\n")
            return 3 if isinstance(err, DeviceFault) else 2
        return 0

    return guarded


def _build(args: argparse.Namespace) -> str:
    baseline = stored.read_capped(args.baseline, BASELINE_CAP) if args.baseline else None
    result = build.build(recipe.load(args.recipe), args.out, args.previous, baseline)
    return _json(result) if args.json else _table(result)


def _diff(args: argparse.Namespace) -> str:
    old, new = stored.read(args.old), stored.read(args.new)
    with tempfile.TemporaryDirectory(prefix="sekisho-diff-") as work:
        found = diff.difference(old.archive, new.archive, Path(work))
    return _json(found) if args.json else diff.table(found)


def _json(facts: msgspec.Struct) -> str:
    return msgspec.json.encode(facts).decode() + "\n"


def _table(result: build.Result) -> str:
    deltas = ", ".join(f"{size} bytes from {base}" for base, size in result.deltas.items())
    rows = [
        ("set", str(result.number) if result.number else "nothing is new; no set was made"),
        ("where", result.directory),
        ("Suricata rules", f"{result.rules}, of which {result.drops} drop; {result.new_drops} of them newly"),
        ("YARA rules", str(result.yara)),
        ("known files", str(result.hashes)),
        ("off", f"{result.off}; kept silenced for others: {len(result.helpers)}"),
        ("memory", f"{result.memory_mb} MB at rest, {result.peak_mb} MB at most; YARA {result.yara_mb} MB"),
        ("captures passed", str(result.captures)),
        ("archive", f"{result.length} bytes, {result.packed} compressed"),
        ("deltas", deltas or "none"),
    ]
    rows += [("left out to fit", group) for group in result.left_out]
    rows += [("left out", why) for why in result.yara_left_out[:_SHOWN]]
    rows += [("left out", f"{rule.where} sid {rule.sid}: {rule.why}") for rule in result.refused[:_SHOWN]]
    rows += [("policy", f"line {number} decides about no rule") for number in result.idle]
    if result.overstepping:
        sids = " ".join(str(sid) for sid in result.overstepping[:_SHOWN])
        rows.append(("off", f"{len(result.overstepping)} rules do more than judge packets: sid {sids}"))
    if result.deaf:
        rows.append(("cannot speak", f"{len(result.deaf)} rules wait for a mark nobody sets"))
    return "".join(f"{name:<16}{value}\n" for name, value in rows if value)
