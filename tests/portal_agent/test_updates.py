"""The owner says on the box's page when new software is used; the firmware daemon's own desk answers behind it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import msgspec
import pytest
from pagebox import Browser

from sekisho.appliance.core.desk import Desk
from sekisho.firmware.keeper import desk, facts
from sekisho.firmware.keeper.journal import Attempt, Ended, Journal, Running, State, Took
from sekisho.firmware.published import Release
from sekisho.policy.overlay import Restart
from sekisho.portal_agent import words

EVERY_NIGHT = Restart(days=("mon", "tue", "wed", "thu", "fri", "sat", "sun"), start="03:00", hours=2)
RELEASE = Release(
    counter=7, version="1.7.0", hardware="amd64", tier=3, built="2026-11-01T00:00:00Z", path="fw/amd64/7.raucb",
    sha256="0" * 64, length=9, blocks=["0" * 64], unpacked=9,
    notes_ja="弱点をふさぎます <b>", notes_en="Closes a hole <b>",
)  # fmt: skip


class Daemon:
    """The desk of the firmware daemon over a journal that a test writes."""

    def __init__(self) -> None:
        self.journal = Journal(running=Running(counter=6, version="1.6.0"), newest=7, newest_version="1.7.0")
        self.weekly: Restart | None = None
        self.heard: list[facts.Event] = []
        self.counter = desk.Counter(
            lambda: self.journal, lambda: self.journal.running, lambda: (self.weekly, "Asia/Tokyo"), self.heard.append,
            lambda: "",
        )  # fmt: skip

    def way(self, **changes: object) -> None:
        attempt = Attempt(state=State.STAGED, counter=7, version="1.7.0", tier=3, release=RELEASE)
        attempt = msgspec.structs.replace(attempt, **changes)
        self.journal = msgspec.structs.replace(self.journal, attempt=attempt)


@pytest.fixture
def daemon(owner: Browser) -> Iterator[Daemon]:
    made = Daemon()
    serving = Desk(owner.box.settings.firmware_socket, (), made.counter.answer)
    yield made
    serving.close()


def test_the_page_says_so_when_the_daemon_is_away(owner: Browser) -> None:
    assert "いまのソフトウエアのまま、検査は続いています" in owner.get("/updates").text


def test_what_is_new_is_said_in_the_owners_language_with_what_it_interrupts(owner: Browser, daemon: Daemon) -> None:
    assert "番号 7(版 1.7.0)があります" in owner.get("/updates").text
    daemon.way(deadline=time.time() + 86400, urgent=True)
    page = owner.get("/updates").text
    assert (
        "弱点をふさぎます &lt;b&gt;" in page
        and "まだ測ったことがありません" in page
        and "勝手に再起動することはありません" in page
    )
    took = tuple(Took(3, seconds) for seconds in (40.0, 44.0))
    daemon.journal = msgspec.structs.replace(daemon.journal, history=took)
    assert "過去 2 回から見て、44 秒ほど" in owner.get("/updates").text
    owner.post("/language", {"to": "en", "page": "/updates"})
    page = owner.get("/updates").text
    assert "Closes a hole &lt;b&gt;" in page and "about 44 s" in page and "not even by a power cut" in page


def test_now_tonight_in_the_window_and_later_are_the_owners_words(owner: Browser, daemon: Daemon) -> None:
    daemon.way()
    daemon.weekly = EVERY_NIGHT
    before = time.time()
    for form in (
        {"when": "now", "sure": "yes"}, {"when": "tonight", "at": "02:30"}, {"when": "window"},
        {"when": "later", "wait": "week"},
    ):  # fmt: skip
        assert owner.post("/updates/choice", {"number": "7"} | form).status_code == 303
    now, tonight, window, later = daemon.heard
    assert isinstance(now, facts.Chosen) and now.choice.by == "local-page" and not now.choice.at
    assert now.choice.until <= time.time() + desk.NOW_S, "a box that is off until then asks again"
    assert isinstance(tonight, facts.Chosen) and before < tonight.choice.at <= before + 86_401
    assert time.localtime(tonight.choice.at)[3:5] == (2, 30)
    assert isinstance(window, facts.Chosen) and window.choice.window
    assert isinstance(later, facts.Postponed) and later.until > before + 6 * 86_400
    record = owner.get("/care").text
    assert "ソフトウエアの切り替えを選択" in record and "ソフトウエアの切り替えを先送り" in record


@pytest.mark.parametrize(
    "form",
    [
        {}, {"when": "now", "number": "7"}, {"when": "now", "sure": "yes"},
        {"when": "tonight", "number": "7", "at": "26:00"},
        {"when": "later", "number": "7", "wait": "for ever"}, {"when": "now", "sure": "yes", "number": "7; reboot"},
        {"when": "now", "sure": "yes", "number": "９"}, {"when": "force", "number": "7"},
    ],
    ids=str,
)  # fmt: skip
def test_an_unclear_word_changes_nothing(owner: Browser, daemon: Daemon, form: dict[str, str]) -> None:
    daemon.way()
    assert owner.post("/updates/choice", form).status_code == 303
    assert daemon.heard == []
    assert "何も変わっていません" in owner.get("/updates").text


def test_a_word_for_another_release_or_without_a_window_is_refused(owner: Browser, daemon: Daemon) -> None:
    daemon.way()
    assert owner.post("/updates/choice", {"when": "now", "sure": "yes", "number": "6"}).status_code == 409
    daemon.weekly = None
    assert owner.post("/updates/choice", {"when": "window", "number": "7"}).status_code == 409
    daemon.way(state=State.TRIAL)
    assert owner.post("/updates/choice", {"when": "now", "sure": "yes", "number": "7"}).status_code == 409
    assert daemon.heard == []


def test_every_state_and_every_end_has_its_words(owner: Browser, daemon: Daemon) -> None:
    said = words.sentences()["software"]
    for state, tier in itertools.product(State, (1, 3)):
        daemon.way(state=state, tier=tier)
        daemon.journal = msgspec.structs.replace(
            daemon.journal, last=Ended(counter=5, state=state, why="gate:rules", at="2026-11-21T10:00:00Z")
        )
        key = f"is_{state}" if f"is_{state}" in said else f"end_{state}"
        assert key in said
        page = owner.get("/updates")
        assert page.status_code == 200 and said[key].ja in page.text
