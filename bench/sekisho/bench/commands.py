"""`sekisho bench`: measure, print a table or JSON, keep `artifacts/bench.json`; 1 when a figure missed its bound."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.bench import center, figures, firmware, portal, run, signatures
from sekisho.lab import sets

PUBLIC_RULES = Path("../shared/data/rules/et-open-2020-04.rules.xz")


def register(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `bench` group."""
    parser = sub.add_parser("bench", help="measure the promised figures in the lab (root)")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    names = [*run.MEASUREMENTS, *run.WITHOUT_LAB]
    parser.add_argument("--only", action="append", default=[], choices=names, help="just this one")
    parser.add_argument("--rules", type=Path, help=f"Suricata rules, also .xz (default: {PUBLIC_RULES} if present)")
    parser.add_argument("--name", default="bench", help="prefix of the labs' names")
    parser.add_argument("--out", type=Path, default=Path("artifacts/bench.json"), help="where the JSON is kept")
    parser.set_defaults(func=_bench)
    more = parser.add_subparsers(metavar="")
    centre = more.add_parser("center", help="a monitoring centre under thousands of simulated boxes")
    centre.add_argument("--json", action="store_true", help="print JSON in place of the table")
    centre.add_argument("--quick", action="store_true", help="a tenth of the boxes, a minute in all")
    centre.add_argument("--out", type=Path, default=Path("artifacts/bench-center.json"), help="where the JSON is kept")
    centre.set_defaults(func=_center)
    pages = more.add_parser("portal", help="the portal's pages over a million stored events")
    pages.add_argument("--json", action="store_true", help="print JSON in place of the table")
    pages.add_argument("--quick", action="store_true", help="a twentieth of the events")
    pages.add_argument("--big", action="store_true", help="a second time with ten million")
    pages.add_argument("--out", type=Path, default=Path("artifacts/bench-portal.json"), help="where the JSON is kept")
    pages.set_defaults(func=_portal)
    rules = more.add_parser("signatures", help="what a change of rules costs the office")
    rules.add_argument("--json", action="store_true", help="print JSON in place of the table")
    rules.add_argument("--quick", action="store_true", help="six updates in place of a hundred")
    out = Path("artifacts/bench-signatures.json")
    rules.add_argument("--out", type=Path, default=out, help="where the JSON is kept")
    rules.set_defaults(func=_signatures)
    programs = more.add_parser("firmware", help="what a change of the box's programs costs the office")
    programs.add_argument("--json", action="store_true", help="print JSON in place of the table")
    programs.add_argument("--quick", action="store_true", help="two of each in place of twenty")
    out = Path("artifacts/bench-firmware.json")
    programs.add_argument("--out", type=Path, default=out, help="where the JSON is kept")
    programs.set_defaults(func=_firmware)


def _bench(args: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise DeviceFault("The benches need root, for network namespaces.")
    rules: Path | None = args.rules or (PUBLIC_RULES if PUBLIC_RULES.exists() else None)
    return _tell(run.run(args.name, rules, args.only, _say), args)


def _center(args: argparse.Namespace) -> int:
    return _tell(center.measure(_say, quick=args.quick), args)


def _portal(args: argparse.Namespace) -> int:
    return _tell(portal.measure(_say, quick=args.quick, big=args.big), args)


def _signatures(args: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise DeviceFault("The benches need root, for network namespaces.")
    figures_found = signatures.signatures(_say, quick=args.quick)
    notes = [] if sets.real_load() else ["The large public rule sets are not here: nothing was measured with them."]
    return _tell(run.report(figures_found, notes), args)


def _firmware(args: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise DeviceFault("The benches need root, for network namespaces.")
    figures_found = firmware.firmware(_say, quick=args.quick)
    notes = [] if sets.real_load() else ["The large public rules are not here: nothing was measured with them."]
    return _tell(run.report(figures_found, notes), args)


def _tell(report: figures.Report, args: argparse.Namespace) -> int:
    run.write(report, args.out)
    print(msgspec.json.encode(report).decode() if args.json else figures.table(report))
    return 0 if report.held else 1


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
