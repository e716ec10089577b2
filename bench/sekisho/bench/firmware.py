"""What it costs the office that the box changes its programs: packets, and seconds without inspection.

A lab of its own, whose box runs from two releases in turn; a second one with the large public rules, where they are.
Beside each figure stands what the same change costs by other means, taken in the same minutes: the engine ended and
started again, and the whole box.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault, PeerError
from sekisho.appliance.core.settings import load
from sekisho.appliance.status import Status, try_read
from sekisho.bench.figures import Figure, percentile
from sekisho.firmware.switch import switch
from sekisho.lab import releases, sets
from sekisho.lab.lab import Lab
from sekisho.lab.load import Load
from sekisho.lab.sets import CANARY_RULE
from sekisho.lab.switching import Supervised

SWITCHES: Final = 20
RENEWALS: Final = 20
NAMES: Final = ("1-00000000aaaa", "2-00000000bbbb")
LARGE: Final = 5
"""Renewals with the large rules."""
PINGS: Final = 500
"""A second."""
SETTLES_S: Final = 2.0
UP_WITHIN_S: Final = 180.0
BACK_WITHIN_S: Final = 120.0


def firmware(say: Callable[[str], None], *, quick: bool = False, name: str = "bench-fw") -> list[Figure]:
    """Everything. `quick`: two of each in place of twenty.

    Raises:
        SekishoError: a lab did not come up, or a change did not come about.

    """
    figures = _one(say, CANARY_RULE.encode(), 2 if quick else RENEWALS, 2 if quick else SWITCHES, name)
    real = sets.real()
    if real is not None:
        rules = real["rules/public.rules"] + CANARY_RULE.encode()
        say("a box with the large public rules")
        large = _one(say, rules, 2 if quick else LARGE, 2, f"{name}-l")
        many = f"{sum(line[:1].isalpha() for line in rules.splitlines()):,} rules: "
        figures += [msgspec.structs.replace(each, name=f"{each.name}_20k", what=many + each.what) for each in large]
    return figures


def _one(say: Callable[[str], None], rules: bytes, renewals: int, switches: int, name: str) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="sekisho-bench-") as folder, Lab(name) as lab:
        root = Path(folder)
        (root / "rules").mkdir()
        (root / "rules" / "bench.rules").write_bytes(rules)
        engine = shutil.which("suricata")
        if engine is None:
            raise DeviceFault("There is no Suricata on this machine.")
        both = [releases.make(root, each, engine=Path(engine)) for each in NAMES]
        link = root / "venv"
        link.symlink_to(both[0] / "venv")
        where = {"rules_dir": str(root / "rules")}
        lab.up({"firmware": {"link": str(link), "releases": folder}, "signatures": where}, timeout_s=UP_WITHIN_S)
        say("the engine renewed")
        figures = _renewals(lab, renewals)
        say("the engine restarted by hand")
        figures.append(_by_hand(lab))
        say("all programs switched")
        figures += _switches(lab, both, switches)
        say("the whole box restarted")
        return [*figures, _whole(lab)]


def _status(lab: Lab) -> Status:
    found = try_read(load(lab.lay.box_settings))
    if found is None:
        raise PeerError("The box does not say how it is.")
    return found


def _away(lab: Lab) -> tuple[float, float]:
    """Seconds so far without the engine, and without the gate."""
    now, at = _status(lab), time.monotonic()
    return now.engine_bypass.seconds(at), now.gate_bypass.seconds(at)


def _renewals(lab: Lab, count: int) -> list[Figure]:
    before, took = _away(lab)[0], []
    with Load(lab) as work:
        for _ in range(count):
            began, done = time.monotonic(), _status(lab).engine.renewals
            os.kill(_status(lab).pid, signal.SIGUSR1)
            lab.wait(lambda: _status(lab).engine.renewals > done, "the engine is not renewed", BACK_WITHIN_S)  # noqa: B023
            took.append(time.monotonic() - began)
            if why := _status(lab).engine.renewal:
                raise DeviceFault(why)
        went = work.end()
    detail = {"packets": float(went.packets), "renewals": float(count), "seconds each, p99": percentile(took, 99)}
    return [
        Figure("renew_lost", f"packets lost in {count} renewals of the engine", went.lost, "", 0, "at most", detail),
        Figure(
            "renew_leaked", "canaries and malicious files that came through", went.leaked, "", 0, "at most",
            {"canaries sent": went.canary.sent, "malicious files asked for": went.bad.sent},
        ),
        Figure("renew_away", "seconds without an engine, in all", _away(lab)[0] - before, "s", 0, "at most"),
        Figure("renew_delay", "worst delay of a packet meanwhile", went.worst_ms, "ms", 0, "report"),
    ]  # fmt: skip


def _by_hand(lab: Lab) -> Figure:
    before, pid = _away(lab)[0], _status(lab).engine.pid
    with Load(lab) as work:
        os.kill(pid, signal.SIGTERM)
        lab.wait(lambda: _status(lab).engine.pid not in (0, pid) and lab.inspecting(), "no engine", BACK_WITHIN_S)
        went = work.end()
    detail = {"packets lost": float(went.lost), "canaries that came through": float(went.canary.got)}
    away = _away(lab)[0] - before
    return Figure("hand_away", "the same by hand (end, start): seconds without it", away, "s", 0, "report", detail)


def _whole(lab: Lab) -> Figure:
    """The other anchor: what a restart of the machine does to the programs; its own boot comes on top."""
    names = [one.name for one in lab.status() if one.place == "box"]
    down = [str(Path(sys.executable).with_name("sekisho")), "box", "down", "--settings", str(lab.lay.box_settings)]
    with Load(lab, pings=PINGS) as work, ThreadPoolExecutor(len(names)) as all_at_once:
        began = time.monotonic()
        list(all_at_once.map(lab.stop, names))
        lab.run("box", down, check=True)
        for each in names:
            lab.start(each)
        lab.wait_ready(BACK_WITHIN_S)
        lab.wait(lab.inspecting, "the box does not inspect again", BACK_WITHIN_S)
        took = time.monotonic() - began
        time.sleep(SETTLES_S)
        went = work.end()
    lost = went.out.sent - went.out.got
    detail = {"packets lost": float(went.lost), "seconds until all inspects again": took,
              "canaries that came through": float(went.canary.got), "malicious files": float(went.bad.got)}  # fmt: skip
    text = "anchor: all programs and the bridge, without the machine's boot: seconds without a line"
    return Figure("whole", text, lost / PINGS, "s", 0, "report", detail)


def _switches(lab: Lab, both: list[Path], count: int) -> list[Figure]:
    settings, took = load(lab.lay.box_settings), []
    engine, gate = _away(lab)
    with Load(lab) as work:
        for number in range(count):
            began = time.monotonic()
            switch(both[(number + 1) % 2], settings, Supervised(lab))
            took.append(time.monotonic() - began)
        went = work.end()
    now = _away(lab)
    detail = {"packets": float(went.packets), "seconds each, p99": percentile(took, 99)}
    return [
        Figure("switch_lost", f"packets lost in {count} switches of all programs", went.lost, "", 0, "at most", detail),
        Figure(
            "switch_leaked", "canaries that came through", went.canary.got, "", 0, "at most",
            {"canaries sent": went.canary.sent},
        ),
        Figure("switch_engine", "seconds without an engine, in all", now[0] - engine, "s", 0, "at most"),
        Figure(
            "switch_gate", "seconds without the gate, each", (now[1] - gate) / count, "s", 0, "report",
            {"malicious files that passed": went.bad.got, "of": went.bad.sent},
        ),
    ]  # fmt: skip
