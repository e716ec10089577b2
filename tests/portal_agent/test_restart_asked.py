"""The centre's people ask for a restart: the owner reads why and how long, and says when, or no."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from pagebox import Browser

from sekisho.appliance.core.desk import Desk
from sekisho.firmware.keeper.journal import Choice
from sekisho.firmware.reboot import desk
from sekisho.firmware.reboot.keeping import Reboots
from sekisho.firmware.reboot.machine import Journal, Wanted

JOB = "job 01ARZ3NDEKTSV4RRFFQ69G5FAV"


class Nothing:
    """Eyes that are not asked."""

    look = watch = lambda _: None


@pytest.fixture
def reboots(owner: Browser) -> Iterator[Reboots]:
    settings = owner.box.settings
    made = Reboots(settings, Nothing, lambda *_: None, "boot", threaded=False)  # type: ignore[arg-type]
    served = Desk(desk.socket_of(settings), (), made.answer)
    list(made.answer(msgspec.json.encode(desk.Ask(JOB, "boot", reason="<b>メモリ不足</b>"))))
    yield made
    served.close()


def wanted(reboots: Reboots) -> Wanted:
    found = reboots.machine.journal.wanted
    assert found is not None
    return found


def test_the_owner_reads_why_and_what_it_interrupts_in_both_languages(owner: Browser, reboots: Reboots) -> None:
    page = owner.get("/care").text
    assert "&lt;b&gt;メモリ不足" in page and "いつにするかは、あなたが決めます" in page
    assert "まだ測ったことがありません" in page
    reboots.machine.journal = Journal(wanted=wanted(reboots), history=(40.0, 44.0))
    owner.post("/language", {"to": "en", "page": "/care"})
    page = owner.get("/care").text
    assert "By this box's last 2 it takes about 44 s" in page.replace("&#39;", "'")
    assert "It does not restart before you do" in page


def test_now_tonight_and_no_are_the_owners_words_and_are_kept_on_the_record(owner: Browser, reboots: Reboots) -> None:
    for form in ({"when": "now"}, {"when": "tonight", "at": "25:00"}, {"when": "reboot -f"}, {"when": "window"}):
        owner.post("/care/wanted", {"job": JOB, **form})
        assert wanted(reboots).choice is None, form
    owner.post("/care/wanted", {"job": "job 0", "when": "now", "sure": "yes"})
    assert wanted(reboots).choice is None
    owner.post("/care/wanted", {"job": JOB, "when": "tonight", "at": "02:30"})
    choice = wanted(reboots).choice
    assert choice is not None and choice.by == "local-page" and choice.at > 0
    owner.post("/care/wanted", {"job": JOB, "when": "now", "sure": "yes"})
    assert isinstance(choice := wanted(reboots).choice, Choice) and choice.at == 0
    owner.post("/care/wanted", {"job": JOB, "when": "no"})
    assert reboots.machine.journal.wanted is None
    page = owner.get("/care").text
    assert "センターの再起動の時を選択" in page and "センターの再起動を断り" in page
    owner.post("/care/wanted", {"job": JOB, "when": "now", "sure": "yes"})
    assert reboots.machine.journal.wanted is None, "it does not wait any more"
