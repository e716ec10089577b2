"""The daemon as it runs: a signed release is fetched, verified and staged by the real parts, and waits for a word."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from releases import Centre

from sekisho.appliance.cli import main
from sekisho.appliance.core import boot as core_boot
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.jobs import Job
from sekisho.appliance.core.settings import Firmware, Paths, Settings
from sekisho.firmware import errands, wishes
from sekisho.firmware.blocks import Stopped
from sekisho.firmware.daemon import Daemon
from sekisho.firmware.gates import eyes
from sekisho.firmware.keeper import commands, desk
from sekisho.firmware.keeper.desk import Shown
from sekisho.firmware.keeper.effects import Asking, Effects
from sekisho.firmware.keeper.journal import Attempt, Journal, State
from sekisho.firmware.source import Source
from sekisho.firmware.stage import path_of
from sekisho.firmware.switch import switching
from sekisho.portal_agent.jobs.facts import Progress
from sekisho.portal_agent.jobs.reboot_desk import Reboot
from sekisho.signatures.trust import Folder
from sekisho.telemetry import events


@pytest.fixture
def box(centre: Centre, tmp_path: Path) -> Settings:
    found = centre.settings()
    hardware = found.firmware.hardware
    firmware = Firmware(
        hardware=hardware, releases=str(tmp_path / "releases"), link=str(tmp_path / "venv"),
        trial_s=20.0, steady_s=0.5,
    )  # fmt: skip
    return msgspec.structs.replace(found, firmware=firmware)


@pytest.fixture
def settings_of_nobody(tmp_path: Path) -> Settings:
    made = Settings(
        box="box-1", paths=Paths(run=str(tmp_path / "run"), state=str(tmp_path / "state")),
        firmware=Firmware(releases=str(tmp_path / "releases"), link=str(tmp_path / "venv")),
    )  # fmt: skip
    made.journals.mkdir(parents=True)
    return made


TRIED = ("armed", "activating", "trial", "succeeded")


class Nobody:
    """The service manager of a machine on which none of the other daemons run."""

    def look(self, name: str) -> None:
        return None


def root(box: Settings) -> Asking:
    """Root's errand, in this process."""

    def ask(number: str, wish: wishes.Wish, _limit_s: float) -> wishes.Outcome:
        return wishes.judged(errands.done(box, wishes.Numbered(number, wish)))

    return ask


@contextmanager
def running(box: Settings, centre: Centre, ask: Asking | None = None) -> Iterator[None]:
    made = Daemon(box, Source(box, way=Folder(centre.depot.tree.directory)), ask or root(box))
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield
    finally:
        made.stop()
        thread.join()


def until(box: Settings, fact: Callable[[Shown], bool]) -> Shown:
    for _ in range(2000):
        shown = commands.ask(box, desk.Status())
        if fact(shown):
            return shown
        time.sleep(0.1)
    raise AssertionError(commands.ask(box, desk.Status()))


def wait(fact: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < until
        time.sleep(0.05)


def told(box: Settings) -> list[str]:
    lines = (box.journals / "firmware.jsonl").read_bytes().splitlines()
    found = [events.decode(line) for line in lines]
    return [event.state for event in found if isinstance(event, events.Firmware) and event.state != "status"]


@pytest.mark.timeout(240)  # it makes a virtual environment
def test_a_release_is_staged_whole_waits_over_a_restart_of_the_daemon_and_is_used_at_a_word(
    centre: Centre, box: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switching, "Systemd", Nobody)
    monkeypatch.setattr(switching, "LOADS", "pass")  # what is built here brings a daemon of nobody's
    with pytest.raises(DeviceFault, match="does not run"):
        commands.ask(box, desk.Status())
    release = centre.publish(3)
    with running(box, centre):
        commands.ask(box, desk.Stage(counter=3, by="command"))
        shown = until(box, lambda shown: shown.way is not None and shown.way.state == "staged")
        assert shown.way is not None and (shown.way.counter, shown.way.version, shown.way.tier) == (3, "1.3", 1)
        assert "release 3 1.3: staged" in commands.table(shown)
        assert (path_of(release, Path(box.firmware.releases)) / "venv/bin/tiny").exists()
        assert not Path(box.firmware.link).exists(), "what runs is what ran"
        wait(lambda: not list((box.firmware_state / "download").iterdir()))
    with running(box, centre):
        shown = commands.ask(box, desk.Status())
        assert shown.way is not None and shown.way.state == "staged"
        with pytest.raises(RejectedInput):
            commands.ask(box, desk.Activate(counter=4, by="command"))
        commands.ask(box, desk.Activate(counter=3, by="job 01ARZ3NDEKTSV4RRFFQ69G5FAV"))
        shown = until(box, lambda shown: shown.way is None)
        assert shown.last is not None and (shown.last.counter, shown.last.state) == (3, "succeeded")
        assert shown.running.counter == 3
        assert Path(box.firmware.link).resolve() == (path_of(release, Path(box.firmware.releases)) / "venv").resolve()
    states = told(box)
    assert states == [*("offered", "downloading", "verified", "staged", "staged"), *TRIED]
    with running(box, centre):
        shown = commands.ask(box, desk.Status())
        assert (shown.running.counter, shown.running.version) == (3, "1.3") and shown.way is None
    assert told(box) == states, "an end is told once"


@pytest.mark.parametrize("second", [3, 4])
def test_an_errand_that_ends_for_nobody_takes_no_bundle_from_the_next_one(
    centre: Centre, box: Settings, second: int
) -> None:
    """A release is given up while root stages it; then the same or a newer one is asked for, and waits for root."""
    begun, goes_on = threading.Event(), threading.Event()
    made = {3: centre.publish(3)}

    def ask(_number: str, wish: wishes.Wish, _limit_s: float) -> wishes.Outcome:
        if not isinstance(wish, wishes.Stage):
            return wishes.Outcome("", "done")
        if not begun.is_set():
            begun.set()
            assert goes_on.wait(60)
        else:
            wait(lambda: [thread.name for thread in threading.enumerate()].count("installing") == 1)
            assert (box.firmware_state / "download" / made[second].sha256).exists(), "its bundle is here"
        return wishes.Outcome("", "done", wish.release)

    with running(box, centre, ask):
        commands.ask(box, desk.Stage(counter=3, by="command"))
        assert begun.wait(60)
        commands.ask(box, desk.Cancel(counter=3, by="command"))
        until(box, lambda shown: shown.way is None)
        if second not in made:
            made[second] = centre.publish(second)
        commands.ask(box, desk.Stage(counter=second, by="command", again=True))
        until(box, lambda shown: shown.way is not None and shown.way.state == "installing")
        goes_on.set()
        shown = until(box, lambda shown: shown.way is None or shown.way.state == "staged")
        assert shown.way is not None and shown.way.counter == second, shown.last
        wait(lambda: not list((box.firmware_state / "download").iterdir()))


def test_what_is_given_up_late_takes_nothing_from_what_is_on_its_way_by_then(centre: Centre, box: Settings) -> None:
    release = centre.publish(3)
    source = Source(box, way=Folder(centre.depot.tree.directory))
    source.refresh()
    attempt, asked = Attempt(state=State.INSTALLING, release=release), list[wishes.Wish]()

    def ask(_number: str, wish: wishes.Wish, _limit_s: float) -> wishes.Outcome:
        asked.append(wish)
        return wishes.Outcome("", "done")

    effects = Effects(box, source, eyes.Eyes(box), ask, lambda: False, lambda: attempt)
    bundle = source.fetch(release)
    staged = path_of(release, Path(box.firmware.releases))
    staged.mkdir(parents=True)
    effects.discard(2, ())
    assert bundle.exists() and asked == []
    (staged.parent / "2-0123456789abcdef").mkdir()
    attempt = Attempt(state=State.STAGED, release=release)
    effects.discard(3, ())
    assert not bundle.exists() and asked == [wishes.Remove((staged.name,))]


def test_a_download_that_another_release_took_the_place_of_ends_and_keeps_no_line(
    centre: Centre, box: Settings
) -> None:
    releases = [centre.publish(3), centre.publish(4)]
    source = Source(box, way=Folder(centre.depot.tree.directory))
    attempt = Attempt(state=State.DOWNLOADING, release=releases[1])
    effects = Effects(box, source, eyes.Eyes(box), root(box), lambda: False, lambda: attempt)
    with pytest.raises(Stopped):
        effects.fetch(releases[0], 0)
    effects.fetch(releases[1], 0)
    assert (box.firmware_state / "download" / releases[1].sha256).exists()


def test_who_may_have_to_take_a_release_back_stays_until_its_trial_is_over(
    settings_of_nobody: Settings, tmp_path: Path
) -> None:
    daemon = Daemon(settings_of_nobody)
    daemon.stop()
    daemon.run()
    (tmp_path / "releases" / "7-0123456789abcdef" / "venv").mkdir(parents=True)
    (tmp_path / "venv").symlink_to(tmp_path / "releases" / "7-0123456789abcdef" / "venv")
    keeper = daemon._keeper
    assert keeper is not None and daemon._outrun(keeper)
    for state in (State.ACTIVATING, State.TRIAL, State.REVERTING):
        keeper.machine.journal = Journal(attempt=Attempt(state=state))
        assert not daemon._outrun(keeper)
    keeper.machine.journal = Journal(attempt=Attempt(state=State.STAGED))
    assert daemon._outrun(keeper)


def test_what_is_older_than_what_was_here_or_not_published_is_refused_with_a_word(
    centre: Centre, box: Settings
) -> None:
    centre.publish(2)
    with running(box, centre):
        commands.ask(box, desk.Stage(counter=1, by="command"))
        shown = until(box, lambda shown: shown.last is not None)
        assert shown.last is not None and (shown.last.state, shown.last.why) == ("rejected", "superseded")
        commands.ask(box, desk.Stage(counter=9, by="command", max_bytes=1))
        shown = until(box, lambda shown: shown.way is not None)
        assert shown.way is not None and shown.way.state == "offered", "it may be published in a minute"
        centre.publish(9)
        shown = until(box, lambda shown: shown.way is None)
        assert shown.last is not None and (shown.last.state, shown.last.why) == ("failed", "budget")
        assert not Path(box.firmware.releases).exists() and not (box.firmware_state / "download").exists()


def test_a_restart_by_a_job_goes_through_the_daemons_desk_and_roots_errand_and_is_proven_in_the_next_boot(
    settings_of_nobody: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the machine's own going down: docs/jobs.md, `reboot`."""
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(core_boot, "BOOT_ID", boot)
    monkeypatch.setattr(eyes, "OVER_S", 0.0)
    box = msgspec.structs.replace(settings_of_nobody, firmware=Firmware(trial_s=20.0, steady_s=1.5))
    toml = tmp_path / "box.toml"
    toml.write_text(f'box = "box-1"\n[paths]\nrun = "{box.paths.run}"\nstate = "{box.paths.state}"\n')
    made = Job(id="01ARZ3NDEKTSV4RRFFQ69G5FAV", boxes=["box-1"], kind="reboot", nbf=0, exp=1 << 40)
    work = Reboot(box)

    def say(*words: str) -> str:
        main(["firmware", "restart", *words, "--settings", str(toml)])
        return capsys.readouterr().out

    @contextmanager
    def alive() -> Iterator[None]:
        daemon = Daemon(box, ask=root(box))
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            yield
        finally:
            daemon.stop()
            thread.join()

    boot.write_text("one\n")
    with alive():
        assert work.prepare(made) == "one"
        assert work.begin(made, "one") == Progress("WAITING", "customer", detail="Interruption: not measured yet.")
        assert made.id in say() and not (box.errands_run / "restart").exists()
        say("--now")
        wait((box.errands_run / "restart").exists)
        assert work.begin(made, "one") == Progress("RUNNING", step="restarting", by="command")
    shutil.rmtree(box.errands_run)  # as the power does
    boot.write_text("two\n")
    with alive():
        assert work.begin(made, "one") == Progress("RUNNING", step="proving", by="command")
        wait(lambda: work.begin(made, "one").state == "SUCCEEDED")
    with alive():
        assert work.begin(made, "one").state == "SUCCEEDED" and not (box.errands_run / "restart").exists()
        assert "succeeded" in say()
