"""What the watch does of what it sees: rules are given back at once, and no canary makes it a nuisance."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sekisho.appliance import canary, watch
from sekisho.appliance.account import Account, EngineState
from sekisho.appliance.canary import Canaries, Word
from sekisho.appliance.core import muting
from sekisho.appliance.core.errors import PeerError
from sekisho.appliance.core.muting import MAX_NAMES, MAX_SIDS, Muting
from sekisho.appliance.core.settings import Settings, parse
from sekisho.appliance.proof import ANSWERS, Proof, Prover
from sekisho.appliance.rendering import Load, RuleSet
from sekisho.appliance.watch import MISSES, REPAIR_S, Watch
from sekisho.telemetry.events import Event, Signatures

LOAD = Load(RuleSet("a" * 64, Path("/x.rules"), 5), Path("/y.rules"), "0" * 16, rules=5, own=1)


class Played:
    """An engine whose looks are played, and the clock with it."""

    def __init__(self, settings: Settings, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        patch.setattr(time, "monotonic", lambda: self.now)
        patch.setattr(watch, "COUNTERS_S", float("inf"))
        self.account = Account(load=LOAD)
        self.state = EngineState(phase="running", pid=7)
        self.prover, self.sent_before = self, 0
        self.sent = 0
        self.loaded, self.canary = LOAD.expected, "caught"
        self.repairs: list[float] = []
        self.said: list[Event] = []
        self.watch = Watch(settings, self, self.said.append, lambda: False)  # type: ignore[arg-type]

    def look(self, load: Load) -> Proof:
        assert load is LOAD
        word: Word = "caught" if self.canary == "caught" else "missed"
        return Proof(self.loaded, 0, word, self.now)

    def request_repair(self) -> None:
        self.repairs.append(self.now)

    def pass_by(self, seconds: float, every: float = 1.0) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += every
            self.watch.look(self.account)

    def states(self) -> list[str]:
        return [event.state for event in self.said if isinstance(event, Signatures)]


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    (tmp_path / "run").mkdir()
    return Played(parse(f'box="a"\n[paths]\nrun="{tmp_path}/run"\nstate="{tmp_path}/state"'), monkeypatch)


def test_an_engine_that_never_caught_a_canary_is_said_to_be_silent_and_left_alone(played: Played) -> None:
    played.canary = "missed"
    played.pass_by(3600, every=10)
    assert played.states()[0] == "silent" and not played.repairs


def test_another_engine_has_to_catch_one_before_it_is_blamed_for_another(played: Played) -> None:
    played.pass_by(10)
    played.canary = "missed"
    played.pass_by(MISSES + 1)
    assert len(played.repairs) == 1
    played.state.pid = 8
    played.pass_by(3600, every=10)
    assert len(played.repairs) == 1


def test_canaries_that_come_and_go_do_not_make_one_repair_after_the_other(played: Played) -> None:
    for _ in range(60):
        played.canary = "caught"
        played.pass_by(5)
        played.canary = "missed"
        played.pass_by(5)
    assert played.states().count("silent") == 60
    gaps = [later - one for one, later in zip(played.repairs, played.repairs[1:], strict=False)]
    assert len(gaps) == 2 and gaps[0] >= REPAIR_S[1] and gaps[1] >= REPAIR_S[2]


def test_lost_rules_are_given_back_at_once_however_often_and_whatever_was_before(played: Played) -> None:
    played.pass_by(3)
    played.canary = "missed"
    played.pass_by(10)
    played.canary = "caught"
    for number in range(2, 7):
        played.loaded = LOAD.expected
        played.pass_by(4)
        played.loaded = 0
        played.pass_by(1)
        assert len(played.repairs) == number, "at the first look that shows it"


def test_what_has_come_counts_though_nobody_was_there_to_look_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "WAIT_S", -5.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as landing, socket.socket(type=socket.SOCK_DGRAM) as sender:
        landing.bind(("127.0.0.1", 0))
        waiting = {b"sekisho-passes-1-0", b"sekisho-passes-1-1"}
        for one in waiting:
            sender.sendto(one, landing.getsockname())
        assert Canaries._watch(landing, set(waiting)) == "caught"
        assert Canaries._watch(landing, set(waiting)) == "missed"


class Deaf:
    """A command socket that lets the first connections wait in vain, then answers."""

    def __init__(self, path: Path, deaf: int) -> None:
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen(16)
        self._deaf = deaf
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                self._deaf -= 1
                if self._deaf >= 0:
                    continue  # hung up: the same to who asks as no answer in time, and no two seconds of the test
                for message in ("", [{"id": 0, "rules_loaded": LOAD.expected, "rules_failed": 0}]):
                    connection.recv(4096)
                    connection.sendall(msgspec.json.encode({"return": "OK", "message": message}) + b"\n")

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.thread.join(5)


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[Any]:
    made: list[Deaf] = []

    def make(times: int) -> Prover:
        made.append(Deaf(tmp_path / f"{times}.sock", times))
        return Prover(tmp_path / f"{times}.sock", 1)

    yield make
    for one in made:
        one.close()


def test_one_late_answer_on_a_busy_machine_is_no_reason_to_end_an_engine(
    deaf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Canaries, "fly", lambda *_: "caught")
    assert deaf(ANSWERS - 1).prove(LOAD).whole(LOAD)
    with pytest.raises(PeerError):
        deaf(ANSWERS).prove(LOAD)


def test_as_much_as_may_be_muted_and_on_trial_is_read_again(tmp_path: Path) -> None:
    settings = parse(f'box="a"\n[paths]\nrun="{tmp_path}/run"\nstate="{tmp_path}/state"')
    settings.channel.mkdir(parents=True)
    top = 1 << 32
    most = Muting(
        sids=tuple(range(top - MAX_SIDS, top)),
        yara=tuple(f"{'a' * 124}{n:04}" for n in range(MAX_NAMES)),
        on_trial=tuple(range(top - (1 << 16), top)),
    )
    muting.write(settings, "mine", most)
    assert muting.both(settings) == most
