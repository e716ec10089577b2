"""The owner is asked before anyone looks, in plain words, and ends it with one press."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pagebox import Browser

from sekisho.appliance.core.jobs import Job
from sekisho.portal_agent.support import desks
from sekisho.portal_agent.support.desks import Support
from sekisho.portal_agent.support.session import Session, Show

ASKED = "0" * 26


@pytest.fixture
def support(browser: Browser) -> Iterator[Support]:
    made = Support(browser.box.settings)
    reason = {"reason": "<b>ネットが遅い</b>", "minutes": "60"}
    made.begin(Job(id=ASKED, boxes=["b"], kind="support.open", args=reason, nbf=0, exp=1 << 40), "")
    yield made
    made.close()


def session(browser: Browser) -> Session:
    found = desks.ask(browser.box.settings, Show())
    assert found is not None
    return found


def test_the_owner_reads_why_and_for_how_long_allows_it_and_ends_it(browser: Browser, support: Support) -> None:
    browser.sign_in()
    page = browser.get("/care").text
    assert "最長 60 分" in page
    assert "&lt;b&gt;ネットが遅い" in page
    browser.post("/care/support", {"job": ASKED, "word": "allow", "minutes": "30", "sure": "yes"})
    assert (session(browser).state, session(browser).minutes) == ("open", 30)
    assert "あと 30 分" in browser.get("/care").text
    browser.post("/care/support", {"job": ASKED, "word": "refuse"})
    assert session(browser).state == "over"
    page = browser.get("/care").text
    assert "遠隔サポートの点検を許可" in page, "it is not on the record"
    assert "support" not in page, "it is still offered"


@pytest.mark.parametrize(
    "form", [{"word": "allow", "minutes": "30"}, {"word": "allow", "minutes": "x", "sure": "yes"}, {"word": "allow"}]
)
def test_nothing_is_allowed_by_mistake(browser: Browser, support: Support, form: dict[str, str]) -> None:
    browser.sign_in()
    browser.post("/care/support", {"job": ASKED, **form})
    assert session(browser).state == "asked"


def test_a_word_that_was_not_heard_is_not_called_done(browser: Browser, support: Support) -> None:
    browser.sign_in()
    browser.post("/care/support", {"job": ASKED, "word": "allow", "minutes": "30", "sure": "yes"})
    support._desk.close()
    browser.post("/care/support", {"job": ASKED, "word": "refuse"})
    assert "まだ何も変わっていません" in browser.get("/care").text
