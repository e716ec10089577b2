"""`sekisho box …`: the owner's view of the box and the switches for its kernel state."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from sekisho.appliance import (
    berth,
    bridge,
    covering,
    doorway,
    express,
    isolation,
    meter,
    netfilter,
    portrait,
    preflight,
    status,
)
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.settings import DEFAULTS, load
from sekisho.appliance.leading import Lead
from sekisho.appliance.process import EngineProcess
from sekisho.appliance.reload import reload, renew

DEFAULT_SETTINGS: Final = Path("/etc/sekisho/box.toml")


def register(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `box` group."""
    box = sub.add_parser("box", help="the box itself: bridge, packet rules, inspection engine")
    verbs = box.add_subparsers(dest="verb", required=True)
    table = (
        ("enrol", _enrol, "join a monitoring centre with a one-time code"),
        ("check", _check, "are the settings valid and the machine fit?"),
        ("up", _up, "build the bridge and load the packet rules"),
        ("run", _run, "run the box's daemon in the foreground"),
        ("down", _down, "remove rules and bridge, restore what was found"),
        ("status", _status, "is traffic inspected now?"),
        ("devices", _devices, "who is in the office's network?"),
        ("coverage", _coverage, "which share of each device's bytes was looked at?"),
        ("jobs", _jobs, "what the centre's operators asked of this box, who signed it, what became of it"),
        ("isolate", _isolate, "cut a device off at once, for a time"),
        ("release", _release, "end what `isolate` began"),
        ("reload", _reload, "load the current rule set live and prove it"),
        ("renew", _renew, "put another engine in the place of the one that works, while packets pass"),
        ("defaults", _defaults, "print the commented settings file"),
    )
    for verb, func, text in table:
        parser = verbs.add_parser(verb, help=text)
        parser.add_argument("--settings", type=Path, default=DEFAULT_SETTINGS, metavar="FILE")
        parser.add_argument("--json", action="store_true", help="print facts as JSON")
        if verb == "check":
            parser.add_argument("--settings-only", action="store_true", help="do not look at the machine")
        if verb == "enrol":
            parser.add_argument(
                "--centre", required=True, metavar="URL", help="https://name of the centre's web service"
            )
            parser.add_argument("--code", default="", help="the enrolment code; asked for when absent")
        if verb == "renew":
            parser.add_argument(
                "--restart",
                action="store_true",
                help="restart it where there is no memory for two; inspects nothing then",
            )
        if verb in ("isolate", "release"):
            parser.add_argument("mac", metavar="MAC", help="the device's hardware address")
        if verb == "isolate":
            parser.add_argument("--minutes", type=int, default=0, metavar="N", help="0 = until released (0)")
        if verb == "coverage":
            parser.add_argument("--hours", type=int, default=24, metavar="N", help="how far back, 1-48 (24)")
        if verb == "defaults":
            parser.add_argument("--box", default="my-box", help="the box's name")
        parser.set_defaults(func=func)


def _jobs(args: argparse.Namespace) -> int:
    from sekisho.portal_agent.jobs import shown

    found = shown.try_read(load(args.settings))
    if found is None:
        raise DeviceFault("The jobs daemon has not run since the box started.", "systemctl start sekisho-jobs")
    lines = [
        f"{one.id}  {one.at[:19]}  {one.kind:<20}{one.state}{f' ({one.why})' if one.why else ''}  {one.step}"
        f"  signed by {', '.join(one.signers)}{f'  chosen by {one.by}' if one.by else ''}"
        for one in found
    ]
    _say(args, found, lines or ["Nothing was asked. 依頼された作業はありません。"])
    return 0


def _say(args: argparse.Namespace, facts: Any, lines: list[str]) -> None:
    text = msgspec.json.encode(facts).decode() if args.json else "\n".join(lines)
    sys.stdout.write(text + "\n")


def _check(args: argparse.Namespace) -> int:
    settings = load(args.settings)
    problems = [] if args.settings_only else preflight.check(settings)
    facts = {"ok": not problems, "box": settings.box, "problems": problems}
    _say(args, facts, [p.text for p in problems] or [f"{settings.box}: ready. 準備ができています。"])
    return 3 if problems else 0


def _enrol(args: argparse.Namespace) -> int:
    from sekisho.telemetry.enrolment import box

    code = args.code
    if not code:
        sys.stderr.write("Enrolment code 登録コード: ")
        sys.stderr.flush()
        code = sys.stdin.readline(1000)
    grant = box.enrol(args.settings, args.centre, code)
    facts = {"ok": True, "box": grant.box, "tenant": grant.tenant, "brokers": grant.brokers}
    line = f"{grant.box} ({grant.tenant}): enrolled. 登録しました。 Restart: systemctl restart 'sekisho-*'"
    _say(args, facts, [line])
    return 0


def _up(args: argparse.Namespace) -> int:
    settings = load(args.settings)
    problems = preflight.check(settings)
    if not problems:
        bridge.up(settings)
        problems = [preflight.no_link(settings, name) for name in bridge.wait_for_link(settings)]
        if problems:
            bridge.down(settings)
        else:
            lead = Lead(settings)
            lead.find()
            lead.install()
            express.install(settings.bridge.lan, settings.bridge.wan)
    facts = {"ok": not problems, "bridge": settings.bridge.name, "problems": problems}
    ready = f"{settings.bridge.name}: {settings.bridge.lan} <-> {settings.bridge.wan} is up."
    _say(args, facts, [p.text for p in problems] or [ready])
    return 3 if problems else 0


def _run(args: argparse.Namespace) -> int:
    from sekisho.appliance import daemon

    return daemon.main(["--settings", str(args.settings)])


def _down(args: argparse.Namespace) -> int:
    settings = load(args.settings)
    now = status.try_read(settings)
    if now is not None and now.fresh and _alive(now.pid):
        raise RejectedInput("The box's daemon is running.", "Stop it first: systemctl stop sekisho-appliance.")
    for each in berth.both(settings):
        if (left := EngineProcess.try_adopt(each)) is not None:
            left.stop()
    doorway.remove(settings)
    express.remove()
    meter.remove()
    netfilter.remove()
    undone = bridge.down(settings)
    line = "The bridge is down; ports are as they were found." if undone else "There was no bridge of ours."
    _say(args, {"ok": True, "undone": undone}, [line])
    return 0


def _status(args: argparse.Namespace) -> int:
    settings = load(args.settings)
    now = status.try_read(settings)
    if now is None or not (now.fresh and _alive(now.pid)):
        line = "The box's daemon is not running: traffic is not watched. 見守りは停止しています。"
        _say(args, {"running": False, "status": now}, [line])
        return 1
    at = time.monotonic()
    parts = {"engine": now.engine_bypass, "gate": now.gate_bypass}
    seconds = {name: round(part.seconds(at), 1) for name, part in parts.items()}
    inspecting = not any(part.reason for part in parts.values())
    proven = now.engine.rules_loaded == now.engine.rules_expected and not now.engine.rules_failed
    facts = {
        "running": True, "inspecting": inspecting, "mode": now.mode, "fail_mode": now.fail_mode,
        "bypass_seconds": seconds, "bypass_now": {name: part.reason for name, part in parts.items()},
        "engine": now.engine, "queues": now.queues, "devices": now.devices, "pid": now.pid,
    }  # fmt: skip
    lines = [
        f"inspecting  {'yes' if inspecting else 'NO'} ({now.mode}, fail {now.fail_mode})",
        f"engine      {now.engine.phase}, {now.engine.rules_loaded} of {now.engine.rules_expected} rules, "
        f"{now.engine.starts} starts {now.engine.refused}".rstrip(),
        *(f"bypass      {name}: {seconds[name]} s in all {part.reason}".rstrip() for name, part in parts.items()),
        *(
            f"queue {number:<5} {q.waiting} waiting, {q.done} done, {q.dropped} dropped"
            for number, q in now.queues.items()
        ),
        f"devices     {now.devices}",
    ]
    _say(args, facts, lines)
    return 0 if inspecting and proven else 1


def _devices(args: argparse.Namespace) -> int:
    found = portrait.devices(load(args.settings))
    _say(args, found, portrait.device_lines(found))
    return 0


def _coverage(args: argparse.Namespace) -> int:
    settings = load(args.settings)
    told = portrait.coverage(settings, max(1, min(args.hours, covering.KEEP_HOURS)))
    _say(args, told, portrait.coverage_lines(told))
    return 0


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _isolate(args: argparse.Namespace) -> int:
    isolation.isolate(args.mac, max(0, args.minutes) * 60)
    until = f"for {args.minutes} minutes" if args.minutes > 0 else "until it is released"
    _say(args, {"ok": True, "mac": args.mac}, [f"{args.mac} talks to nobody through the box {until}. 隔離しました。"])
    return 0


def _release(args: argparse.Namespace) -> int:
    isolation.release(args.mac)
    _say(args, {"ok": True, "mac": args.mac}, [f"{args.mac} is no longer cut off at once. 隔離を解除しました。"])
    return 0


def _reload(args: argparse.Namespace) -> int:
    engine = reload(load(args.settings))
    line = engine.refused or f"{engine.rules_loaded} rules are in force."
    _say(args, {"ok": not engine.refused, "engine": engine}, [line])
    return 1 if engine.refused else 0


def _renew(args: argparse.Namespace) -> int:
    engine = renew(load(args.settings), may_restart=args.restart)
    line = engine.renewal or f"Another engine inspects now: process {engine.pid}, {engine.binary}."
    _say(args, {"ok": not engine.renewal, "engine": engine}, [line])
    return 1 if engine.renewal else 0


def _defaults(args: argparse.Namespace) -> int:
    sys.stdout.write(DEFAULTS.format(box=args.box))
    return 0
