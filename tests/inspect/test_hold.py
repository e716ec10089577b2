"""The hold's decisions, every branch: one truthful outcome per file, "blocked" only for withheld bytes."""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import replace

import pytest
from playbook import Playbook

from sekisho.appliance.core import marks
from sekisho.inspect.gate import TO_CLIENT, TO_SERVER, Ends, Kind, Note
from sekisho.inspect.hold import (
    CACHE_SIZE,
    Command,
    Cut,
    CutDone,
    Done,
    Event,
    Expect,
    FileSeen,
    Hold,
    HoldEngine,
    Keep,
    Meta,
    NoteRaised,
    Pass,
    Release,
    Report,
    Resolve,
    Scan,
    ScanDone,
)
from sekisho.inspect.worker import Object, Result
from sekisho.telemetry.events import Outcome

SHA = "ab" * 32
META = Meta("203.0.113.9", 80, "10.0.0.10", 4000, "http", "a.exe")
ENDS = Ends("10.0.0.10", 4000, "203.0.113.9", 80, marks.HTTP)
FLOW = 7
SEEN = FileSeen(FLOW, TO_CLIENT, META, "CLOSED", True, SHA, 10, "/store/a")
SCAN = Scan(1, "file", FLOW, TO_CLIENT, "/store/a", 10, name="a.exe")
KNOWN = replace(SCAN, what="frame", name="")
"""The shortest job there is: it takes about as long as the completing packet needs to arrive."""
HOLD, RESOLVE = Hold(FLOW, TO_CLIENT), Resolve(FLOW, TO_CLIENT)


def report(
    token: int, outcome: Outcome, reason: str = "", rules: tuple[str, ...] = (), *,
    meta: Meta = META, sha: str = SHA, size: int = 10, ms: float = 0.0,
) -> Report:  # fmt: skip
    return Report(token, meta, outcome, reason, rules, sha, size, ms)


def note(kind: Kind, length: int = 50, ends: Ends | None = ENDS) -> NoteRaised:
    return NoteRaised(Note(kind, FLOW, TO_CLIENT, length), ends)


def bare(app: str = "http") -> Meta:
    return Meta("203.0.113.9", 80, "10.0.0.10", 4000, app)


def test_a_clean_file_goes_on_and_is_said_to_be_clean() -> None:
    with Playbook(HoldEngine()) as play:
        play(SEEN, HOLD, SCAN)
        play(ScanDone(1, Result(1)), RESOLVE, report(1, "clean", ms=5000.0), Done(1), after_s=5)


def test_a_bad_file_is_kept_and_cut_and_blocked_only_once_bytes_were_withheld() -> None:
    with Playbook(HoldEngine()) as play:
        play(SEEN, HOLD, SCAN)
        play(ScanDone(1, Result(1, rules=["Bad"])), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 100), report(1, "blocked", rules=("Bad",)), Done(1))


def test_a_cut_that_withheld_nothing_waits_for_the_packet_on_its_way() -> None:
    with Playbook(HoldEngine()) as play:
        play(SEEN, HOLD, SCAN)
        play(ScanDone(1, Result(1, rules=["Bad"])), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 0))
        play(note(Kind.WITHHELD), report(1, "blocked", rules=("Bad",)), Done(1))
        play(note(Kind.GONE, ends=None))


def test_a_cut_after_the_receiver_had_it_all_is_not_called_blocked() -> None:
    with Playbook(HoldEngine()) as play:
        play(SEEN, HOLD, SCAN)
        play(ScanDone(1, Result(1, rules=["Bad"])), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 0))
        play(note(Kind.GONE, ends=None), report(1, "delivered_then_found", rules=("Bad",)), Done(1))


def test_a_verdict_is_remembered_until_the_rules_change() -> None:
    engine = HoldEngine()
    with Playbook(engine) as play:
        play(SEEN, HOLD, SCAN)
        play(ScanDone(1, Result(1)), RESOLVE, report(1, "clean"), Done(1))
        play(SEEN, HOLD, replace(KNOWN, token=2))
        play(ScanDone(2, Result(2)), RESOLVE, report(2, "clean"), Done(2))
        play(replace(SEEN, state="TRUNCATED"), HOLD, replace(SCAN, token=3))
        play(ScanDone(3, Result(3)), RESOLVE, report(3, "clean"), Done(3))
        engine.forget_verdicts()
        play(SEEN, HOLD, replace(SCAN, token=4))
        play(ScanDone(4, Result(4)), RESOLVE, report(4, "clean"), Done(4))


def test_a_known_bad_file_is_cut_without_a_new_verdict() -> None:
    with Playbook(HoldEngine(cache=OrderedDict({SHA: ("Bad",)}))) as play:
        play(SEEN, HOLD, KNOWN)
        play(ScanDone(1, Result(1)), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 1), report(1, "blocked", rules=("Bad",)), Done(1))


def test_the_memory_of_verdicts_is_bounded() -> None:
    engine = HoldEngine()
    for number in range(CACHE_SIZE + 10):
        seen = replace(SEEN, flow=0, sha256=f"{number:064x}")
        engine.handle(seen, 0.0)
        engine.handle(ScanDone(number + 1, Result(number + 1)), 0.0)
    assert len(engine.cache) == CACHE_SIZE
    assert not engine.cases


def test_a_file_the_engine_did_not_store_is_released_and_said_so() -> None:
    with Playbook(HoldEngine()) as play:
        play(replace(SEEN, stored=False), HOLD, RESOLVE, report(1, "released_by_policy", "not_stored"), Done(1))


@pytest.mark.parametrize("error", ["timeout", "damaged", "worker_lost"])
def test_a_failed_scan_follows_the_policy(error: str) -> None:
    with Playbook(HoldEngine()) as play:
        play(SEEN, HOLD, SCAN)
        play(ScanDone(1, Result(1, error=error)), RESOLVE, report(1, "released_by_policy", error), Done(1))
    with Playbook(HoldEngine(block_unscanned=True)) as play:
        play(SEEN, HOLD, SCAN)
        play(ScanDone(1, Result(1, error=error)), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 9), report(1, "blocked", error), Done(1))


def test_what_could_not_be_scanned_and_was_delivered_is_released_by_policy() -> None:
    with Playbook(HoldEngine(block_unscanned=True)) as play:
        play(SEEN, HOLD, SCAN)
        play(ScanDone(1, Result(1, error="timeout")), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 0))
        play(note(Kind.GONE, ends=None), report(1, "released_by_policy", "timeout"), Done(1))


def test_detect_only_reports_and_stops_nothing() -> None:
    with Playbook(HoldEngine(block=False, block_unscanned=True)) as play:
        play(SEEN, HOLD, SCAN)
        done = report(1, "released_by_policy", "detect_only", ("Bad",))
        play(ScanDone(1, Result(1, rules=["Bad"])), RESOLVE, done, Done(1))
        play(replace(SEEN, sha256="cd" * 32), HOLD, replace(SCAN, token=2))
        failed = report(2, "released_by_policy", "timeout", sha="cd" * 32)
        play(ScanDone(2, Result(2, error="timeout")), RESOLVE, failed, Done(2))


def test_a_verdict_after_the_deadline_does_not_release_twice() -> None:
    with Playbook(HoldEngine()) as play:
        play(SEEN, HOLD, SCAN)
        play(note(Kind.EXPIRED), RESOLVE)
        play(note(Kind.EXPIRED, 60), Release(FLOW, TO_CLIENT, 60, 0))
        play(ScanDone(1, Result(1)), report(1, "released_by_policy", "timeout"), Done(1))


def test_found_after_the_deadline_is_cut_and_told_as_it_ended() -> None:
    with Playbook(HoldEngine()) as play:
        play(SEEN, HOLD, SCAN)
        play(note(Kind.EXPIRED), RESOLVE)
        play(ScanDone(1, Result(1, rules=["Bad"])), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 0))
        play(note(Kind.GONE, ends=None), report(1, "delivered_then_found", rules=("Bad",)), Done(1))


def test_the_deadline_blocks_where_the_owner_wants_that() -> None:
    with Playbook(HoldEngine(block_unscanned=True)) as play:
        play(SEEN, HOLD, SCAN)
        play(note(Kind.EXPIRED), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 5), report(1, "blocked", "timeout"), Done(1))
        play(ScanDone(1, Result(1, rules=["Bad"])))


def test_a_pause_is_looked_at_and_goes_on() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE), Scan(1, "stream", FLOW, TO_CLIENT, length=50, http=True))
        play(ScanDone(1, Result(1, finished=20)), Release(FLOW, TO_CLIENT, 50, 20), Done(1))


def test_a_bad_stream_is_kept_and_cut() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.COMPLETE), Scan(1, "stream", FLOW, TO_CLIENT, length=50, http=True))
        play(ScanDone(1, Result(1, rules=["Bad"], sha256=SHA, size=44)), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 50), report(1, "blocked", rules=("Bad",), meta=bare(), size=44), Done(1))


def test_a_look_that_failed_or_expired_lets_go_by_policy() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE), Scan(1, "stream", FLOW, TO_CLIENT, length=50, http=True))
        failed = report(1, "released_by_policy", "timeout", meta=bare(), sha="", size=0)
        play(ScanDone(1, Result(1, error="timeout")), Release(FLOW, TO_CLIENT, 50, 0), failed, Done(1))
        play(note(Kind.PAUSE), Scan(2, "stream", FLOW, TO_CLIENT, length=50, http=True))
        play(note(Kind.EXPIRED), Release(FLOW, TO_CLIENT, 50, 0))
        seen = [Object(SHA, 40)]
        late = report(2, "released_by_policy", "timeout", meta=bare(), size=40)
        play(ScanDone(2, Result(2, objects=seen)), late, Done(2))


def test_past_the_depth_the_gate_frames_judges_and_reports() -> None:
    with Playbook(HoldEngine()) as play:
        play(replace(SEEN, state="TRUNCATED", deep=True), Done(1))
        play(note(Kind.DEEP), Scan(2, "frame", FLOW, TO_CLIENT, length=50, http=True))
        play(ScanDone(2, Result(2, end=900)), Expect(FLOW, TO_CLIENT, 900), Done(2))
        play(note(Kind.COMPLETE, 900), Scan(3, "stream", FLOW, TO_CLIENT, length=900, http=True))
        found = Result(3, finished=900, objects=[Object(SHA, 880)])
        play(ScanDone(3, found), Release(FLOW, TO_CLIENT, 900, 900), report(3, "clean", size=880), Done(3))
        play(note(Kind.PAUSE, 30), Scan(4, "stream", FLOW, TO_CLIENT, length=30, http=True))
        unfinished = Result(4, objects=[Object(SHA, 10, complete=False)])
        play(ScanDone(4, unfinished), Release(FLOW, TO_CLIENT, 30, 0), Done(4))
        play(note(Kind.COMPLETE, 40), Scan(5, "stream", FLOW, TO_CLIENT, length=40, http=True))
        ended = Result(5, objects=[Object(SHA, 20, complete=False)])
        nameless = report(5, "clean", meta=bare(), size=20)
        play(ScanDone(5, ended), Release(FLOW, TO_CLIENT, 40, 0), nameless, Done(5))
        play(note(Kind.GONE, ends=None))


def test_too_big_is_passed_or_cut_by_policy_and_said() -> None:
    passed = report(1, "released_by_policy", "too_large", meta=bare(), sha="", size=50)
    with Playbook(HoldEngine()) as play:
        play(note(Kind.TOO_BIG), Pass(FLOW, TO_CLIENT), passed, Done(1))
    with Playbook(HoldEngine(block_unscanned=True)) as play:
        play(note(Kind.TOO_BIG), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 5), report(1, "blocked", "too_large", meta=bare(), sha="", size=50), Done(1))


def test_shed_is_said() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.SHED), report(1, "released_by_policy", "memory", meta=bare(), sha="", size=50), Done(1))


def test_a_restart_tells_late_and_never_says_blocked() -> None:
    late = replace(SEEN, flow=0, dir=0, late=True)
    with Playbook(HoldEngine()) as play:
        play(late, replace(SCAN, flow=0, dir=0))
        found = report(1, "delivered_then_found", "restart", ("Bad",))
        play(ScanDone(1, Result(1, rules=["Bad"])), Keep(1), found, Done(1), after_s=9)
        other = replace(late, sha256="cd" * 32)
        play(other, replace(SCAN, token=2, flow=0, dir=0))
        play(ScanDone(2, Result(2)), report(2, "clean", "restart", sha="cd" * 32), Done(2))


def test_a_file_on_a_flow_that_was_cut_is_part_of_that_outcome() -> None:
    with Playbook(HoldEngine(cache=OrderedDict({SHA: ("Bad",)}))) as play:
        play(SEEN, HOLD, KNOWN)
        play(ScanDone(1, Result(1)), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 1), report(1, "blocked", rules=("Bad",)), Done(1))
        play(replace(SEEN, state="TRUNCATED"), Done(2))
        play(note(Kind.PAUSE), Scan(3, "stream", FLOW, TO_CLIENT, length=50, http=True))
        play(ScanDone(3, Result(3)), Done(3))


def test_two_bad_files_on_one_flow_share_its_fate() -> None:
    other = replace(SEEN, sha256="cd" * 32)
    for withheld, told in ((7, "blocked"), (0, "delivered_then_found")):
        with Playbook(HoldEngine()) as play:
            play(SEEN, HOLD, SCAN)
            play(other, HOLD, replace(SCAN, token=2))
            play(ScanDone(1, Result(1, rules=["Bad"])), Keep(1), Cut(1, FLOW, TO_CLIENT))
            outcome: Outcome = "blocked" if told == "blocked" else "delivered_then_found"
            first = (report(1, outcome, rules=("Bad",)), Done(1))
            second = (report(2, outcome, rules=("Bad",), sha="cd" * 32), Done(2))
            play(CutDone(1, withheld), *(first if withheld else ()))
            play(ScanDone(2, Result(2, rules=["Bad"])), Keep(2), *(second if withheld else ()))
            play(note(Kind.GONE, ends=None), *(() if withheld else (*first, *second)))


def test_a_scan_that_ends_after_the_deadlines_cut_adds_its_rules_and_no_second_outcome() -> None:
    with Playbook(HoldEngine(block_unscanned=True)) as play:
        play(SEEN, HOLD, SCAN)
        play(note(Kind.EXPIRED), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 0))
        play(ScanDone(1, Result(1, rules=["Bad"])), Keep(1))
        play(note(Kind.WITHHELD), report(1, "blocked", rules=("Bad",)), Done(1))
    with Playbook(HoldEngine(block_unscanned=True)) as play:
        play(SEEN, HOLD, SCAN)
        play(note(Kind.EXPIRED), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 0))
        play(ScanDone(1, Result(1)))
        play(note(Kind.WITHHELD), report(1, "blocked", "timeout"), Done(1))


def test_found_after_the_connection_was_gone_is_told_at_once() -> None:
    with Playbook(HoldEngine()) as play:
        play(SEEN, HOLD, SCAN)
        play(note(Kind.EXPIRED), RESOLVE)
        play(note(Kind.GONE, ends=None))
        play(
            ScanDone(1, Result(1, rules=["Bad"])),
            Keep(1), report(1, "delivered_then_found", rules=("Bad",)), Done(1),
        )  # fmt: skip


def test_a_long_ftp_file_is_told_once() -> None:
    long, big = bare("ftp-data"), 2 << 20
    ends = replace(ENDS, kind=marks.FTPDATA)
    with Playbook(HoldEngine()) as play:
        play(note(Kind.COMPLETE, big, ends), Scan(1, "stream", FLOW, TO_CLIENT, length=big))
        found = Result(1, objects=[Object(SHA, big)])
        play(ScanDone(1, found), Release(FLOW, TO_CLIENT, big, 0), report(1, "clean", meta=long, size=big), Done(1))
        play(replace(SEEN, flow=0, meta=replace(long, file_name="a"), size=1 << 20), Done(2))


def test_notes_of_a_flow_that_is_gone_ask_nothing() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE, ends=None))
        play(ScanDone(99, Result(99)))
        play(CutDone(99, 1))
        play(note(Kind.WITHHELD))


def test_the_sender_is_named_by_kind_and_direction() -> None:
    for kind, app in ((marks.HTTP, "http"), (marks.FTPDATA, "ftp-data"), (marks.MAIL, "smtp")):
        engine = HoldEngine()
        ends = replace(ENDS, kind=kind)
        shed = engine.handle(NoteRaised(Note(Kind.SHED, FLOW, TO_SERVER, 1), ends), 0.0)
        assert isinstance(shed[0], Report)
        assert shed[0].meta == Meta("10.0.0.10", 4000, "203.0.113.9", 80, app)


@pytest.mark.parametrize("seed", range(40))
def test_no_order_of_events_says_blocked_without_withheld_bytes_or_loses_a_file(seed: int) -> None:
    """Random events, faithful answers: every file has one outcome at the end."""
    rng = random.Random(seed)
    engine = HoldEngine(block=rng.random() < 0.8, block_unscanned=rng.random() < 0.5)
    files, reports, scans, cuts, withheld = 0, list[Report](), list[Scan](), set[int](), set[int]()
    flow = 0

    def act(event: Event) -> None:
        took: list[Command] = engine.handle(event, 0.0)
        reports.extend(c for c in took if isinstance(c, Report))
        scans.extend(c for c in took if isinstance(c, Scan))
        for cut in (c for c in took if isinstance(c, Cut)):  # the adapter answers at once; a second cut finds nothing
            count = 0 if cut.flow in cuts else rng.choice((0, 5))
            cuts.add(cut.flow)
            withheld.update({cut.flow} if count else ())
            act(CutDone(cut.token, count))

    def answer() -> None:
        if scans:
            scan = scans.pop(rng.randrange(len(scans)))
            rules = ["Bad"] if rng.random() < 0.4 else []
            act(ScanDone(scan.token, Result(scan.token, rules, "" if rules else rng.choice(("", "timeout")))))

    for _ in range(60):
        if rng.random() < 0.4:
            flow, files = flow + 1, files + 1
            act(replace(SEEN, flow=flow, sha256=f"{flow:064x}", stored=rng.random() < 0.9))
        elif flow and rng.random() < 0.2:
            act(NoteRaised(Note(Kind.EXPIRED, rng.randrange(1, flow + 1), TO_CLIENT, 1), ENDS))
        answer()
    while scans:
        answer()
    for number in sorted(engine.undecided):
        kind = rng.choice((Kind.WITHHELD, Kind.GONE))
        withheld.update({number} if kind is Kind.WITHHELD else ())
        act(NoteRaised(Note(kind, number, TO_CLIENT, 1), ENDS))
    assert len(reports) == files
    assert {int(r.sha256, 16) for r in reports} == set(range(1, files + 1))
    assert {int(r.sha256, 16) for r in reports if r.outcome == "blocked"} <= withheld
    assert not engine.cases
