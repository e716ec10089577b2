"""`sekisho lab …`: bring a lab up, look at it, work in it, remove it."""

from __future__ import annotations

import argparse
import os
import sys

import msgspec

from sekisho.appliance.core.errors import PeerError
from sekisho.lab import demo, people, rollouts
from sekisho.lab.lab import Lab
from sekisho.lab.layout import PLACES
from sekisho.lab.program import Running


def register(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the group `lab` to the program."""
    group = sub.add_parser("lab", help="an office, its box, the internet and the centre in network namespaces")
    does = group.add_subparsers(required=True, metavar="WHAT")
    up = _action(does, "up", "build it and start everything")
    up.add_argument("--bare", action="store_true", help="a plain bridge instead of the product")
    up.add_argument(
        "--firmware", action="store_true", help="with portal, releases, jobs and rollouts; for `lab release`"
    )
    up.add_argument("--stopped", action="append", default=[], metavar="PROGRAM", help="leave this one for `lab start`")
    up.set_defaults(func=_up)
    _action(does, "down", "remove it without a trace").set_defaults(func=_down)
    _action(does, "status", "what runs").set_defaults(func=_status)
    for name, func in (("start", _start), ("stop", _stop)):
        one = _action(does, name, f"{name} one of its programs")
        one.add_argument("program")
        one.set_defaults(func=func)
    shown = _action(does, "demo", "play every scene on real traffic and show it")
    shown.add_argument("--once", action="store_true", help="end by itself; exit code 0 when all was as promised")
    shown.set_defaults(func=_demo)
    release = _action(does, "release", "make a release of this tree, sign it and roll it out to the lab's box")
    release.add_argument("counter", type=int, help="above that of every release before")
    what = release.add_mutually_exclusive_group()
    what.add_argument("--broken", action="store_true", help="one whose telemetry does not start")
    what.add_argument("--restarts", action="store_true", help="one of the whole system: the customer says when")
    release.set_defaults(func=_release)
    inside = _action(does, "exec", "run a command in one of its namespaces")
    inside.add_argument("place", choices=PLACES)
    inside.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND …")
    inside.set_defaults(func=_exec)


def _action(does: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str) -> argparse.ArgumentParser:
    parser = does.add_parser(name, help=text)
    parser.add_argument("--name", default="sk", help="which lab (default: sk)")
    parser.add_argument("--json", action="store_true", help="print facts as JSON")
    return parser


def _up(options: argparse.Namespace) -> int:
    lab = Lab(options.name)
    if not lab.is_up():
        lab.up(with_product=not options.bare, firmware=options.firmware, stopped=options.stopped)
        if options.firmware:
            access = people.move_in(lab)
            people.enrol(lab)
            print(f"{access.url}/ {access.login} {access.password}", file=sys.stderr)
    return _status(options)


def _release(options: argparse.Namespace) -> int:
    lab = Lab(options.name)
    lab.status()
    operations, version = rollouts.Operations(lab), f"{options.counter}.0"
    operations.appoint()
    operations.on_the_box("refresh")
    if options.restarts:
        lab.channel.image(options.counter, version)
    else:
        operations.release(options.counter, version, rollouts.BROKEN if options.broken else None)
    started = operations.roll_out(options.counter)
    print(started)
    if not options.json:
        print(f"sekisho center rollout status {started} --store {lab.lay.center_store}", file=sys.stderr)
        print(f"sekisho firmware status --settings {lab.lay.box_settings}", file=sys.stderr)
    return 0


def _down(options: argparse.Namespace) -> int:
    Lab(options.name).down()
    return 0


def _start(options: argparse.Namespace) -> int:
    lab = Lab(options.name)
    lab.start(options.program)
    lab.wait_ready()
    return _status(options)


def _stop(options: argparse.Namespace) -> int:
    Lab(options.name).stop(options.program)
    return _status(options)


def _status(options: argparse.Namespace) -> int:
    """0 when everything that is wanted is ready, 1 when not, or when there is no such lab."""
    try:
        running = Lab(options.name).status()
    except PeerError as err:
        print("[]" if options.json else err)
        return 1
    if options.json:
        print(msgspec.json.encode(running).decode())
    else:
        _table(running)
    return 0 if all(program.state in ("ready", "stopped") for program in running) else 1


def _table(running: list[Running]) -> None:
    print(f"{'PROGRAM':<12} {'PLACE':<8} {'STATE':<10} {'PID':>8} {'STARTS':>6}")
    for program in running:
        print(f"{program.name:<12} {program.place:<8} {program.state:<10} {program.pid:>8} {program.starts:>6}")


def _demo(options: argparse.Namespace) -> int:
    return demo.run(options.name, once=options.once)


def _exec(options: argparse.Namespace) -> int:
    lab = Lab(options.name)
    argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not argv:
        print("sekisho lab exec: which command?", file=sys.stderr)
        return 2
    lab.status()
    command = lab.inside(options.place, argv)
    os.execvpe(command[0], command, lab.env())  # noqa: S606 - the owner's own command, on purpose
