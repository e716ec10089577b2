"""The one word of the first screen says what is seen and nothing better; numbers come from the real writers' files."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import msgspec
import pytest
from pagebox import Box, Browser

from sekisho.appliance import covering, status
from sekisho.appliance.core import standing, utc
from sekisho.appliance.core.settings import Inspection, Signatures
from sekisho.appliance.core.standing import Standing
from sekisho.appliance.coverage import Away, Hour, State, Tally
from sekisho.appliance.engine import EngineState
from sekisho.appliance.inventory import Known
from sekisho.appliance.meter import Reading
from sekisho.appliance.status import Status
from sekisho.appliance.watchdog import Part
from sekisho.portal_agent import state
from sekisho.signatures.keeper import counter
from sekisho.signatures.keeper.journal import Journal, Kept, Step


def seen(engine: str = "", gate: str = "", fail: str = "open", **about: Any) -> Status:
    facts: dict[str, Any] = {"phase": "running", "rules_expected": 9, "rules_loaded": 9}
    told = EngineState(**(facts | about))
    return Status(1, time.monotonic(), "", fail, told, Part("engine", engine), Part("gate", gate))


@pytest.mark.parametrize(
    ("told", "word"),
    [
        (seen(), "protected"),
        (seen(phase="reloading"), "protected"),
        (seen(phase="starting"), "starting"),
        (seen("stopped", "stopped", phase="starting"), "starting"),
        (seen("stopped", "hung"), "open"),
        (seen("hung"), "partly"),
        (seen(gate="stopped"), "partly"),
        (seen("stopped", "hung", "closed"), "closed"),
        (seen("stopped", fail="closed"), "closed"),
        (seen("stopped", "stopped", "closed", phase="starting"), "closed"),
        (seen(rules_loaded=0), "partly"),
        (seen(rules_failed=3), "partly"),
        (seen(phase="stopped"), "starting"),
        (None, "silent"),
        (msgspec.structs.replace(seen(), at_mono=-60.0), "silent"),
    ],
)
def test_the_word(box: Box, told: Status | None, word: str) -> None:
    """A negative time is so long before the test."""
    if told is not None:
        told.at_mono = time.monotonic() + min(0.0, told.at_mono)
    assert state.judge(told, box.settings) == word


def test_detect_only_is_never_called_protected(box: Box) -> None:
    settings = msgspec.structs.replace(box.settings, inspection=Inspection(mode="detect"))
    assert state.judge(seen(), settings) == "watching"


@pytest.mark.parametrize("who", ["engine", "scanner"])
def test_an_inspector_without_its_rules_is_not_called_protection(box: Box, who: standing.Who) -> None:
    status.write(box.settings, seen())
    now = dt.datetime.now().astimezone()
    whole = Standing(at=time.monotonic(), set_id="ab", rules=9, expected=9, canary="caught")
    standing.write(box.settings, who, whole)
    assert state.facts(box.settings, now).word == "protected"
    for lacking in ({"rules": 0}, {"rules": 8}, {"failed": 1}):
        standing.write(box.settings, who, msgspec.structs.replace(whole, **lacking))
        assert state.facts(box.settings, now).word == "partly", lacking
    standing.write(box.settings, who, msgspec.structs.replace(whole, rules=0, at=time.monotonic() - 60))
    assert state.facts(box.settings, now).word == "protected", "an old word is none; the status has its own age"


def test_the_rules_shown_are_those_that_the_inspectors_count(box: Box) -> None:
    status.write(box.settings, seen())
    for who, rules in (("engine", 20116), ("scanner", 5883)):
        found = Standing(at=time.monotonic(), set_id="ab", rules=rules, expected=rules, canary="caught")
        standing.write(box.settings, who, found)  # type: ignore[arg-type]
    facts = state.facts(box.settings, dt.datetime.now().astimezone())
    assert (facts.rules, facts.file_rules, facts.rules_refused) == (20116, 5883, False)


def keeper(box: Box, **about: Any) -> None:
    """The fetching daemon's own account, as it writes it."""
    checked = utc.text(dt.datetime.now(dt.UTC) - dt.timedelta(hours=about.pop("hours", 1)))
    active = Kept(id="ab" * 32, number=12, built=checked)
    found = Journal(**{"active": active, "checked": checked, **about})
    counter.show(box.settings, found, time.monotonic(), "", "")


def test_how_fresh_the_rules_are_is_said_without_the_centre(box: Box, browser: Browser) -> None:
    status.write(box.settings, seen())
    now = dt.datetime.now().astimezone()
    assert state.facts(box.settings, now).updates == state.Updates("own")
    assert "自動更新は使っていません" in browser.get("/").text
    for hours, grade in ((1, "fresh"), (30, "aging"), (80, "stale")):
        keeper(box, hours=hours)
        facts = state.facts(box.settings, now)
        assert (facts.updates.grade, facts.updates.number) == (grade, 0), "nobody says yet that the set is in force"
        assert ("rules_old" in facts.troubles) == (grade == "stale")
    keeper(box, refused={13: "broken", 9: "older"}, step=Step.SOAK)
    standing.write(box.settings, "engine", Standing(at=time.monotonic(), set_id="ab" * 32, rules=9, expected=9))
    found = state.facts(box.settings, now)
    assert (found.updates.grade, found.updates.number, found.updates.refused) == ("fresh", 12, 13)
    assert "rules_refused" in found.troubles and found.updates.soaking
    page = browser.get("/").text
    assert "ルールセットの番号 12" in page and "番号 13 は試したところ問題があった" in page and "最新です" in page
    channel = Signatures(channel="https://updates.example/")
    counter.shown_at(box.settings).unlink()
    assert state.facts(msgspec.structs.replace(box.settings, signatures=channel), now).updates.grade == "silent"


def test_a_damaged_status_is_silence(box: Box) -> None:
    status.path_of(box.settings).write_bytes(b"{")
    assert state.facts(box.settings, dt.datetime.now().astimezone()).word == "silent"


def counted(box: Box, hour: dt.datetime, off: float, devices: dict[str, Tally]) -> Hour:
    made = Hour(hour.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:00:00Z"), 3600.0, off, devices)
    folder = covering.folder_of(box.settings)
    folder.mkdir(exist_ok=True)
    (folder / f"{made.hour.replace(':', '')}.json").write_bytes(msgspec.json.encode(made))
    return made


def running(box: Box, hour: dt.datetime, off: float, devices: dict[str, Tally]) -> None:
    """The running hour as the appliance keeps it."""
    now = counted(box, hour, off, devices)
    folder = covering.folder_of(box.settings)
    (folder / f"{now.hour.replace(':', '')}.json").unlink()
    state = State(Reading("boot", {}), 0.0, Away(), now, stopped=True)
    (folder / "now.json").write_bytes(msgspec.json.encode(state))


def test_what_was_off_since_midnight_is_summed_and_yesterday_is_not(box: Box) -> None:
    noon = dt.datetime.now().astimezone().replace(hour=12, minute=30)
    assert state.facts(box.settings, noon).off_today_s is None, "nothing counted is not nothing off"
    counted(box, noon - dt.timedelta(days=1), 100.0, {})
    counted(box, noon - dt.timedelta(hours=3), 20.0, {})
    running(box, noon, 3.0, {})
    assert state.facts(box.settings, noon).off_today_s == 23.0


def test_old_rules_heat_and_a_full_disk_are_said(box: Box) -> None:
    now = dt.datetime.now().astimezone()
    current = box.settings.sets / "current"
    current.mkdir(parents=True)
    (current / "set.json").write_text('{"built_at": "2020-01-01T00:00:00Z"}')
    facts = state.facts(box.settings, now)
    assert facts.rules_age_d is not None and facts.rules_age_d > 1000 and "rules_old" in facts.troubles
    full = msgspec.structs.replace(facts, disk=0.95, temperature_c=90.0, rules_refused=True)
    assert set(full.troubles) == {"rules_old", "hot", "disk_full", "rules_refused"}
    (current / "set.json").write_text('{"built_at": "2999-01-01T00:00:00Z"}')
    assert state.facts(box.settings, now).rules_age_d is None, "a clock behind its rules tells no age"


def test_devices_are_shown_with_their_share_and_a_stranger_among_them(owner: Browser) -> None:
    box, now = owner.box, dt.datetime.now(dt.UTC)
    at = "2026-11-21T10:00:00.000000Z"
    names = {"02:00:00:00:00:01": "tanaka-pc", "02:00:00:00:00:02": "<i>\u202ex", "02:00:00:00:00:03": "idle"}
    known = {mac: Known(at, at, ["192.168.1.9"], name=name, kind="computer") for mac, name in names.items()}
    (box.settings.state / "inventory.json").write_bytes(msgspec.json.encode(known))
    assert owner.get("/devices").text.count("まだ数えていません") == 3
    shares = {
        "02:00:00:00:00:01": Tally(90, 10),
        "02:00:00:00:00:02": Tally(80, 0, 0, {"engine_stopped": 20}),
        "02:00:00:00:00:99": Tally(5),
    }
    running(box, now, 7.0, shares)
    page = owner.get("/devices").text
    assert (
        page.count("検査を通っています") == 1
        and page.count("一部が素通りしました") == 1
        and page.count("通信なし") == 1
    )
    assert "&lt;i&gt;" in page and "\u202e" not in page
    assert "一覧にない送り主が 1 ありました" in page and "engine_stopped" in page and "0:00:07" in page
