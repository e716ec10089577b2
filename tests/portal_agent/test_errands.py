"""Root carries out the page's wishes, in closed words and once; restarts have their hour and tell what they took."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from pagebox import Box, Browser

from sekisho.appliance.core.errors import PeerError, RejectedInput
from sekisho.portal_agent import errands, wishes
from sekisho.portal_agent.restarts import KEPT, LATE_S, NOT_DONE_S, Kept, Plan, Restarts, tonight
from sekisho.portal_agent.wishes import Enrol, Restart


def run(box: Box) -> int:
    argv = [sys.executable, "-I", "-m", "sekisho.portal_agent.errands", "--settings", str(box.settings_file)]
    return subprocess.run(argv, check=False, capture_output=True).returncode


def test_a_restart_is_carried_out_once(box: Box) -> None:
    wishes.make(box.settings, Restart())
    with pytest.raises(RejectedInput):
        wishes.make(box.settings, Restart())
    assert run(box) == 0
    restart = wishes.restart_file(box.settings)
    assert restart.exists()
    restart.unlink()
    assert run(box) == 0 and not restart.exists()
    told = wishes.outcome(box.settings)
    assert told is not None and (told.wish, told.word) == ("restart", "done")
    assert not wishes.waits(box.settings)


@pytest.mark.parametrize(
    "wish",
    [
        b"", b"{}", b"[]", b'{"wish":"shell","run":"id"}', b'{"wish":"restart","argv":["sh"]}',
        b'{"wish":"enrol","centre":"http://c.example","code":"A"}',
        b'{"wish":"enrol","centre":"https://c.example/$(id)","code":"A"}',
        b'{"wish":"enrol","centre":"https://user@c.example","code":"A"}',
        b'{"wish":"restart"}' + b" " * 5000,
    ],
)  # fmt: skip
def test_what_is_no_wish_is_thrown_away(box: Box, wish: bytes) -> None:
    wishes.wish_file(box.settings).write_bytes(wish)
    assert run(box) == 2
    assert not wishes.restart_file(box.settings).exists() and not wishes.waits(box.settings)
    told = wishes.outcome(box.settings)
    assert told is not None and told.word == "refused"


def test_a_wish_of_somebody_else_or_through_a_link_is_not_heard(box: Box) -> None:
    path = wishes.wish_file(box.settings)
    path.write_bytes(b'{"wish":"restart"}')
    os.chown(path, 65534, 65534)
    assert run(box) == 2
    target = box.folder / "target"
    target.write_bytes(b'{"wish":"restart"}')
    path.symlink_to(target)
    assert run(box) == 2
    os.mkfifo(path)
    assert run(box) == 2
    assert not wishes.restart_file(box.settings).exists() and target.exists()


def test_an_address_without_a_centre_is_said_and_the_code_is_written_nowhere(box: Box) -> None:
    code = "0123-4567-89AB-CDEF-GHJK-MNPQ-RSTV-WXYZ-0"
    wishes.make(box.settings, Enrol("https://127.0.0.1:9", code))
    assert wishes.wish_file(box.settings).stat().st_mode & 0o077 == 0
    run(box)
    told = wishes.outcome(box.settings)
    assert told is not None and told.word in ("refused", "unreachable")
    left = [path for path in box.folder.rglob("*") if path.is_file() and code.encode() in path.read_bytes()]
    assert left == []


def test_the_pages_form_makes_the_wish_and_tells_what_became_of_it(owner: Browser) -> None:
    box = owner.box
    owner.post("/care/enrol", {"centre": "javascript:alert(1)", "code": "A"})
    assert "何も送っていません" in owner.get("/care").text and not wishes.waits(box.settings)
    owner.post("/care/enrol", {"centre": "centre.example", "code": "0123-4567"})
    assert wishes.waits(box.settings) and "いま実行しています" in owner.get("/care").text
    assert run(box) == 2
    assert "コードが違うか、もう使われています" in owner.get("/care").text
    assert "0123-4567" not in (box.settings.page_state / "record.jsonl").read_text()


def test_the_form_restarts_now_tonight_and_not_now(owner: Browser) -> None:
    restarts = owner.box.office.restarts
    owner.post("/care/restart", {"when": "now"})
    assert restarts.kept.plan is None, "not without the tick"
    owner.post("/care/restart", {"when": "tonight", "at": "25:00"})
    owner.post("/care/restart", {"when": "reboot -f"})
    assert restarts.kept.plan is None
    owner.post("/care/restart", {"when": "tonight", "at": "02:30"})
    assert restarts.kept.plan is not None and " 02:30 に再起動する予定です" in owner.get("/care").text
    owner.post("/care/restart", {"when": "never"})
    assert restarts.kept.plan is None
    owner.post("/care/restart", {"when": "now", "sure": "yes"})
    assert owner.box.wait(lambda: wishes.waits(owner.box.settings)), "the daemon did not ask for it"


class Told:
    """Counts restarts that are asked for; `broken` refuses."""

    def __init__(self) -> None:
        self.times, self.broken = 0, False

    def __call__(self) -> None:
        if self.broken:
            raise PeerError("no")
        self.times += 1


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_plan_outlives_the_daemon_and_is_carried_out_at_its_hour_once(tmp_path: Path, told: Told) -> None:
    path = tmp_path / "restart.json"
    Restarts(path, told).plan(1000.0)
    again = Restarts(path, told)
    assert not again.turn(999.0, "boot-1", inspecting=True)
    assert again.turn(1000.0, "boot-1", inspecting=True) and told.times == 1
    assert not Restarts(path, told).turn(1001.0, "boot-1", inspecting=True) and told.times == 1


def test_what_a_restart_took_is_measured_until_inspection_is_back(tmp_path: Path, told: Told) -> None:
    path = tmp_path / "restart.json"
    first = Restarts(path, told)
    for number in range(KEPT + 2):
        first.plan(1000.0)
        first.turn(1000.0, f"boot-{number}", inspecting=True)
        after = Restarts(path, told)
        after.turn(1050.0, f"boot-{number + 1}", inspecting=False)
        assert after.kept.asked
        after.turn(1060.0 + number, f"boot-{number + 1}", inspecting=True)
        assert after.kept.took_s[-1] == 60.0 + number and not after.kept.asked
        first = after
    assert len(first.kept.took_s) == KEPT


def test_a_restart_that_did_not_happen_or_whose_hour_passed_is_said(tmp_path: Path, told: Told) -> None:
    restarts = Restarts(tmp_path / "restart.json", told)
    restarts.plan(1000.0)
    assert not restarts.turn(1000.0 + LATE_S + 1, "b", inspecting=True) and told.times == 0
    assert restarts.kept.not_done and restarts.kept.plan is None
    restarts.plan(10_000.0)
    restarts.turn(10_000.0, "b", inspecting=True)
    assert not restarts.kept.not_done
    restarts.turn(10_001.0 + NOT_DONE_S, "b", inspecting=True)
    assert restarts.kept.not_done and restarts.kept.took_s == []
    told.broken = True
    restarts.plan(20_000.0)
    with pytest.raises(PeerError):
        restarts.turn(20_000.0, "b", inspecting=True)
    assert restarts.kept.not_done and restarts.kept.plan is None, "and it is not tried for ever"


def test_a_clock_that_was_set_meanwhile_measures_nothing(tmp_path: Path, told: Told) -> None:
    restarts = Restarts(tmp_path / "restart.json", told)
    restarts.plan(1000.0)
    restarts.turn(1000.0, "a", inspecting=True)
    restarts.turn(900.0, "b", inspecting=True)
    assert restarts.kept.took_s == [] and not restarts.kept.asked


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"plan": {"at": "x"}}', b"\xff" * 100])
def test_a_damaged_plan_is_none(tmp_path: Path, told: Told, content: bytes) -> None:
    path = tmp_path / "restart.json"
    path.write_bytes(content)
    assert Restarts(path, told).kept == Kept()


def test_a_wish_of_the_centres_has_its_place_and_is_told_as_its(owner: Browser) -> None:
    path = owner.box.settings.page_state / "restart.json"
    path.write_bytes(msgspec.json.encode(Kept(plan=Plan(4e9, "centre"))))
    owner.box.office.restarts = Restarts(path, lambda: None)
    assert "見守りセンターの希望で" in owner.get("/care").text


@pytest.mark.parametrize(("hour", "minute", "days"), [(23, 0, 0), (12, 0, 1), (2, 30, 1), (12, 1, 0)])
def test_tonight_is_the_next_time_the_clock_says_so(hour: int, minute: int, days: int) -> None:
    now = dt.datetime(2026, 11, 21, 12, 0, 0, tzinfo=dt.UTC)
    at = tonight(hour, minute, now)
    assert (at.day - now.day, at.hour, at.minute) == (days, hour, minute) and at > now


def test_only_the_pages_user_and_root_may_wish() -> None:
    assert 0 in errands._page_uids() and 65534 not in errands._page_uids()
