"""A new release must do what the one before did at that moment, and nothing more is asked of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from firmware_world import FINE

from sekisho.appliance.core import standing
from sekisho.appliance.core.desk import Desk
from sekisho.appliance.core.settings import Paths, Settings
from sekisho.appliance.core.standing import Standing
from sekisho.firmware.gates.eyes import ENOUGH, Eyes
from sekisho.firmware.gates.judge import failing
from sekisho.firmware.keeper.journal import Seen
from sekisho.telemetry.counter import LinkTold
from sekisho.telemetry.link import LinkStatus

WHOLE = msgspec.structs.replace(FINE, quarantine=True, epoch="e1", centre=True)


@pytest.mark.parametrize(
    ("gate", "now"),
    [
        ("link_lan", {"lan": False}), ("link_wan", {"wan": False}), ("forward_out", {"out": "no"}),
        ("forward_in", {"back": "no"}), ("rules", {"rules": 97}), ("rules", {"rules": 0}),
        ("canary", {"engine_canary": False}), ("scanner", {"scanner_canary": False}),
        ("quarantine", {"quarantine": False}), ("spool", {"spool": 6}), ("spool", {"epoch": "e2", "spool": 900}),
        ("centre", {"centre": False}),
    ],
)  # fmt: skip
def test_what_worked_before_and_does_not_now_is_named(gate: str, now: dict[str, object]) -> None:
    assert failing(WHOLE, msgspec.structs.replace(WHOLE, **now)) == (gate,)


def test_what_did_not_work_before_is_not_asked_of_a_new_release() -> None:
    nothing = Seen()
    assert failing(nothing, nothing) == ()
    for field in ("lan", "wan", "engine_canary", "scanner_canary", "quarantine", "centre"):
        before = msgspec.structs.replace(WHOLE, **{field: False})
        assert failing(before, before) == () == failing(before, WHOLE), field


def test_an_office_where_nobody_works_any_more_takes_no_release_back() -> None:
    assert failing(WHOLE, msgspec.structs.replace(WHOLE, out="idle", back="idle")) == ()
    assert failing(WHOLE, msgspec.structs.replace(WHOLE, rules=98, spool=8)) == ()


class Ports:
    """Two ports and their bridge as the kernel shows them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.counts = dict.fromkeys(itertools.product(("eth-lan", "eth-wan", "br0"), ("rx", "tx")), 0)
        for port in ("eth-lan", "eth-wan", "br0"):
            (root / port / "statistics").mkdir(parents=True)
            (root / port / "carrier").write_text("1\n")
        self.write()

    def write(self, **more: int) -> None:
        for (port, way), count in self.counts.items():
            self.counts[port, way] = count + more.get(f"{port.removeprefix('eth-')}_{way}", 0)
            (self.root / port / "statistics" / f"{way}_bytes").write_text(f"{self.counts[port, way]}\n")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(box="box-1", paths=Paths(run=str(tmp_path / "run"), state=str(tmp_path / "state")))


@pytest.fixture
def telemetry(settings: Settings) -> Iterator[list[LinkTold]]:
    said = [LinkTold(True, True, LinkStatus(), [], 41, "e1")]
    desk = Desk(settings.sent_socket, (), lambda _: iter([msgspec.json.encode(said[-1])]))
    yield said
    desk.close()


@pytest.mark.parametrize(
    ("moved", "out", "back"),
    [
        ({"lan_rx": 5000, "wan_tx": 4900, "wan_rx": 9000, "lan_tx": 8900}, "yes", "yes"),
        ({"lan_rx": 5000, "wan_rx": 9000}, "no", "no"),
        ({"lan_rx": ENOUGH, "wan_tx": 1, "wan_rx": ENOUGH}, "yes", "no"),
        ({"lan_rx": ENOUGH - 1}, "idle", "idle"), ({"wan_tx": 3, "lan_tx": 3}, "idle", "idle"),
        # What the box tells the centre leaves at the same port, and is no sign of the office's;
        ({"lan_rx": 50_000, "wan_tx": 4000, "br0_tx": 4000, "wan_rx": 2000, "br0_rx": 2000}, "no", "idle"),
        ({"lan_rx": 50_000, "wan_tx": 54_000, "br0_tx": 4000}, "yes", "idle"),
        # nor is it one against it that the office reads the box's page, or the box fetches something large.
        ({"lan_rx": 50_000, "lan_tx": 900_000, "br0_rx": 49_000, "br0_tx": 880_000}, "idle", "idle"),
        ({"wan_rx": 9_000_000, "wan_tx": 90_000, "br0_rx": 8_700_000, "br0_tx": 90_000, "lan_rx": 64}, "idle", "idle"),
    ],
)  # fmt: skip
def test_what_comes_in_at_one_port_and_leaves_at_the_other_is_forwarded(
    settings: Settings, tmp_path: Path, moved: dict[str, int], out: str, back: str
) -> None:
    ports, now = Ports(tmp_path / "net"), 100.0
    eyes = Eyes(settings, lambda: now, tmp_path / "net")
    seen = eyes.look()
    assert (seen.out, seen.back, seen.lan, seen.wan) == ("idle", "idle", True, True), "nothing is known at once"
    ports.write(**moved)
    now = 111.0
    seen = eyes.look()
    assert (seen.out, seen.back) == (out, back)


def test_ports_that_were_made_anew_are_counted_from_there(settings: Settings, tmp_path: Path) -> None:
    ports, now = Ports(tmp_path / "net"), 100.0
    ports.write(lan_rx=10_000, wan_tx=10_000)
    eyes = Eyes(settings, lambda: now, tmp_path / "net")
    eyes.look()
    ports.counts = dict.fromkeys(ports.counts, 0)
    ports.write(lan_rx=3)
    now = 111.0
    assert eyes.look().out == "idle"


def test_the_inspectors_and_telemetrys_own_words_are_what_counts(
    settings: Settings, tmp_path: Path, telemetry: list[LinkTold]
) -> None:
    now = 1000.0
    eyes = Eyes(settings, lambda: now, tmp_path / "net")
    assert eyes.look() == Seen(spool=41, epoch="e1", centre=True), "silence proves nothing"
    standing.write(settings, "engine", Standing(at=now, set_id="s", rules=100, expected=100, canary="caught"))
    standing.write(settings, "scanner", Standing(at=now, set_id="s", rules=5, expected=5, canary="caught", keeps=True))
    seen = eyes.look()
    assert (seen.rules, seen.engine_canary, seen.scanner_canary, seen.quarantine) == (100, True, True, True)
    telemetry.append(LinkTold(True, False, LinkStatus(), [], 43, "e1"))
    now += 6
    seen = eyes.look()
    assert (seen.spool, seen.centre) == (43, False)
    now += 60
    seen = eyes.look()
    assert (seen.rules, seen.engine_canary, seen.quarantine) == (0, False, False), "what was said long ago is nothing"
