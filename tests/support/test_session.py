"""Help from afar: nobody looks before the office allows it, nor a moment longer, and every look leaves a trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import pytest

from sekisho.appliance.core import settings as box_settings
from sekisho.appliance.core.errors import PeerError, RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.jobs import Job, Kind
from sekisho.appliance.core.journal import JournalWriter
from sekisho.appliance.core.settings import Settings
from sekisho.portal_agent.jobs.runner import Never
from sekisho.portal_agent.support import desks, diagnosis, session
from sekisho.portal_agent.support.desks import Support
from sekisho.portal_agent.support.session import Allow, Refuse, Session, Sessions, Show
from sekisho.telemetry.events import Diagnosis, decode

ASKED, OTHER = "0" * 26, "1" * 26
REASON = {"reason": "外に出られないとの連絡", "minutes": "60"}


@pytest.fixture
def box(tmp_path: Path) -> Settings:
    return box_settings.parse(f'box = "b"\ntenant = "t"\n[paths]\nrun = "{tmp_path}/run"\nstate = "{tmp_path}/state"\n')


@pytest.fixture
def support(box: Settings) -> Iterator[Support]:
    made = Support(box)
    yield made
    made.close()


def job(kind: Kind, ident: str = ASKED, **args: str) -> Job:
    return Job(id=ident, boxes=["b"], kind=kind, args=args, nbf=0, exp=1 << 40)


def reports(box: Settings) -> list[Diagnosis]:
    found = [decode(line) for line in (box.journals / "diagnosis.jsonl").read_bytes().splitlines()]
    return [one for one in found if isinstance(one, Diagnosis)]


def test_nobody_looks_before_the_office_allows_it(box: Settings, support: Support) -> None:
    with pytest.raises(Never, match="no_session"):
        support.prepare(job("diag.collect"))
    assert support.begin(job("support.open", **REASON), "").why == "customer"
    with pytest.raises(Never, match="no_session"):
        support.prepare(job("diag.collect", OTHER))
    assert support.begin(job("diag.collect", OTHER), "").state == "REJECTED"
    assert reports(box) == []


def test_while_it_is_allowed_each_look_is_reported_and_counted(box: Settings, support: Support) -> None:
    opening = job("support.open", **REASON)
    support.begin(opening, "")
    desks.ask(box, Allow(ASKED, 30, "local-page"))
    assert support.look(opening, "").state == "RUNNING"
    support.prepare(job("diag.collect", OTHER))
    assert support.begin(job("diag.collect", OTHER), "").state == "SUCCEEDED"
    (report,) = reports(box)
    assert report.job == OTHER
    shown = desks.ask(box, Show())
    assert shown is not None
    assert (shown.looks, shown.minutes, shown.by) == (1, 30, "local-page")


class Died(BaseException):
    """The power is off."""


@pytest.mark.protocol("P58")
@pytest.mark.parametrize("boot", ["the same", "another"])
def test_wherever_it_dies_one_report_leaves_that_is_counted_and_told(
    box: Settings, monkeypatch: pytest.MonkeyPatch, boot: str
) -> None:
    """At each step of what lasts, and at its end, before the jobs daemon could note the answer."""
    steps, fails_at = 0, 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == fails_at:
            raise Died

    def saving(path: Path, data: bytes, mode: int) -> None:
        step()
        write_atomic(path, data, mode)
        step()

    def appending(writer: JournalWriter, line: bytes, *, durable: bool = True) -> None:
        step()
        append(writer, line, durable=durable)
        step()

    append = JournalWriter.append
    monkeypatch.setattr(session, "write_atomic", saving)
    monkeypatch.setattr(JournalWriter, "append", appending)
    ends = []
    for fails_at in (1, 2, 3, 4, 5):
        asked, collecting = job("support.open", f"{fails_at}" * 26, **REASON), job("diag.collect", f"{fails_at}A" * 13)
        monkeypatch.setattr(desks, "boot_id", lambda: "boot-1")
        fails, fails_at = fails_at, 0
        with closing(Support(box)) as support:
            support.begin(asked, "")
            desks.ask(box, Allow(asked.id, 30, "local-page"))
            steps, fails_at = 0, fails
            with suppress(Died):
                support.begin(collecting, "")
        fails_at = 0
        if boot == "another":
            monkeypatch.setattr(desks, "boot_id", lambda: "boot-2")
        with closing(Support(box)) as support:
            before = sum(one.job == collecting.id for one in reports(box))
            assert support.withdraw(collecting, "", "REJECTED") == ("sent" if before else "")
            ended = support.begin(collecting, "").state
            shown = desks.ask(box, Show())
            if boot == "the same":
                desks.ask(box, Refuse(asked.id, "local-page"))
        left = sum(one.job == collecting.id for one in reports(box))
        assert shown is not None
        assert left == (ended == "SUCCEEDED") and left <= shown.looks <= left + 1, (fails, ended, shown)
        ends.append(ended)
    again = boot == "the same"
    assert ends == (["SUCCEEDED"] * 5 if again else ["REJECTED"] * 3 + ["SUCCEEDED"] * 2)


def test_the_office_ends_it_at_any_moment(box: Settings, support: Support) -> None:
    opening = job("support.open", **REASON)
    support.begin(opening, "")
    desks.ask(box, Allow(ASKED, 30, "local-page"))
    desks.ask(box, Refuse(ASKED, "local-page"))
    assert (support.look(opening, "").state, support.begin(job("diag.collect", OTHER), "").state) == (
        "SUCCEEDED",
        "REJECTED",
    )
    with pytest.raises(RejectedInput):
        desks.ask(box, Allow(ASKED, 30, "local-page"))


def test_a_refusal_is_an_end_and_cannot_be_asked_away(box: Settings, support: Support) -> None:
    opening = job("support.open", **REASON)
    support.begin(opening, "")
    desks.ask(box, Refuse(ASKED, "local-page"))
    assert (support.look(opening, "").state, support.look(opening, "").why) == ("REJECTED", "customer")
    assert support.begin(opening, "").state == "REJECTED"


def test_the_centre_can_end_it_and_not_open_it(box: Settings, support: Support) -> None:
    support.begin(job("support.open", **REASON), "")
    desks.ask(box, Allow(ASKED, 30, "local-page"))
    assert support.begin(job("support.close", OTHER, job=ASKED), "").state == "SUCCEEDED"
    shown = desks.ask(box, Show())
    assert shown is not None
    assert (shown.state, shown.by) == ("over", f"job {OTHER}")


def test_a_second_session_waits_for_nobody(support: Support) -> None:
    support.begin(job("support.open", **REASON), "")
    with pytest.raises(Never, match="busy"):
        support.begin(job("support.open", OTHER, **REASON), "")


@pytest.mark.parametrize(
    "args",
    [{}, {"reason": ""}, {"reason": "x" * 201}, {"reason": "x", "minutes": "241"}, {"reason": "x", "shell": "y"}],
)
def test_what_a_session_is_not_made_of_is_refused(support: Support, args: dict[str, str]) -> None:
    with pytest.raises(Never):
        support.prepare(job("support.open", **args))


def test_it_ends_by_itself_by_a_clock_nobody_can_set_and_with_the_boot(tmp_path: Path) -> None:
    path = tmp_path / "support.json"
    one = Sessions(path, "boot-1")
    one.ask(Session(job=ASKED, reason="r", minutes=30), 100.0, "at")
    one.hear(Allow(ASKED, 240, "x"), 100.0, "at")
    now = one.newest(100.0 + 30 * 60 - 1, "at")
    assert now is not None
    assert now.state == "open", "more was allowed than was asked for"
    later = Sessions(path, "boot-1").newest(100.0 + 30 * 60, "at")
    assert later is not None
    assert (later.state, later.by) == ("over", "time")
    one = Sessions(path, "boot-1")
    one.ask(Session(job=OTHER, reason="r", minutes=30), 100.0, "at")
    one.hear(Allow(OTHER, 30, "x"), 100.0, "at")
    reborn = Sessions(path, "boot-2").newest(101.0, "at")
    assert reborn is not None
    assert (reborn.state, reborn.by) == ("over", "boot")


def test_a_session_that_is_over_is_not_asked_for_again_after_another(tmp_path: Path) -> None:
    """The daemon looks at the first again when the second has begun: its time ran out meanwhile."""
    made = Sessions(tmp_path / "support.json", "b")
    made.ask(Session(job=ASKED, reason="r", minutes=5), 1.0, "at")
    made.hear(Allow(ASKED, 5, "local-page"), 1.0, "at")
    made.looked()
    made.ask(Session(job=OTHER, reason="r", minutes=5), 400.0, "at")
    again = made.ask(Session(job=ASKED, reason="r", minutes=5), 401.0, "at")
    assert (again.state, again.by, again.looks) == ("over", "time", 1)
    now = made.newest(402.0, "at")
    assert now is not None
    assert (now.job, now.state) == (OTHER, "asked")


def test_a_damaged_file_opens_nothing(tmp_path: Path) -> None:
    path = tmp_path / "support.json"
    path.write_text('{"state":"open"')
    assert Sessions(path, "b").newest(1.0, "at") is None


def test_a_box_whose_jobs_daemon_is_away_says_so(box: Settings) -> None:
    with pytest.raises(PeerError):
        desks.ask(box, Show())


def test_the_report_claims_nothing_that_nobody_said(box: Settings, tmp_path: Path) -> None:
    found = diagnosis.collect(box, "", net=tmp_path / "net")
    assert {port.role: port.link for port in found.ports} == {"lan": "unknown", "wan": "unknown"}
    assert (found.phase, found.engine_canary, found.connected) == ("unknown", "untried", False)
    assert {"appliance", "inspect"} <= set(found.silent)


def test_the_report_holds_nothing_of_the_office(box: Settings, tmp_path: Path) -> None:
    """Only numbers and words of closed lists: what is text is of the product, a time, or a job's number."""
    port = tmp_path / "net" / box.bridge.lan
    (port / "statistics").mkdir(parents=True)
    (port / "carrier").write_text("1\n")
    (port / "address").write_text("02:00:5e:10:00:01\n")
    (port / "ifalias").write_text("canary-of-the-office\n")
    (port / "speed").write_text("1000\n")
    text = msgspec.json.encode(diagnosis.collect(box, OTHER, net=tmp_path / "net")).decode()
    assert "02:00:5e" not in text
    assert "canary" not in text.replace("engine_canary", "").replace("scanner_canary", "")
    lan = json.loads(text)["ports"][0]
    assert (lan["link"], lan["speed"]) == ("up", 1000)
