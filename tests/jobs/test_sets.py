"""Jobs about rule sets at the real signatures daemon, with a real repository over HTTPS and real engines to try with.

The inspectors' words about what they work with are written for them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobsbox import Box, Hands
from played_box import told
from real_daemon import Box as Daemon
from repository import content
from signing import job, signed

from sekisho.appliance.core.jobs import TERMINAL, Job
from sekisho.portal_agent.jobs.desks import Desks

pytestmark = pytest.mark.timeout(180)


class Both:
    """A box's jobs and its signatures daemon, over the same files."""

    def __init__(self, root: Path) -> None:
        self.daemon = Daemon(root)
        self.jobs = Box(root / "box", Hands())
        self.jobs.settings = self.daemon.settings
        self.jobs.hands = Desks(self.daemon.settings)  # type: ignore[assignment]  # the same verbs, really done
        self.jobs.restart()

    def close(self) -> None:
        self.jobs.end()
        self.daemon.close()

    def ends(self, made: Job, most_s: float = 90.0) -> str:
        """What became of it, in the end."""
        until = time.monotonic() + most_s
        while not (found := self.jobs.states(made.id)) or self.jobs.told_of(made.id)[-1].state not in TERMINAL:
            assert time.monotonic() < until, (found, (self.daemon.root / "daemon.log").read_text()[-3000:])
            self.jobs.turn(1, 0.5)
            time.sleep(0.05)
        return found[-1]

    def asks(self, kind: str, **args: str) -> str:
        made = job(kind, boxes=["b"], args=args)
        self.jobs.give(signed(made))
        return self.ends(made)

    def events(self) -> list[tuple[str, int, int]]:
        ends = ("active", "refused", "rolled_back")
        return [(one.state, one.number, one.refused) for one in told(self.daemon.settings) if one.state in ends]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    made = Both(tmp_path)
    yield made
    made.close()


def test_a_job_has_the_newest_set_fetched_proven_and_put_in_force(both: Both) -> None:
    both.daemon.depot.publish(1)
    assert both.asks("sig.update", number="1") == "SUCCEEDED"
    assert both.daemon.status()[1]["number"] == 1 and both.events() == [("active", 1, 0)]
    assert both.asks("sig.update") == "SUCCEEDED", "nothing newer is no failure"
    files = content(2)
    files["rules/throwaway.rules"] += b'drop http any any -> any any (msg:"broken"; no_such_word; sid:7; rev:1;)\n'
    both.daemon.depot.publish(2, files)
    assert both.asks("sig.update", number="2") == "FAILED(refused)"
    assert both.daemon.status()[1]["number"] == 1, "the last good set stays"


def test_a_job_waits_for_a_set_that_is_not_published_yet_and_outlives_a_kill_of_both(both: Both) -> None:
    made = job("sig.update", boxes=["b"], args={"number": "1"})
    both.jobs.give(signed(made))
    both.jobs.turn(8)
    assert both.jobs.states(made.id)[-1].startswith(("RUNNING", "WAITING"))
    both.daemon.depot.publish(1)
    both.daemon.kill()
    both.jobs.restart()
    both.daemon.start()
    assert both.ends(made) == "SUCCEEDED"
    assert both.events() == [("active", 1, 0)]


def test_a_job_takes_a_set_out_of_force_once_and_the_channel_does_not_bring_it_back(both: Both) -> None:
    for number in (1, 2):
        both.daemon.depot.publish(number)
        assert both.asks("sig.update", number=str(number)) == "SUCCEEDED"
    assert both.asks("sig.rollback", number="1") == "REJECTED(not_in_force)"
    assert both.asks("sig.rollback", number="2") == "SUCCEEDED"
    assert both.daemon.status()[1]["number"] == 1
    assert both.events()[2:] == [("rolled_back", 1, 2)]
    (event,) = [one for one in told(both.daemon.settings) if one.state == "rolled_back"]
    assert event.detail.startswith("asked: job ")
    assert both.asks("sig.rollback", number="1") == "REJECTED(no_former)", "the one before it is not kept any more"
    assert both.daemon.run("update").returncode == 0
    assert both.asks("sig.update", number="2") == "FAILED(refused)"
    assert both.asks("sig.update", number="2", again="true") == "SUCCEEDED", "but who asks for it by name gets it"
    assert both.daemon.status()[1]["number"] == 2


def test_a_kill_in_the_middle_of_a_way_back_costs_nothing(both: Both) -> None:
    for number in (1, 2):
        both.daemon.depot.publish(number)
        assert both.asks("sig.update", number=str(number)) == "SUCCEEDED"
    both.daemon.inspectors.mute = True  # nobody proves anything for a while
    made = job("sig.rollback", boxes=["b"], args={"number": "2"})
    both.jobs.give(signed(made))
    for _ in range(600):
        both.jobs.turn()
        if b'"step":"rollback"' in _journal(both):
            break
        time.sleep(0.05)
    both.daemon.kill()
    both.jobs.restart()
    both.daemon.start()
    both.daemon.inspectors.mute = False
    assert both.ends(made) == "SUCCEEDED"
    assert both.events()[2:] == [("rolled_back", 1, 2)]


def _journal(both: Both) -> bytes:
    return (both.daemon.settings.channel / "keeper.json").read_bytes()
