"""The gates that a new release must pass, on a box at work: each fails when what it stands for is broken, and alone."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from sekisho.firmware.gates.judge import failing
from sekisho.firmware.keeper.journal import Seen
from sekisho.lab import layout
from sekisho.lab.lab import Lab

pytestmark = [pytest.mark.lab]


class Watched:
    """A box whose office works, and what its gates see."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.seen = Seen()
        module = [sys.executable, "-I", "-m", "sekisho.lab.gates", str(lab.lay.box_settings)]
        self._watch = lab.popen("box", module)
        pings = [("lan", layout.SERVER4), ("wan", layout.CLIENT4)]
        self._pings = [lab.popen(place, ["ping", "-q", "-i", "0.02", to]) for place, to in pings]  # type: ignore[arg-type]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        lab.wait(lambda: self.all_hold(), "the gates do not see everything work", 60)
        self.before = self.seen

    def all_hold(self) -> bool:
        seen = self.seen
        told = (seen.lan, seen.wan, seen.engine_canary, seen.scanner_canary, seen.quarantine, seen.centre, seen.epoch)
        return all(told) and (seen.out, seen.back) == ("yes", "yes")

    def fails(self, *gates: str) -> None:
        """Returns when just these do."""
        self.lab.wait(lambda: failing(self.before, self.seen) == gates, f"not {gates} but {self.seen}", 60)

    def close(self) -> None:
        self._watch.kill()
        self._reader.join()
        for one in (self._watch, *self._pings):
            one.kill()
            one.communicate()

    def _read(self) -> None:
        for line in self._watch.stdout or ():
            self.seen = msgspec.json.decode(line, type=Seen)


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with Lab(f"gt{os.getpid()}") as lab:
        lab.up()
        made = Watched(lab)
        try:
            yield made
        finally:
            made.close()


Break = Callable[[Lab], Callable[[], None]]
"""Breaks something; what it gives mends it."""


def unplugged(lab: Lab) -> Callable[[], None]:
    lab.run("lan", ["ip", "link", "set", "eth0", "down"], check=True)

    def mend() -> None:
        lab.run("lan", ["ip", "link", "set", "eth0", "up"], check=True)
        for route in (
            ["route", "add", "default", "via", layout.SERVER4],
            ["-6", "route", "add", "default", "via", layout.SERVER6],
        ):
            lab.run("lan", ["ip", *route])

    return mend


def one_way(lab: Lab) -> Callable[[], None]:
    """Nothing of the office's leaves any more, but for its questions who has which address; the box itself goes on."""
    way = "add chain bridge broken way { type filter hook forward priority -300; }"
    drop = 'add rule bridge broken way iifname "eth-lan" ether type ip drop'
    lab.run("box", ["nft", f"add table bridge broken; {way}; {drop}"], check=True)

    def mend() -> None:
        lab.run("box", ["nft", "delete table bridge broken"], check=True)

    return mend


def gone(lab: Lab) -> Callable[[], None]:
    folder = lab.lay.box_state / "quarantine"
    aside = folder.with_name("aside")
    folder.rename(aside)

    def mend() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)

    return mend


def alone(lab: Lab) -> Callable[[], None]:
    lab.stop("mosquitto")
    return lambda: lab.start("mosquitto")


def without_scanner(lab: Lab) -> Callable[[], None]:
    lab.stop("inspect")
    return lambda: lab.start("inspect")


def forgotten(lab: Lab) -> Callable[[], None]:
    """A telemetry that begins its numbers anew, as over another disk: what was not sent would be lost."""
    lab.stop("telemetry")
    shutil.rmtree(lab.lay.box_state / "telemetry")
    lab.start("telemetry")
    return lambda: None


@contextmanager
def broken(lab: Lab, how: Break) -> Iterator[None]:
    mend = how(lab)
    try:
        yield
    finally:
        mend()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("how", "gates"),
    [
        (one_way, ("forward_out",)),
        (gone, ("quarantine",)),
        pytest.param(unplugged, ("link_lan",), marks=pytest.mark.full),
        pytest.param(alone, ("centre",), marks=pytest.mark.full),
        pytest.param(without_scanner, ("scanner", "quarantine"), marks=pytest.mark.full),
    ],
)
def test_a_gate_fails_when_what_it_stands_for_is_broken_and_holds_when_it_is_mended(
    watched: Watched, how: Break, gates: tuple[str, ...]
) -> None:
    with broken(watched.lab, how):
        watched.fails(*gates)
    watched.lab.wait(watched.all_hold, f"it does not hold again: {watched.seen}", 60)


@pytest.mark.full
@pytest.mark.timeout(240)
def test_numbers_that_begin_anew_fail_for_good(watched: Watched) -> None:
    with broken(watched.lab, forgotten):
        watched.fails("spool")
