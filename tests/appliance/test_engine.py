"""The engine's life with a real Suricata and rule sets that are not what they say."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sekisho.appliance import control, suricata
from sekisho.appliance.core.settings import parse
from sekisho.appliance.engine import Engine, RuleSet
from sekisho.appliance.logs import set_aside
from sekisho.appliance.rendering import count_rules
from sekisho.telemetry.events import Event, Health

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

ONE = 'alert udp any any -> any any (msg:"one"; content:"SK-ONE"; sid:9000990; rev:1;)\n'
TWO = 'alert udp any any -> any any (msg:"two"; content:"SK-TWO"; sid:9000991; rev:1;)\n'
BROKEN = 'alert udp any any -> any any (msg:"broken"; nonsense; sid:9000992;)\n'


class Care:
    """An engine in a thread of its own network namespace."""

    def __init__(self, directory: Path) -> None:
        text = f'box="h2"\n[inspection]\nqueues=1\n[paths]\nrun="{directory}/run"\nstate="{directory}/state"'
        self.settings = parse(text)
        self.directory = directory
        self.said: list[Health] = []
        self.wanted = self.rule_set("good", ONE, 1)
        self.engine = Engine(self.settings, lambda: self.wanted, self._hear)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def rule_set(self, name: str, text: str | None, rules: int) -> RuleSet:
        path = self.directory / f"{name}.rules"
        if text is not None:
            path.write_text(text)
        return RuleSet(name, path, rules)

    def _hear(self, event: Event) -> None:
        assert isinstance(event, Health)
        self.said.append(event)

    def _run(self) -> None:
        clone_newnet = 0x40000000
        assert ctypes.CDLL(None, use_errno=True).unshare(clone_newnet) == 0  # this thread's own empty network
        self.engine.run(self.stop)

    def states(self) -> list[str]:
        return [event.state for event in self.said]

    def loaded(self) -> tuple[int, int]:
        stats = control.ruleset_stats(self.settings.control_socket)
        return stats.rules_loaded - count_rules(suricata.steer_rules()) - 1, stats.rules_failed

    def end(self) -> None:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def care(tmp_path: Path, waiting: Callable[..., Any]) -> Iterator[Care]:
    made = Care(tmp_path)
    try:
        waiting(lambda: "started" in made.states(), 30, "the engine's start")
        yield made
    finally:
        made.end()


def reload(care: Care, waiting: Callable[..., Any], wanted: RuleSet) -> None:
    before = care.engine.state.reloads
    care.wanted = wanted
    care.engine.request_reload()
    waiting(lambda: care.engine.state.reloads > before, 30, "the reload")


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        pytest.param(None, 1, id="missing file, which Suricata calls OK"),
        pytest.param("", 1, id="empty file"),
        pytest.param(ONE + BROKEN, 2, id="one broken rule"),
        pytest.param(ONE, 2, id="a rule lost on the way"),
    ],
)
def test_a_set_that_does_not_load_whole_is_taken_back(
    care: Care, waiting: Callable[..., Any], text: str | None, rules: int
) -> None:
    pid = care.engine.state.pid
    reload(care, waiting, care.rule_set("bad", text, rules))
    assert care.states()[-1] == "reload_refused" and "bad" in care.engine.state.refused
    assert care.loaded() == (1, 0) and care.engine.state.set_id == "good"
    reload(care, waiting, care.rule_set("better", ONE + TWO, 2))
    assert care.loaded() == (2, 0) and care.engine.state.refused == ""
    assert care.engine.state.pid == pid and care.engine.state.starts == 1, "all of it live"


@pytest.mark.parametrize(("waits", "megabytes", "kept"), [(False, 33, 33), (True, 33, 1), (True, 129, 129)])
def test_logs_nobody_reads_are_bounded_and_the_loss_is_declared(
    tmp_path: Path, waits: bool, megabytes: int, kept: int
) -> None:
    eve = tmp_path / "eve.json"
    aside = tmp_path / "eve.json.1"
    if waits:
        aside.write_bytes(bytes(1 << 20))
    with eve.open("wb") as out:
        out.truncate(megabytes << 20)
    said = set_aside(eve, keep_unread=True)
    assert aside.stat().st_size == kept << 20
    assert said == ("dropped" if waits and megabytes > 128 else "rolled" if not waits else "")


def test_every_exception_is_decided_on_purpose() -> None:
    for mode, policy in (("open", "ignore"), ("closed", "drop-packet")):
        settings = parse(f'box="a"\n[inspection]\nfail_mode="{mode}"\nhome_networks=["10.0.0.0/8"]')
        text = suricata.model(settings, [Path("/r/a.rules")]).render()
        assert "auto" not in [w.strip('", ') for line in text.splitlines() if "policy" in line for w in line.split()]
        assert text.count(f'"memcap-policy": "{policy}"') >= 2
        assert f'"fail-open": "{"yes" if mode == "open" else "no"}"' in text


def test_a_relative_rule_file_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="absolute"):
        suricata.model(parse('box="a"'), [Path("a.rules")])
