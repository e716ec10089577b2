"""What becomes of the engine that works when something goes wrong around a renewal: it goes on.

The engines are programs that answer as Suricata does and inspect nothing; there is no kernel to load rules into.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sekisho.appliance import berth, canary, doorway, express, handover, loading, netfilter, renewal, store
from sekisho.appliance.berth import Berth, Binary
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.settings import Settings, parse
from sekisho.appliance.coverage import Away
from sekisho.appliance.covering import Change, Covering
from sekisho.appliance.daemon import Daemon
from sekisho.appliance.engine import Engine, RuleSet
from sekisho.appliance.handed import Alive
from sekisho.appliance.loading import Loader
from sekisho.telemetry.events import Event, Health

ONE = 'alert udp any any -> any any (msg:"one"; content:"SK-ONE"; sid:9000990; rev:1;)\n'
ENGINE = f"""#!{sys.executable} -IS
import contextlib, json, os, pathlib, socket, sys
config, pid_file = (pathlib.Path(sys.argv[sys.argv.index(word) + 1]) for word in ("-c", "--pidfile"))
pid_file.write_text(str(os.getpid()))
server = socket.create_server(str(config.with_name("b.sock" if "-b." in config.name else "a.sock")), family=1)
told = config.with_name("told.json")
while True:
    peer = server.accept()[0]
    for line in peer.makefile():
        asked, says = json.loads(line).get("command"), json.loads(told.read_text())
        while asked == "reload-rules" and not says["reloads"]:
            says = json.loads(told.read_text())
        stats = [dict(rules_loaded=says["loaded"], rules_failed=0)]
        answer = dict([("return", "OK"), ("message", stats if asked == "ruleset-stats" else "done")])
        with contextlib.suppress(BrokenPipeError):
            peer.sendall(json.dumps(answer).encode() + b"\\n")
"""
DEAD = "#!/bin/sh\necho no such library >&2\nexit 127\n"


class Kernel:
    """Where each family's packets are led; locked it takes nothing, which may begin in the middle of a stroke."""

    def __init__(self) -> None:
        self.led: dict[str, int] = {}
        self.lock_when_led_to = -1
        self.locked = False

    def load(self, tool: str, text: str) -> None:
        first = int(text.partition("-A SK_LOOK -j SK_Q")[2].partition("\n")[0])
        half = first == self.lock_when_led_to
        self.locked |= half
        if self.locked and not (half and tool == "iptables"):
            raise DeviceFault("Another program holds the lock.")
        self.led[tool] = first


class Care:
    """An engine that a daemon cares for."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch, waiting: Callable[..., Any]) -> None:
        text = f'box="h2"\n[inspection]\nqueues=1\n[paths]\nrun="{directory}/run"\nstate="{directory}/state"'
        self.settings: Settings = parse(text)
        self.wait, self.program = waiting, directory / "suricata"
        self.program.write_text(ENGINE)
        self.program.chmod(0o755)
        rules = directory / "one.rules"
        rules.write_text(ONE)
        self.kernel = Kernel()
        patch.setattr(netfilter, "_load", self.kernel.load)
        patch.setattr(netfilter, "install", netfilter.apply)
        patch.setattr(store, "mount", lambda path, _: path.mkdir(parents=True, exist_ok=True))
        patch.setattr(canary.Canaries, "fly", lambda *_: "caught")
        patch.setattr(berth, "binary", lambda: Binary(self.program))
        self.said: list[Health] = []
        self.engine = Engine(self.settings, lambda: RuleSet("good", rules, 1), self._hear)
        self.lead = self.engine._lead
        self.folder = self.settings.control_socket.parent
        self.folder.mkdir(parents=True)
        (self.settings.run / "appliance").mkdir(exist_ok=True)
        self.good = self.engine._rules.first()[0].expected
        self.tell(self.good)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=lambda: self.engine.run(self.stop))
        self.found: subprocess.Popen[bytes] | None = None

    def _hear(self, event: Event) -> None:
        assert isinstance(event, Health)
        self.said.append(event)

    def tell(self, loaded: int, *, reloads: bool = True) -> None:
        """What the engines are to answer."""
        fresh = self.folder / "told.tmp"
        fresh.write_text(json.dumps({"loaded": loaded, "reloads": reloads}))
        fresh.replace(self.folder / "told.json")

    def start(self) -> None:
        self.thread.start()
        self.wait(lambda: {"started", "adopted"} & set(self.states()), 20, "the engine's start")

    def leave_one(self) -> None:
        """An engine of a killed predecessor, of another configuration."""
        place = self.lead.now
        place.config.write_text("another: one\n")
        argv = [str(self.program), "-c", str(place.config), "--pidfile", str(place.pid_file), "-q", "0"]
        self.found = subprocess.Popen(argv)
        self.wait(place.socket.exists, 20, "its socket")

    def states(self) -> list[str]:
        return [event.state for event in self.said]

    def reload(self) -> None:
        before = self.engine.state.reloads
        self.engine.request_reload()
        self.wait(lambda: self.engine.state.reloads > before, 20, "the reload")

    def goes_on(self, pid: int) -> bool:
        """It was not ended, and is cared for: it is asked to reload."""
        self.reload()
        state = self.engine.state
        alive = self.engine._post.alive() and state.pid == pid and state.phase == "running"
        return alive and not {"failed", "died"} & set(self.states())

    def end(self) -> None:
        self.tell(self.good)
        self.stop.set()
        if self.thread.is_alive():
            self.thread.join(20)
        for post in self.engine._posts.values():
            post.stop()
        if self.found is not None:
            self.found.kill()
            self.found.wait()


@pytest.fixture
def care(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: Callable[..., Any]) -> Iterator[Care]:
    made = Care(tmp_path, monkeypatch, waiting)
    try:
        yield made
    finally:
        made.end()


@pytest.mark.parametrize("fault", ["counts fewer", "does not answer", "cannot be written"])
def test_an_engine_that_does_not_take_the_rules_after_a_failed_renewal_goes_on(
    care: Care, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    care.leave_one()
    care.program.write_text(DEAD)
    if fault == "counts fewer":
        care.tell(care.good - 1)
    elif fault == "does not answer":
        monkeypatch.setattr(loading, "RELOAD_S", 0.0)
        care.tell(care.good, reloads=False)
    else:
        new, write = care.engine._posts["b"].loader, Loader.write
        monkeypatch.setattr(Loader, "write", lambda self, load: write(self, load) if self is new else fail())
    care.start()
    care.wait(lambda: "rules_refused" in care.states(), 20, "the refusal")
    assert "no such library" in care.engine.state.renewal
    assert care.engine.account.load is not None and not care.engine.account.changing, "its watch goes on"
    care.tell(care.good - (fault == "counts fewer"))
    assert care.found is not None and care.goes_on(care.found.pid)
    assert care.engine.state.starts == 0


def fail(*_: object) -> None:
    raise DeviceFault("No space left on device.")


def test_an_engine_found_running_goes_on_where_this_machine_cannot_give_it_its_rules(
    care: Care, monkeypatch: pytest.MonkeyPatch
) -> None:
    care.leave_one()
    monkeypatch.setattr(Loader, "left", lambda *_: "rules")
    monkeypatch.setattr(Binary, "runs_as", lambda *_: True)
    monkeypatch.setattr(Loader, "write", fail)
    care.start()
    care.wait(lambda: care.engine.state.renewals, 20, "the renewal's end")
    assert care.found is not None and care.goes_on(care.found.pid)


def test_an_engine_to_which_commands_cannot_be_led_at_once_is_not_ended_for_it(
    care: Care, monkeypatch: pytest.MonkeyPatch
) -> None:
    care.start()
    lead, full = Berth.lead_commands, threading.Event()
    full.set()
    monkeypatch.setattr(Berth, "lead_commands", lambda *given: fail() if full.is_set() else lead(*given))
    care.engine.request_renew()
    care.wait(lambda: care.engine.state.renewals, 20, "the renewal")
    assert care.goes_on(care.engine.state.pid) and care.lead.now.name == "b"
    assert not care.engine._posts["a"].alive() and berth.led(care.settings) == "a"
    full.clear()
    care.wait(lambda: berth.led(care.settings) == "b", what="the link")


def test_what_was_asked_for_a_former_engine_is_not_done_to_the_one_in_its_place(
    care: Care, monkeypatch: pytest.MonkeyPatch
) -> None:
    care.start()
    renew = renewal.renew

    def asked_meanwhile(*given: Any) -> Any:
        proof = renew(*given)
        care.engine.request_restart()
        care.engine.request_repair()
        return proof

    monkeypatch.setattr(renewal, "renew", asked_meanwhile)
    care.engine.request_renew()
    care.wait(lambda: care.engine.state.renewals, 20, "the renewal")
    pid = care.engine.state.pid
    assert care.goes_on(pid) and care.goes_on(pid) and care.engine.state.starts == 1


def test_an_engine_to_which_one_family_is_led_is_not_ended_before_it_is_led_back(care: Care) -> None:
    care.start()
    care.lead.install()
    old, new = care.lead.berths
    pid, left = care.engine.state.pid, care.engine._posts[new.name]
    care.kernel.lock_when_led_to = new.first
    care.engine.request_renew()
    care.wait(lambda: care.engine.state.renewals, 20, "the renewal's end")
    assert care.kernel.led == {"iptables": new.first, "ip6tables": old.first} and care.lead.now is old
    assert care.goes_on(pid) and left.alive(), "somebody is at the end of each family's queues"
    care.engine.request_renew()
    care.wait(lambda: care.engine.state.renewals == 2, 20, "another renewal's end")
    assert care.goes_on(pid) and left.alive()
    care.kernel.locked, care.kernel.lock_when_led_to = False, -1
    care.lead.install()
    assert care.kernel.led == {"iptables": old.first, "ip6tables": old.first}
    care.wait(lambda: not left.alive(), what="the end of the spare one")
    assert care.goes_on(pid)


def test_rules_of_which_a_change_was_refused_are_loaded_again_until_they_are_taken(
    care: Care, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Daemon(care.settings)
    monkeypatch.setattr(netfilter, "intact", lambda: True)
    for room in (express, doorway):
        monkeypatch.setattr(room, "present", lambda: True)
    care.kernel.locked = True
    with pytest.raises(DeviceFault):
        box.lead.move(box.lead.other)
    box._mend()
    assert box.lead.unsure and box.lead.now is box.lead.berths[0]
    care.kernel.locked = False
    box._mend()
    assert not box.lead.unsure and set(care.kernel.led.values()) == {0}


def test_an_engine_is_left_to_a_successor_however_long_a_load_keeps_the_daemon_from_ending(care: Care) -> None:
    box = Daemon(care.settings)
    box.engine, box.stop = care.engine, care.stop
    care.start()
    care.tell(care.good, reloads=False)
    care.engine.request_reload()
    care.wait(lambda: care.engine.state.phase == "reloading", what="the load")
    handover.ask(care.settings)
    box.end()
    handover.path_of(care.settings).unlink()  # as good as old
    care.tell(care.good)
    care.thread.join(20)
    assert care.states()[-1] == "left" and care.engine._post.alive()


def test_who_is_told_to_end_in_the_same_instant_finds_what_was_asked_for(
    care: Care, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0007)
    handover.ask(care.settings)
    assert handover.wanted(care.settings)


@pytest.mark.parametrize("asked", [True, False])
def test_inspection_is_accounted_as_stopped_unless_the_engine_was_left_to_a_successor(
    care: Care, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    box, kept = Daemon(care.settings), []
    if asked:
        handover.ask(care.settings)

    def read(_covering: Covering, _since: Away, _now: Change, *, stopped: bool = False) -> None:
        kept.append(stopped)
        box.end()
        with suppress(FileNotFoundError):
            handover.path_of(care.settings).unlink()

    monkeypatch.setattr(Covering, "_try_read", read)
    box.covering._changes.put(Change(Away(), Alive(), Alive()))
    box.covering.run(box.stop)
    assert kept == [False, not asked]
