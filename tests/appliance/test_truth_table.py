"""What is in force after every kind of bad load, asked by command or by signal: the last good set, proven.

Nothing here believes the engine's replies: its counts are asked, and packets are sent through its queues.
"""

from __future__ import annotations

import ctypes
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sekisho.appliance import netfilter
from sekisho.appliance.core import standing
from sekisho.appliance.core.settings import parse
from sekisho.appliance.core.standing import Standing
from sekisho.appliance.engine import Engine, RuleSet
from sekisho.appliance.watch import Watch
from sekisho.telemetry.events import Event, Health, Signatures

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

QUEUES = 2
CLONE_NEWNET = 0x40000000


def rules(count: int, word: str = "good", action: str = "alert") -> str:
    return "".join(
        f'{action} udp any any -> any any (msg:"{word} {n}"; content:"SK-{word}-{n}"; sid:{1000 + n}; rev:1;)\n'
        for n in range(count)
    )


class Care:
    """An engine under care, and its watch, in a network namespace of their own."""

    def __init__(self, directory: Path, wanted: RuleSet, extra: str = "") -> None:
        text = (
            f'box="h2"\n[inspection]\nqueues={QUEUES}\n{extra}[paths]\nrun="{directory}/run"\nstate="{directory}/state"'
        )
        self.settings = parse(text)
        self.settings.channel.mkdir(parents=True)
        self.directory = directory
        self.said: list[Event] = []
        self.wanted = wanted
        self.engine = Engine(self.settings, lambda: self.wanted, self.said.append)
        self.watch = Watch(self.settings, self.engine, self.said.append, lambda: False)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0  # children and threads inherit it
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        netfilter.install(netfilter.plan(QUEUES, fail_closed=False))
        watching = threading.Thread(target=self.watch.run, args=(self.stop,))
        watching.start()
        self.engine.run(self.stop)
        watching.join()

    def standing(self) -> Standing | None:
        return standing.try_read(self.settings, "engine")

    def in_force(self, set_id: str, count: int) -> bool:
        """Whether the engine is said to have that set and was tried since the call's begin."""
        now = self.standing()
        return now is not None and now.proven and (now.set_id, now.rules) == (set_id, count)

    def signatures(self) -> list[str]:
        return [event.state for event in self.said if isinstance(event, Signatures)]

    def health(self) -> list[str]:
        return [event.state for event in self.said if isinstance(event, Health)]

    def end(self) -> None:
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def made(directory: Path, name: str, text: str, count: int) -> RuleSet:
    path = directory / f"{name}.rules"
    path.write_text(text)
    return RuleSet(name, path, count)


@pytest.fixture(scope="module")
def care(tmp_path_factory: pytest.TempPathFactory, waiting: Callable[..., Any]) -> Iterator[Care]:
    directory = tmp_path_factory.mktemp("care")
    care = Care(directory, made(directory, "good", rules(5), 5))
    try:
        waiting(lambda: care.in_force("good", 5), 40, "a proven set")
        yield care
    finally:
        care.end()


def test_a_set_in_force_is_said_to_be_so_by_count_and_canary(care: Care) -> None:
    now = care.standing()
    assert now is not None and (now.canary, now.expected, now.failed, now.refused) == ("caught", 5, 0, "")
    assert "started" in care.health()
