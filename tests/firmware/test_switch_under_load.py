"""Releases change on a working box, back and forth: nothing lost, nothing through that must not, no event missing."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.settings import Settings, load
from sekisho.appliance.status import try_read
from sekisho.firmware.switch import switch
from sekisho.firmware.switch.switching import ORDER
from sekisho.lab import releases
from sekisho.lab.lab import Lab
from sekisho.lab.load import Load
from sekisho.lab.sets import CANARY_RULE
from sekisho.lab.switching import Supervised
from sekisho.telemetry.events import Bypass

pytestmark = [pytest.mark.lab]

NAMES = ("1-00000000aaaa", "2-00000000bbbb")


class Office:
    """A box whose daemons run from the first of two releases, each with an engine of its own path."""

    def __init__(self, lab: Lab, root: Path) -> None:
        self.lab, self.root = lab, root
        self.link = root / "venv"
        engine = Path("/usr/bin/suricata")
        self.releases = [releases.make(root, name, engine=engine) for name in NAMES]
        self.link.symlink_to(self.releases[0] / "venv")

    @property
    def settings(self) -> Settings:
        return load(self.lab.lay.box_settings)

    def switch(self, to: Path) -> float:
        return switch(to, self.settings, Supervised(self.lab))

    def running(self) -> dict[str, str]:
        """Which release each daemon says it runs, and whose engine inspects."""
        said = {name: found.release for name in ORDER if (found := Supervised(self.lab).look(name)) is not None}
        status = try_read(self.settings)
        assert status is not None
        return said | {"engine": Path(status.engine.binary).parent.parent.parent.name}

    def uninspected(self) -> dict[str, float]:
        """Seconds so far in which each inspector was away, by the box's own account."""
        status = try_read(self.settings)
        assert status is not None
        parts = (status.engine_bypass, status.gate_bypass)
        return {part.name: round(part.seconds(time.monotonic()), 2) for part in parts}

    def all_run(self, release: Path) -> bool:
        return set(self.running().values()) == {release.name} and self.link.readlink() == release / "venv"


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    root = tmp_path_factory.mktemp("opt")
    rules = root / "rules"
    rules.mkdir()
    (rules / "canary.rules").write_text(CANARY_RULE)
    with Lab(f"sw{os.getpid()}") as lab:
        made = Office(lab, root)
        lab.up({"firmware": {"link": str(made.link), "releases": str(root)}, "signatures": {"rules_dir": str(rules)}})
        assert made.all_run(made.releases[0])
        yield made


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(2, marks=pytest.mark.timeout(240)),
        pytest.param(100, marks=[pytest.mark.full, pytest.mark.timeout(6000)]),
    ],
    ids=["sample", "hundred"],
)
def test_switches_under_load_lose_no_packet_no_event_and_let_no_canary_through(office: Office, count: int) -> None:
    way = itertools.cycle(reversed(office.releases))
    away, since = office.uninspected(), len(office.lab.events())
    with Load(office.lab) as load:
        for to in itertools.islice(way, count):
            office.switch(to)
            assert office.all_run(to)
        went = load.end()
    print(went)
    assert (went.lost, went.canary.got) == (0, 0)
    assert office.uninspected()["engine"] == away["engine"], "not for a moment without an engine"
    assert went.packets > count * 500 and went.canary.sent > count * 50
    office.lab.wait(lambda: whole(office), "an event is missing at the centre", 60)
    print(f"bad files through while the gate changed: {went.bad.got} of {went.bad.sent}, {office.uninspected()}")
    gate = [row.event for row in office.lab.events(since) if isinstance(row.event, Bypass) and row.event.part == "gate"]
    assert "absent" not in {told.reason for told in gate}, "somebody is always at the gate's queue"
    assert went.broken == 0 and (gate or went.bad.got == 0), "a machine that stands still is told as a hang"


def whole(office: Office) -> bool:
    """Every number of every epoch is at the centre, from the first to the last."""
    numbers: dict[tuple[str, str], set[int]] = {}
    for row in office.lab.events():
        numbers.setdefault((row.box, row.epoch), set()).add(row.seq)
    return bool(numbers) and all(len(seen) == max(seen) - min(seen) + 1 for seen in numbers.values())


def test_a_folder_without_programs_is_refused_before_anything_is_touched(office: Office, tmp_path: Path) -> None:
    before, link = office.running(), office.link.readlink()
    with pytest.raises(RejectedInput):
        office.switch(tmp_path)
    assert office.running() == before and office.link.readlink() == link


BROKEN = {
    "never ready": ("sekisho.telemetry.daemon", "raise SystemExit(4)\n", "telemetry"),
    "engine": ("", "#!/bin/sh\nexit 1\n", "appliance"),
}


@pytest.mark.full
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["engine", "never ready"])
def test_a_release_that_does_not_work_goes_back_by_itself(
    office: Office, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sekisho.firmware.switch.switching.READY_S", 15.0)
    module, text, blamed = BROKEN[how]
    bad = releases.make(tmp_path, "9-0000bad0bad0", engine=Path("/usr/bin/suricata") if module else text)
    if module:
        releases.module(bad, module).write_text(text)
    before = next(release for release in office.releases if office.all_run(release))
    with Load(office.lab) as load:
        with pytest.raises(DeviceFault, match=f"(?s){blamed}.*former programs again"):
            office.switch(bad)
        assert office.all_run(before)
        went = load.end()
    assert (went.lost, went.canary.got) == (0, 0)


class Killed(BaseException):
    """The process that switches is gone."""


@pytest.mark.full
@pytest.mark.timeout(240)
@pytest.mark.parametrize("at", ["telemetry", "inspect"])
def test_a_switch_that_was_killed_goes_on_when_it_is_called_again(
    office: Office, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = next(release for release in office.releases if office.all_run(release))
    to = next(release for release in office.releases if release != before)
    renewed: list[str] = []
    ways: dict[str, Callable[..., None]] = {"restart": Supervised.restart, "succeed": Supervised.succeed}

    def noting(patch: pytest.MonkeyPatch, into: list[str], dies_at: str) -> None:
        def instead(way: Callable[..., None]) -> Callable[..., None]:
            def noted(services: Supervised, name: str, *more: float) -> None:
                if name == dies_at:
                    raise Killed
                into.append(name)
                way(services, name, *more)

            return noted

        for name, way in ways.items():
            patch.setattr(Supervised, name, instead(way))

    with Load(office.lab) as load:
        with monkeypatch.context() as patch:
            noting(patch, renewed, at)
            with pytest.raises(Killed):
                office.switch(to)
        assert renewed and not office.all_run(to)
        again: list[str] = []
        with monkeypatch.context() as patch:
            noting(patch, again, "")
            office.switch(to)
        assert office.all_run(to) and not set(again) & set(renewed), "what was done is not done twice"
        went = load.end()
    assert (went.lost, went.canary.got) == (0, 0)
    assert office.link.with_name("venv.former").readlink() == before / "venv", "the way back, until it has settled"
