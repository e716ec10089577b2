"""What a change of rules costs the office: packets, milliseconds, memory, bytes on the line, and time without rules.

A lab of its own. The figures of one part stand beside an anchor taken in the same minutes: the office at work with
nothing changing, and the same rules brought in by restarting an engine by hand.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sekisho.bench.arms import packaged_engine
from sekisho.bench.figures import Figure, percentile
from sekisho.lab import layout, sets, updates
from sekisho.lab.channel import Asked
from sekisho.lab.lab import Lab
from sekisho.lab.load import Load, Traffic
from sekisho.lab.memory import Watch, at_rest_mb
from sekisho.signatures.keeper import machine

UPDATES: Final = 100
POLLS: Final = round(86_400 / machine.EVERY_S) - 1
"""Looks of a day beside the one that finds the new set."""
SILENCES: Final = 5
DAYS: Final = 2
IDLE_S: Final = 20.0
UPDATE_WITHIN_S: Final = 60.0
REAL_WITHIN_S: Final = 180.0


def signatures(say: Callable[[str], None], *, quick: bool = False, name: str = "bench-sig") -> list[Figure]:
    """Everything. `quick`: six updates in place of a hundred, two silences in place of five.

    Raises:
        SekishoError: the lab did not come up, or an update did not come into force.

    """
    figures: list[Figure] = []
    real = sets.real()
    with Lab(name) as lab:
        lab.up({"signatures": {"soak_minutes": 0.0}}, channel=True)
        for number in (1, 2):  # twice: a new dropping rule that is as loud as the canary would be held back
            lab.channel.publish(number, sets.of_day(sets.small(), number, added=1))
            updates.ask(lab, "update")
            updates.wait_for(lab, number, UPDATE_WITHIN_S)
        say("the office at work, nothing changes")
        idle = _worked(lab, lambda: time.sleep(IDLE_S))
        count = 6 if quick else UPDATES
        say(f"{count} updates under load")
        figures += _changes(lab, idle, count)
        say("an engine that lost its rules")
        figures += _silence(lab, 2 if quick else SILENCES)
        if real is not None:
            say("the large public rules: made and signed")
            figures += _large(lab, real, count + 3, say)
            say("the same rules by a restart by hand")
            figures.append(_restart(f"{name}-hand", _rules_file(lab).read_bytes()))
    return figures


def _worked(lab: Lab, change: Callable[[], object]) -> Traffic:
    with Load(lab) as load:
        change()
        return load.end()


def _changes(lab: Lab, idle: Traffic, count: int) -> list[Figure]:
    """Each update is published, told to the box, and awaited until both inspectors proved it."""
    took: list[float] = []

    def all_of_them() -> None:
        for number in range(3, count + 3):
            lab.channel.publish(number, sets.of_day(sets.small(), number, changed=3, added=5, yara=number % 2))
            began = time.monotonic()
            updates.ask(lab, "update")
            updates.wait_for(lab, number, UPDATE_WITHIN_S)
            took.append(time.monotonic() - began)

    went = _worked(lab, all_of_them)
    detail = _detail(went) | {"updates": float(count), "seconds": went.seconds}
    return [
        Figure("updates_lost", f"packets lost in {count} updates under load", went.lost, "", 0, "at most", detail),
        Figure("updates_broken", "downloads that were cut or wrong", went.broken, "", 0, "at most"),
        Figure(
            "updates_leaked", "canaries and malicious files that came through", went.leaked, "", 0, "at most",
            {"canaries sent": went.canary.sent, "malicious files asked for": went.bad.sent},
        ),
        Figure(
            "updates_delay", "worst delay of a packet", went.worst_ms, "ms", 0, "report",
            {"while nothing changed": idle.worst_ms, "p99": _p99(went), "p99 while nothing changed": _p99(idle),
             "lost while nothing changed": idle.lost},
        ),
        Figure("updates_seconds", "a small set, asked for to proven, p99", percentile(took, 99), "s", 0, "report"),
    ]  # fmt: skip


def _p99(went: Traffic) -> float:
    return max(went.out.p99_ms, went.back.p99_ms, went.plain.p99_ms)


def _detail(went: Traffic) -> dict[str, float]:
    return {
        "pings sent": went.out.sent + went.back.sent,
        "datagrams sent": went.plain.sent,
        "downloads": went.files.sent,
    }


def _silence(lab: Lab, tries: int) -> list[Figure]:
    """Somebody empties the engine's rule files and has it load them: it answers OK and inspects nothing."""
    noticed, repaired, passed = [], [], 0
    for _ in range(tries):
        with Load(lab) as load:
            time.sleep(1.0)
            known = len(updates.told(lab, "silent")), len(updates.told(lab, "repaired"))
            began = updates.silence(lab)
            lab.wait(lambda: len(updates.told(lab, "silent")) > known[0], "the silent engine is not noticed", 30)  # noqa: B023
            noticed.append(time.monotonic() - began)
            lab.wait(lambda: len(updates.told(lab, "repaired")) > known[1], "the engine is not repaired", 60)  # noqa: B023
            repaired.append(time.monotonic() - began)
            passed += load.end().canary.got
    detail = {"tries": float(tries), "canaries passed meanwhile, in all": float(passed)}
    return [
        Figure("silent_noticed", "an engine without rules, until noticed", max(noticed), "s", 5, "at most", detail),
        Figure("silent_repaired", "the same, until it works again", max(repaired), "s", 30, "at most"),
    ]  # fmt: skip


def _rules_file(lab: Lab) -> Path:
    return updates.settings(lab).sets / "current" / "suricata.rules"


def _large(lab: Lab, real: sets.Files, number: int, say: Callable[[str], None]) -> list[Figure]:
    """The first set whole; those of the following days by their deltas, with the office at work."""
    ready: dict[int, float] = {}
    active: dict[int, float] = {}
    lab.channel.publish(number, real)
    day: dict[str, float] = {}
    with _wire(lab) as bytes_now:
        start = time.monotonic()
        whole = _taken(lab, number, ready, active, start)
        full_bytes = bytes_now()
    rest = at_rest_mb(lab)
    peak, lost = 0.0, 0
    files = real
    for step in range(1, DAYS + 1):
        say(f"day {step}: 27 rules changed, 56 more")
        files = sets.of_day(files, step, changed=27, added=56, yara=3)
        lab.channel.lay_out(number + step, files)
        with _wire(lab) as bytes_now, Watch(lab) as watch, Load(lab) as load:
            polls = _polls(lab, POLLS, bytes_now)
            lab.channel.sign(number + step)
            before = bytes_now()
            start = time.monotonic()
            asked = _taken(lab, number + step, ready, active, start)
            day = {"polls": polls, "1 update": bytes_now() - before, "in nginx's log": _logged(asked)}
            went = load.end()
        peak, lost = max(peak, watch.peak_mb), lost + went.lost + went.leaked + went.broken
    days = [number + step for step in range(1, DAYS + 1)]
    return [
        Figure(
            "active_s", "20,116 rules and 5,883 YARA rules, downloaded to proven",
            max(ready.values()), "s", 15, "at most",
            {"the whole set": ready[number], "by delta": max(ready[day] for day in days),
             "published to proven": max(active[day] for day in days), "lost or leaked meanwhile": lost},
        ),
        Figure("change_memory", "most memory of the box's programs in a change", peak / rest, "x rest", 1.5, "at most",
               {"at rest MB": rest, "most MB": peak}),
        Figure("day_bytes", "a day's bytes on the line, TLS and IP included", (day["polls"] + day["1 update"]) / 1e3,
               "kB", 20, "at most", day | {"the whole set": full_bytes, "of it in nginx's log": _logged(whole)}),
    ]  # fmt: skip


def _taken(lab: Lab, number: int, ready: dict[int, float], active: dict[int, float], start: float) -> list[Asked]:
    """Have the box take a published set; `ready` from its last byte on, `active` from `start` on."""
    seen = len(lab.channel.asked())
    offset = time.time() - time.monotonic()
    updates.ask(lab, "update")
    updates.wait_for(lab, number, REAL_WITHIN_S)
    now = time.monotonic()
    asked = lab.channel.asked()[seen:]
    ready[number] = now - (max(one.at for one in asked) - offset)
    active[number] = now - start
    return asked


def _polls(lab: Lab, count: int, bytes_now: Callable[[], float]) -> float:
    """Nothing new `count` times, hours apart: each over a connection of its own."""
    before = bytes_now()
    for _ in range(count):
        _hang_up(lab)
        seen = len(lab.channel.asked())
        updates.ask(lab, "update")
        lab.wait(lambda: len(lab.channel.asked()) > seen, "the box does not ask", 30)  # noqa: B023
        time.sleep(1.0)
    _hang_up(lab)
    return bytes_now() - before


def _hang_up(lab: Lab) -> None:
    lab.stop("depot")
    lab.start("depot")
    lab.wait_ready()


def _logged(asked: list[Asked]) -> float:
    return float(sum(one.sent + one.got for one in asked))


@contextmanager
def _wire(lab: Lab) -> Iterator[Callable[[], float]]:
    """Counts what crosses to and from the repository's server, IP heads, TLS and all."""
    port = str(layout.UPDATES)
    rules = [["INPUT", "-p", "tcp", "--dport", port], ["OUTPUT", "-p", "tcp", "--sport", port]]
    for rule in rules:
        lab.run("center", ["iptables", "-w", "-I", *rule], check=True)

    def now() -> float:
        listed = lab.run("center", ["iptables", "-w", "-nvxL"], check=True).stdout.decode()
        found = re.findall(rf"^\s*\d+\s+(\d+)\s.*(?:dpt|spt):{port}\b", listed, re.MULTILINE)
        return float(sum(int(number) for number in found))

    try:
        yield now
    finally:
        for rule in rules:
            lab.run("center", ["iptables", "-w", "-D", *rule])


def _restart(name: str, rules: bytes) -> Figure:
    """The anchor: the packaged engine with the same rules, ended and started again by hand."""
    with Lab(name) as lab:
        lab.up(with_product=False)
        file = lab.lay.root / "hand.rules"
        file.write_bytes(rules)
        with packaged_engine(lab, file, bypass=False) as engine, Load(lab) as load:
            began = time.monotonic()
            engine.end(signal.SIGTERM)
            engine.start()
            took = time.monotonic() - began
            time.sleep(1.0)
            went = load.end()
    lost = went.out.sent - went.out.got
    detail = {"pings lost": lost, "datagrams lost": went.plain.sent - went.plain.got, "seconds": took,
              "downloads cut": went.broken, "canaries passed": went.canary.got}  # fmt: skip
    return Figure("restart", "anchor: a restart by hand, seconds without a line", lost / 500, "s", 0, "report", detail)
