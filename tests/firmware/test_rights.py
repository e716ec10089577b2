"""Root does what the firmware daemon wishes in closed words, once; the machine says what runs and why it started."""

from __future__ import annotations

import datetime as dt
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from firmware_world import release

from sekisho.appliance.core import boot as core_boot
from sekisho.appliance.core.desk import Desk
from sekisho.appliance.core.envelope import Sealed
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.orders import Orders
from sekisho.appliance.core.settings import Firmware, Paths, Settings
from sekisho.center import updates
from sekisho.firmware import button, errands, stage, wishes
from sekisho.firmware.gates.eyes import Eyes
from sekisho.firmware.keeper import desk, facts, here, windows
from sekisho.firmware.keeper.effects import Effects
from sekisho.firmware.keeper.journal import Attempt, Choice, Journal, Place, State
from sekisho.firmware.keeper.sight import Sight
from sekisho.firmware.source import Source
from sekisho.policy import overlay
from sekisho.policy.overlay import Overlay, Restart, Update

NOW = 1_790_000_000.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(box="box-1", paths=Paths(run=str(tmp_path / "run"), state=str(tmp_path / "state")))
    for folder in (made.run, made.state, made.firmware_run, made.firmware_state):
        folder.mkdir()
    return made


@pytest.fixture
def box(settings: Settings, tmp_path: Path) -> Path:
    path = tmp_path / "box.toml"
    path.write_text(
        f'box = "box-1"\n[firmware]\nreleases = "{tmp_path}/releases"\nlink = "{tmp_path}/venv"\n'
        f'[paths]\nrun = "{settings.run}"\nstate = "{settings.state}"\n'
    )
    return path


def errand(box: Path) -> int:
    argv = [sys.executable, "-I", "-m", "sekisho.firmware.errands", "--settings", str(box)]
    return subprocess.run(argv, check=False, capture_output=True).returncode


@pytest.mark.parametrize(
    "wish",
    [
        b"", b"[]", b'{"number":"a","wish":{"wish":"shell","run":"id"}}',
        b'{"number":"a","wish":{"wish":"anew","now":1}}',
        b'{"number":"../a","wish":{"wish":"anew"}}', b'{"number":"a","wish":{"wish":"switch","to":"../../etc"}}',
        b'{"number":"a","wish":{"wish":"switch","to":"7-0123456789abcdef/.."}}',
        b'{"number":"a","wish":{"wish":"mark","what":"bad"}}',
        b'{"number":"a","wish":{"wish":"anew"}}' + b" " * (1 << 20),
    ],
)  # fmt: skip
def test_what_is_no_wish_is_thrown_away_and_nothing_is_done(settings: Settings, box: Path, wish: bytes) -> None:
    wishes.wish_file(settings).write_bytes(wish)
    assert errand(box) == 2
    assert not wishes.wish_file(settings).exists() and not settings.errands_run.exists()


def test_a_wish_of_somebody_else_or_through_a_link_is_not_heard(settings: Settings, tmp_path: Path) -> None:
    path, wish = wishes.wish_file(settings), msgspec.json.encode(wishes.Numbered("a", wishes.Anew()))
    path.write_bytes(wish)
    os.chown(path, 12345, -1)
    with pytest.raises(RejectedInput):
        errands.take(settings)
    (tmp_path / "elsewhere").write_bytes(wish)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RejectedInput):
        errands.take(settings)
    assert not path.is_symlink()


def test_a_directory_in_a_wish_s_place_is_put_away(settings: Settings, box: Path) -> None:
    """What stayed there would have root's errand started again and again, and no wish be heard any more."""
    path = wishes.wish_file(settings)
    for _ in range(2):
        (path / "full").mkdir(parents=True)
        assert errand(box) == 2
        assert not path.exists()
    path.write_bytes(msgspec.json.encode(wishes.Numbered("anew-4", wishes.Anew())))
    assert errand(box) == 0


def test_no_release_that_something_would_run_from_is_removed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the daemon says it wants to keep: the other slot's programs are its way back."""
    root, link = tmp_path / "releases", tmp_path / "venv"
    found = msgspec.structs.replace(settings, firmware=Firmware(releases=str(root), link=str(link)))
    names = {}
    for counter in range(1, 8):
        made = release(counter)
        names[counter] = stage.path_of(made, root).name
        (root / names[counter] / "venv").mkdir(parents=True)
        (root / names[counter] / "release.json").write_bytes(msgspec.json.encode(made))
    slots = tmp_path / "slots"
    monkeypatch.setattr(errands, "SLOTS", slots)
    for at, counter in ((link, 2), (tmp_path / "venv.former", 3), (slots / "A" / "venv", 4), (slots / "B" / "venv", 5)):
        at.parent.mkdir(parents=True, exist_ok=True)
        at.symlink_to(root / names[counter] / "venv")
    errands.carry_out(found, wishes.Remove((names[1],)))
    assert {one.release.counter for one in stage.staged(root)} == {1, 2, 3, 4, 5}


def test_a_restart_is_a_file_of_roots_made_once_for_one_wish(settings: Settings, box: Path) -> None:
    """Who asks again for a wish that was carried out hears of it; it is not done twice."""
    path, restart = wishes.wish_file(settings), settings.errands_run / "restart"
    stop = threading.Event()

    def root() -> None:
        while not stop.wait(0.02):
            if path.exists():
                errand(box)

    serving = threading.Thread(target=root)
    serving.start()
    try:
        assert wishes.ask(settings, "anew-1", wishes.Anew(), 30).word == "done"
        assert restart.exists()
        restart.unlink()
        assert wishes.ask(settings, "anew-1", wishes.Anew(), 30).word == "done"
        assert not restart.exists()
        with pytest.raises(DeviceFault, match="not on this box"):
            wishes.ask(settings, "stage-7", wishes.Stage(release(7).name), 30)
    finally:
        stop.set()
        serving.join()


def test_a_wish_written_again_while_it_was_carried_out_is_not_done_again(settings: Settings, box: Path) -> None:
    """Its daemon was killed meanwhile; the successor asks for the same and hears the outcome of the first."""
    path, restart = wishes.wish_file(settings), settings.errands_run / "restart"
    path.write_bytes(msgspec.json.encode(wishes.Numbered("anew-3", wishes.Anew())))
    assert errand(box) == 0 and restart.exists()
    restart.unlink()
    before = wishes.outcome_file(settings).read_bytes()
    path.write_bytes(msgspec.json.encode(wishes.Numbered("anew-3", wishes.Anew())))
    assert errand(box) == 0
    assert not restart.exists() and wishes.outcome_file(settings).read_bytes() == before
    path.write_bytes(msgspec.json.encode(wishes.Numbered("anew-3", wishes.Anew())))
    assert wishes.ask(settings, "anew-3", wishes.Anew(), 30).word == "done"
    assert not path.exists(), "nothing is left for a next errand"


def test_an_errand_nobody_carries_out_is_given_up_and_taken_back(settings: Settings) -> None:
    with pytest.raises(DeviceFault):
        wishes.ask(settings, "anew-2", wishes.Anew(), 0.0)
    assert not wishes.wish_file(settings).exists()


def test_going_back_asks_for_a_switch_even_where_the_link_is_back_already(tmp_path: Path) -> None:
    """A daemon may run the bad release still, whatever the link names."""
    told = {"releases": f"{tmp_path}/releases", "link": f"{tmp_path}/venv"}
    found = msgspec.convert({"box": "b", "firmware": told}, Settings)
    before = Place(release="6-0123456789abcdef")
    asked = []

    def ask(number: str, wish: wishes.Wish, limit_s: float) -> wishes.Outcome:
        asked.append(wish)
        return wishes.Outcome(number, "done")

    effects = Effects(found, Source(found), Eyes(found), ask, lambda: False, lambda: None)
    attempt = Attempt(state=State.REVERTING, counter=7, before=before)
    effects.go_back(attempt)
    assert asked == [], "where there is no link nothing was ever switched"
    (tmp_path / "releases" / before.release / "venv").mkdir(parents=True)
    (tmp_path / "venv").symlink_to(tmp_path / "releases" / before.release / "venv")
    effects.go_back(attempt)
    assert asked == [wishes.Switch(before.release, back=True)]


# What the machine says of itself


def test_why_the_machine_started_is_told_from_what_it_kept(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot, dog = tmp_path / "boot_id", tmp_path / "bootstatus"
    monkeypatch.setattr(core_boot, "BOOT_ID", boot)
    monkeypatch.setattr(here, "WATCHDOG", dog)
    monkeypatch.setattr(here, "PANICKED", tmp_path / "panicked")

    def starts(name: str) -> str:
        boot.write_text(name + "\n")
        return here.started(settings).reason

    assert starts("a") == "same", "nothing is known of a time before the first"
    assert starts("a") == "same"
    assert starts("b") == "power_loss"
    here.stopping(settings)
    assert starts("b") == "same", "the daemon alone was renewed"
    assert starts("c") == "power_loss"
    here.stopping(settings)
    assert starts("d") == "ordered"
    dog.write_text("32\n")
    assert starts("e") == "watchdog"
    dog.write_text("0\n")
    (tmp_path / "panicked").mkdir()
    assert starts("f") == "panic"


def test_what_runs_is_read_from_the_link_and_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "COMMAND_LINE", tmp_path / "cmdline")
    monkeypatch.setattr(here, "IMAGE", tmp_path / "image.json")
    (tmp_path / "cmdline").write_text("root=/dev/mapper/root ro rauc.slot=B sekisho.attempt=1\n")
    (tmp_path / "image.json").write_text('{"counter":5,"version":"1.5.0","hardware":"amd64"}')
    found = msgspec.convert(
        {"box": "b", "firmware": {"releases": f"{tmp_path}/releases", "link": f"{tmp_path}/venv"}}, Settings
    )
    running = here.running(found)
    assert (running.counter, running.version, running.place.release, running.place.slot) == (5, "1.5.0", "", "B")
    folder = tmp_path / "releases" / "7-0123456789abcdef"
    (folder / "venv").mkdir(parents=True)
    (folder / "release.json").write_bytes(msgspec.json.encode(release(7)))
    (tmp_path / "venv").symlink_to(folder / "venv")
    running = here.running(found)
    assert (running.counter, running.place.release, running.place.slot) == (7, "7-0123456789abcdef", "B")
    assert here.slot_of("quiet splash") == ""


def test_the_way_back_to_what_the_system_came_with_is_noted_before_it_is_left(tmp_path: Path) -> None:
    told = {"releases": f"{tmp_path}/opt/releases", "link": f"{tmp_path}/opt/venv"}
    found = msgspec.convert({"box": "b", "firmware": told}, Settings)
    came, new = tmp_path / "usr" / "sekisho", tmp_path / "opt" / "releases" / "7-0123456789abcdef"
    for folder in (came, new):
        (folder / "venv").mkdir(parents=True)
    link = tmp_path / "opt" / "venv"
    link.symlink_to(came / "venv")
    assert errands._remembered(found, new.name) == new
    link.unlink()
    link.symlink_to(new / "venv")
    assert errands._remembered(found, "") == came
    assert errands._remembered(found, new.name) == new and errands._remembered(found, "") == came


# The customer's settings


def order(settings: Settings, wanted: Overlay, box: str = "box-1") -> None:
    document = Orders(n=1, tenant="default", box=box, policy=msgspec.Raw(overlay.encode(wanted)))
    settings.orders.parent.mkdir(exist_ok=True)
    settings.orders.unlink(missing_ok=True)
    settings.orders.write_bytes(msgspec.json.encode(Sealed(msgspec.json.encode(document), b"s", b"c")))


@pytest.fixture
def sight(settings: Settings) -> Sight:
    return Sight(settings, Eyes(settings), lambda: NOW)


WAITS = Journal(attempt=Attempt(state=State.STAGED, counter=7, tier=3))


def test_a_choice_made_in_the_portal_counts_once_for_the_release_it_names(settings: Settings, sight: Sight) -> None:
    assert sight.chosen(WAITS, NOW) is None
    weekly = Restart(days=("sun",), start="03:00")
    order(settings, Overlay(zone="Asia/Tokyo", restart=weekly, firmware=Update(counter=7, when="now", since=int(NOW))))
    said = sight.chosen(WAITS, NOW)
    assert isinstance(said, facts.Chosen) and said.choice.by == "portal" and not said.choice.window
    assert sight.weekly() == (weekly, "Asia/Tokyo")
    assert sight.chosen(msgspec.structs.replace(WAITS, heard=int(NOW)), NOW) is None, "once"
    other = msgspec.structs.replace(WAITS, attempt=Attempt(state=State.STAGED, counter=8, tier=3))
    assert sight.chosen(other, NOW) is None, "for no other release"
    assert not sight.look(WAITS.attempt).asap


def test_a_choice_that_is_heard_too_late_or_meant_for_another_box_is_none(settings: Settings, sight: Sight) -> None:
    late = Update(counter=7, when="tonight", since=int(NOW) - 9000, until=int(NOW) - 1)
    order(settings, Overlay(firmware=late))
    assert sight.chosen(WAITS, NOW) is None
    order(settings, Overlay(firmware=Update(counter=7, when="now", since=int(NOW)), firmware_asap=True), box="box-2")
    assert sight.chosen(WAITS, NOW) is None and not sight.look(None).asap
    order(settings, Overlay(firmware=Update(counter=7, when="later", since=int(NOW) + 900), firmware_asap=True))
    said = sight.chosen(WAITS, NOW)
    assert isinstance(said, facts.Postponed) and said.until == NOW + 900
    assert sight.look(None).asap, "the contract's word, signed with the customer's settings"
    settings.orders.write_bytes(b"damaged")
    assert sight.look(None).asap, "what was read last holds"


def test_every_later_choice_in_the_portal_counts_however_far_ahead_the_one_before_lay(
    settings: Settings, sight: Sight
) -> None:
    waiting = updates.Release(7, "1.7.0", 3, "staged", "", "", "", 0.0, 0.0, "", "")
    decided, journal = Overlay(restart=Restart(days=("sun",), start="03:00")), WAITS
    evening = dt.datetime(2026, 9, 21, 11, 0, tzinfo=dt.UTC)  # 20:00 in Tokyo
    told = []
    for when in ("tonight", "window", "later", "now", "later", "tonight"):
        decided = updates.choice(waiting, when, evening, "Asia/Tokyo", "田中", decided)
        order(settings, decided)
        said = sight.chosen(journal, evening.timestamp())
        assert isinstance(said, facts.Chosen | facts.Postponed), when
        told.append(said.choice.window if isinstance(said, facts.Chosen) else "later")
        journal = msgspec.structs.replace(journal, heard=said.serial)
        assert sight.chosen(journal, evening.timestamp()) is None, "once"
    assert told == [False, True, "later", False, "later", False], "also within one second"


def test_a_choice_heard_too_late_takes_back_the_one_before(settings: Settings, sight: Sight) -> None:
    tonight = Choice(by="portal", at=NOW + 60, until=NOW + 9000)
    waits = msgspec.structs.replace(WAITS, attempt=Attempt(state=State.STAGED, counter=7, tier=3, choice=tonight))
    late = Update(counter=7, when="now", since=int(NOW) - 9000, until=int(NOW) - 1, chosen=int(NOW) - 9000)
    order(settings, Overlay(firmware=late))
    said = sight.chosen(waits, NOW)
    assert isinstance(said, facts.Chosen) and windows.over(said.choice, NOW), "nothing happens, and it is asked again"


# The button


def key(code: int, value: int) -> bytes:
    return struct.pack("llHHi", 0, 0, button.EV_KEY, code, value)


def test_only_the_restart_key_held_for_three_seconds_acts_and_once() -> None:
    press = button.Press()
    press.read(key(button.KEY_RESTART, 1), 10.0)
    assert not press.held(12.9)
    press.read(key(button.KEY_RESTART, 2), 12.95)  # the kernel repeats a key that is held
    assert press.held(13.0) and not press.held(20.0)
    press.read(key(button.KEY_RESTART, 0) + key(button.KEY_RESTART, 1), 21.0)
    press.read(key(button.KEY_RESTART, 0), 23.0)
    assert not press.held(30.0), "a duster"
    press.read(key(30, 1) + b"cut short", 31.0)
    assert not press.held(40.0)


@pytest.fixture
def asked(settings: Settings) -> Iterator[tuple[list[facts.Event], list[Journal]]]:
    heard, journals = list[facts.Event](), [Journal()]
    counter = desk.Counter(
        lambda: journals[-1], lambda: journals[-1].running, lambda: (None, ""), heard.append, lambda: ""
    )
    serving = Desk(settings.firmware_socket, (), counter.answer)
    yield heard, journals
    serving.close()


def test_the_button_says_now_to_what_waits_and_nothing_when_nothing_does(
    settings: Settings, tmp_path: Path, asked: tuple[list[facts.Event], list[Journal]], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, journals = asked
    (tmp_path / "input").mkdir()
    os.mkfifo(tmp_path / "input" / "event0")
    monkeypatch.setattr(button, "has_key", lambda _: True)
    monkeypatch.setattr(button, "HELD_S", 0.05)
    made = button.Button(settings, tmp_path / "input")
    made.turn(time.monotonic())
    with (tmp_path / "input" / "event0").open("wb", buffering=0) as pressing:
        for journal, expected in ((journals[0], 0), (WAITS, 1)):
            journals.append(journal)
            pressing.write(key(button.KEY_RESTART, 1))
            made.turn(time.monotonic())
            time.sleep(0.06)
            made.turn(time.monotonic())
            assert len(heard) == expected
    assert isinstance(heard[0], facts.Chosen) and heard[0].choice.by == "button" and heard[0].counter == 7
