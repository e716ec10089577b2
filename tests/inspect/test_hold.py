"""The hold's decisions, every branch: one truthful outcome per file, "blocked" only for withheld bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import pytest
from playbook import BLOCKING, ENDS, FLOW, SHA, Playbook, bare, note, report, stream

from sekisho.appliance.core import marks
from sekisho.inspect.gate import TO_CLIENT, TO_SERVER, Kind, Note
from sekisho.inspect.hold import (
    Assemble,
    Assembled,
    Cut,
    CutDone,
    Done,
    Expect,
    Gather,
    HoldEngine,
    Keep,
    Meta,
    NoteRaised,
    Pass,
    Release,
    Report,
    ScanDone,
)
from sekisho.inspect.worker import Object, Result
from sekisho.telemetry.events import Outcome

BAD = Result(1, objects=[Object(SHA, 10, rules=["Bad"])])
OTHER = "cd" * 32


def engine(**more: object) -> HoldEngine:
    """One that withholds whatever could not be looked at."""
    return HoldEngine(block_reasons=BLOCKING, **more)  # type: ignore[arg-type]  # the test's own values


def test_a_pause_is_looked_at_and_goes_on() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE), stream(1))
        play(ScanDone(1, Result(1, finished=20)), Release(FLOW, TO_CLIENT, 50, 20), Done(1))


def test_a_clean_object_is_told_when_it_is_complete_and_once() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE), stream(1))
        half = Result(1, objects=[Object(OTHER, 5, complete=False)], end=80)
        play(ScanDone(1, half), Expect(FLOW, TO_CLIENT, 80), Release(FLOW, TO_CLIENT, 50, 0), Done(1))
        play(note(Kind.COMPLETE, 80), stream(2, 80))
        whole = Result(2, objects=[Object(SHA, 10)], finished=80)
        play(ScanDone(2, whole), Release(FLOW, TO_CLIENT, 80, 80), report(2, "clean", ms=5000.0), Done(2), after_s=5)


def test_the_expected_end_counts_from_the_streams_beginning() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE, base=1000), stream(1))
        play(
            ScanDone(1, Result(1, objects=[Object(SHA, 5, complete=False)], end=80)),
            Expect(FLOW, TO_CLIENT, 1080), Release(FLOW, TO_CLIENT, 50, 0), Done(1),
        )  # fmt: skip


def test_what_was_told_and_still_lies_in_the_spool_is_not_told_again() -> None:
    seen = Object(SHA, 10)
    with Playbook(HoldEngine()) as play:
        play(note(Kind.COMPLETE, ended=True), stream(1))
        play(ScanDone(1, Result(1, objects=[seen])), Release(FLOW, TO_CLIENT, 50, 0), report(1, "clean"), Done(1))
        play(note(Kind.PAUSE, 60), stream(2, 60))
        play(ScanDone(2, Result(2, objects=[seen], finished=60)), Release(FLOW, TO_CLIENT, 60, 60), Done(2))
        play(note(Kind.COMPLETE, base=60), stream(3))
        again = Result(3, objects=[seen], finished=50)
        play(ScanDone(3, again), Release(FLOW, TO_CLIENT, 50, 50), report(3, "clean"), Done(3))
        play(note(Kind.GONE, ends=None))
        assert not play.engine.flows


def test_what_the_sender_ended_is_told_as_it_is() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.COMPLETE, ended=True), stream(1))
        part = Result(1, objects=[Object(SHA, 10, complete=False)])
        play(ScanDone(1, part), Release(FLOW, TO_CLIENT, 50, 0), report(1, "clean"), Done(1))


def test_a_bad_stream_is_kept_and_cut_and_blocked_only_once_bytes_were_withheld() -> None:
    for kind in (Kind.PAUSE, Kind.COMPLETE, Kind.FRAME):
        with Playbook(HoldEngine()) as play:
            play(note(kind), stream(1))
            play(ScanDone(1, BAD), Keep(1), Cut(1, FLOW, TO_CLIENT))
            play(CutDone(1, 100), report(1, "blocked", rules=("Bad",)), Done(1))


def test_a_cut_that_withheld_nothing_waits_for_the_packet_on_its_way() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE), stream(1))
        play(ScanDone(1, BAD), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 0))
        play(note(Kind.WITHHELD), report(1, "blocked", rules=("Bad",)), Done(1))
        play(note(Kind.GONE, ends=None))


def test_a_cut_after_the_receiver_had_it_all_is_not_called_blocked() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE), stream(1))
        play(ScanDone(1, BAD), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 0))
        play(note(Kind.GONE, ends=None), report(1, "delivered_then_found", rules=("Bad",)), Done(1))


def test_the_bad_object_of_a_stream_is_the_outcome_of_the_cut_and_those_before_it_have_theirs() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE), stream(1))
        both = [Object(OTHER, 7), Object(SHA, 10, rules=["Bad"], start=20, inner="a.zip/b.exe", name="a.zip")]
        before = report(1, "clean", sha=OTHER, size=7)
        play(ScanDone(1, Result(1, objects=both, finished=20)), before, Keep(1), Cut(1, FLOW, TO_CLIENT))
        told = report(1, "blocked", rules=("Bad",), meta=replace(bare(), file_name="a.zip"), inner="a.zip/b.exe")
        play(CutDone(1, 5), told, Done(1))


def test_a_long_object_on_its_way_holds_nothing_and_frees_nothing() -> None:
    with Playbook(engine()) as play:
        play(note(Kind.FRAME), stream(1))
        part = Object(SHA, 40, complete=False)
        play(ScanDone(1, Result(1, objects=[part], end=900)), Expect(FLOW, TO_CLIENT, 900), Done(1))
        play(note(Kind.FRAME), stream(2))
        play(ScanDone(2, Result(2, error="timeout")), Done(2))
        play(note(Kind.FRAME), stream(3))
        play(note(Kind.EXPIRED), Cut(4, FLOW, TO_CLIENT))
        play(CutDone(4, 9), report(4, "blocked", "timeout", sha="", size=0), Done(4))
        play(ScanDone(3, Result(3)), Done(3))


def test_what_waited_too_long_without_a_look_is_let_go_looked_at_and_told() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.EXPIRED), Release(FLOW, TO_CLIENT, 50, 0), stream(1))
        part = Object(OTHER, 30, complete=False)
        play(ScanDone(1, Result(1, objects=[part])), Done(1))
        assert play.engine.shed["timeout"] == 1
        play(note(Kind.COMPLETE, 90), stream(2, 90))
        late = report(2, "released_by_policy", "timeout")
        following = report(2, "clean", sha=OTHER)
        both = [Object(SHA, 10), Object(OTHER, 10, start=60)]
        released = Release(FLOW, TO_CLIENT, 90, 90)
        play(ScanDone(2, Result(2, objects=both, finished=90)), released, late, following, Done(2))
    with Playbook(HoldEngine()) as play:
        play(note(Kind.EXPIRED), Release(FLOW, TO_CLIENT, 50, 0), stream(1))
        play(ScanDone(1, BAD), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 0))
        play(note(Kind.GONE, ends=None), report(1, "delivered_then_found", rules=("Bad",)), Done(1))


def test_what_cannot_be_read_and_is_let_pass_is_told_at_the_time_and_once() -> None:
    with Playbook(HoldEngine()) as play:
        for token, size in ((1, 10), (2, 20)):
            play(note(Kind.PAUSE, 5 * size), stream(token, 5 * size))
            doubted = Object(f"{size:064x}", size, complete=False, reason="unparsable")
            told = report(token, "released_by_policy", "unparsable", sha=f"{size:064x}", size=size)
            released = Release(FLOW, TO_CLIENT, 5 * size, 0)
            play(
                ScanDone(token, Result(token, objects=[doubted])),
                released,
                *([told] if token == 1 else []),
                Done(token),
            )
        play(note(Kind.COMPLETE, 100, ended=True), stream(3, 100))
        play(ScanDone(3, Result(3, objects=[doubted])), Release(FLOW, TO_CLIENT, 100, 0), Done(3))


def test_a_look_at_what_has_left_its_place_meanwhile_says_nothing() -> None:
    """The end of an object moves the spool under a look that nothing waits for: it sees two objects as one."""
    with Playbook(engine()) as play:
        play(note(Kind.FRAME), stream(1))
        play(note(Kind.COMPLETE, 60), stream(2, 60))
        whole = Result(2, objects=[Object(SHA, 10)], finished=60)
        play(ScanDone(2, whole), Release(FLOW, TO_CLIENT, 60, 60), report(2, "clean"), Done(2))
        torn = Result(1, objects=[Object(OTHER, 10, complete=False, reason="unparsable")], end=9)
        play(ScanDone(1, torn), Done(1))


def test_half_an_archive_is_not_damaged_yet() -> None:
    for reason, blocked in (("damaged", False), ("unparsable", True), ("encrypted", True)):
        with Playbook(engine()) as play:
            play(note(Kind.PAUSE), stream(1))
            half = Result(1, objects=[Object(SHA, 10, complete=False, reason=reason)])
            if blocked:
                play(ScanDone(1, half), Keep(1), Cut(1, FLOW, TO_CLIENT))
                play(CutDone(1, 9), report(1, "blocked", reason), Done(1))
            else:
                play(ScanDone(1, half), Release(FLOW, TO_CLIENT, 50, 0), Done(1))


@pytest.mark.parametrize("reason", ["unparsable", "encrypted", "damaged", "depth", "bomb"])
def test_what_could_not_be_looked_into_follows_the_policy(reason: str) -> None:
    seen = Result(1, objects=[Object(SHA, 10, reason=reason)], finished=50)
    with Playbook(HoldEngine()) as play:
        play(note(Kind.COMPLETE), stream(1))
        told = report(1, "released_by_policy", reason)
        play(ScanDone(1, seen), Release(FLOW, TO_CLIENT, 50, 50), told, Done(1))
        assert SHA not in play.engine.cache, "that is no verdict to remember"
    with Playbook(engine()) as play:
        play(note(Kind.COMPLETE), stream(1))
        play(ScanDone(1, seen), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 9), report(1, "blocked", reason), Done(1))


@pytest.mark.parametrize("error", ["timeout", "damaged", "worker_lost"])
def test_a_failed_scan_follows_the_policy(error: str) -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE), stream(1))
        failed = report(1, "released_by_policy", error, sha="", size=0)
        play(ScanDone(1, Result(1, error=error)), Release(FLOW, TO_CLIENT, 50, 0), failed, Done(1))
    with Playbook(engine()) as play:
        play(note(Kind.PAUSE), stream(1))
        play(ScanDone(1, Result(1, error=error)), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 9), report(1, "blocked", error, sha="", size=0), Done(1))


def test_each_reason_blocks_for_itself() -> None:
    with Playbook(HoldEngine(block_reasons=frozenset({"encrypted"}))) as play:
        play(note(Kind.PAUSE), stream(1))
        failed = report(1, "released_by_policy", "timeout", sha="", size=0)
        play(ScanDone(1, Result(1, error="timeout")), Release(FLOW, TO_CLIENT, 50, 0), failed, Done(1))


def test_what_could_not_be_scanned_and_was_delivered_is_released_by_policy() -> None:
    with Playbook(engine()) as play:
        play(note(Kind.PAUSE), stream(1))
        play(ScanDone(1, Result(1, error="timeout")), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 0))
        play(note(Kind.GONE, ends=None), report(1, "released_by_policy", "timeout", sha="", size=0), Done(1))


def test_detect_only_stops_nothing_and_tells_each_file_once() -> None:
    with Playbook(engine(block=False)) as play:
        play(note(Kind.PAUSE), stream(1))
        found = Object(SHA, 10, complete=False, rules=["Bad"])
        told = report(1, "released_by_policy", "detect_only", ("Bad",))
        play(ScanDone(1, Result(1, objects=[found])), Release(FLOW, TO_CLIENT, 50, 0), told, Done(1))
        play(note(Kind.FRAME), stream(2))
        play(ScanDone(2, Result(2, objects=[found])), Done(2))
        play(note(Kind.COMPLETE), stream(3))
        whole = Result(3, objects=[Object(OTHER, 20, rules=["Bad"])], finished=50)
        play(ScanDone(3, whole), Release(FLOW, TO_CLIENT, 50, 50), Done(3))
        play(note(Kind.PAUSE, base=50), stream(4))
        failed = report(4, "released_by_policy", "timeout", sha="", size=0)
        play(ScanDone(4, Result(4, error="timeout")), Release(FLOW, TO_CLIENT, 50, 0), failed, Done(4))


def test_a_verdict_after_the_deadline_does_not_release_twice() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.COMPLETE), stream(1))
        play(note(Kind.EXPIRED), Release(FLOW, TO_CLIENT, 50, 0))
        play(note(Kind.EXPIRED, 60), Release(FLOW, TO_CLIENT, 60, 0))
        late = report(1, "released_by_policy", "timeout")
        play(ScanDone(1, Result(1, objects=[Object(SHA, 10)])), late, Done(1))
        assert play.engine.shed["timeout"] == 1


def test_found_after_the_deadline_is_cut_and_told_as_it_ended() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.COMPLETE), stream(1))
        play(note(Kind.EXPIRED), Release(FLOW, TO_CLIENT, 50, 0))
        play(ScanDone(1, BAD), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 0))
        play(note(Kind.GONE, ends=None), report(1, "delivered_then_found", rules=("Bad",)), Done(1))


def test_the_deadline_blocks_where_the_owner_wants_that() -> None:
    with Playbook(engine()) as play:
        play(note(Kind.PAUSE), stream(1))
        play(note(Kind.EXPIRED), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 5), report(1, "blocked", "timeout", sha="", size=0), Done(1))
        play(ScanDone(1, BAD))


def test_a_scan_that_ends_after_the_deadlines_cut_adds_its_rules_and_no_second_outcome() -> None:
    for result, more in ((BAD, ("Bad",)), (Result(1), ())):
        with Playbook(engine()) as play:
            play(note(Kind.PAUSE), stream(1))
            play(note(Kind.EXPIRED), Cut(1, FLOW, TO_CLIENT))
            play(CutDone(1, 0))
            play(ScanDone(1, result), *((Keep(1),) if more else ()))
            told = report(1, "blocked", "" if more else "timeout", more, sha="", size=0)
            play(note(Kind.WITHHELD), told, Done(1))


def test_too_big_is_passed_or_cut_by_policy_and_said() -> None:
    passed = report(1, "released_by_policy", "too_large", sha="", size=50)
    with Playbook(HoldEngine()) as play:
        play(note(Kind.TOO_BIG), Pass(FLOW, TO_CLIENT), passed, Done(1))
    with Playbook(engine()) as play:
        play(note(Kind.TOO_BIG), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 5), report(1, "blocked", "too_large", sha="", size=50), Done(1))


def test_shed_is_said() -> None:
    with Playbook(engine()) as play:
        play(note(Kind.SHED), report(1, "released_by_policy", "memory", sha="", size=50), Done(1))
        assert play.engine.shed["memory"] == 1


def test_two_bad_looks_on_one_flow_share_its_fate() -> None:
    second = Result(2, objects=[Object(OTHER, 10, rules=["Bad"])])
    for withheld, told in ((7, "blocked"), (0, "delivered_then_found")):
        with Playbook(HoldEngine()) as play:
            play(note(Kind.PAUSE), stream(1))
            upload = note(Kind.PAUSE, way=TO_SERVER)
            play(upload, stream(2, way=TO_SERVER))
            play(ScanDone(1, BAD), Keep(1), Cut(1, FLOW, TO_CLIENT))
            outcome: Outcome = "blocked" if told == "blocked" else "delivered_then_found"
            first = (report(1, outcome, rules=("Bad",)), Done(1))
            play(CutDone(1, withheld), *(first if withheld else ()))
            play(ScanDone(2, second), Done(2))
            play(note(Kind.GONE, ends=None), *(() if withheld else first))


def test_found_after_the_connection_was_gone_is_told_at_once() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE), stream(1))
        play(note(Kind.EXPIRED), Release(FLOW, TO_CLIENT, 50, 0))
        play(note(Kind.GONE, ends=None))
        play(ScanDone(1, BAD), Keep(1), report(1, "delivered_then_found", rules=("Bad",)), Done(1))


def test_notes_of_a_flow_that_is_gone_ask_nothing() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE, ends=None))
        play(ScanDone(99, Result(99)))
        play(CutDone(99, 1))
        play(Assembled(99, True, False))
        play(note(Kind.WITHHELD))


def test_the_sender_is_named_by_kind_and_direction() -> None:
    apps = {
        marks.HTTP: "http", marks.FTPDATA: "ftp-data", marks.MAIL: "smtp",
        marks.POP3: "pop3", marks.IMAP: "imap", marks.SMB: "smb",
    }  # fmt: skip
    for kind, app in apps.items():
        shed = HoldEngine().handle(NoteRaised(Note(Kind.SHED, FLOW, TO_SERVER, 1), replace(ENDS, kind=kind)), 0.0)
        assert isinstance(shed[0], Report)
        assert shed[0].meta == Meta("10.0.0.10", 4000, "203.0.113.9", 80, app)


def test_a_stream_that_turned_out_to_be_another_protocol_is_read_as_that() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE), stream(1))
        play(ScanDone(1, Result(1, app="http2")), Gather(FLOW), Release(FLOW, TO_CLIENT, 50, 0), Done(1))
        play(note(Kind.PAUSE), stream(2, app="http2"))
        play(ScanDone(2, Result(2)), Release(FLOW, TO_CLIENT, 50, 0), Done(2))
        play(note(Kind.PAUSE, way=TO_SERVER), stream(3, way=TO_SERVER, app="http2"))
        play(ScanDone(3, Result(3)), Release(FLOW, TO_SERVER, 50, 0), Done(3))


def test_what_is_found_to_travel_mixed_on_its_way_is_gathered_from_then_on() -> None:
    """A server that sends its first bytes last is first looked at when much is there already."""
    with Playbook(HoldEngine()) as play:
        play(note(Kind.FRAME), stream(1))
        play(ScanDone(1, Result(1, app="http2")), Gather(FLOW), Done(1))


def test_a_stream_joined_in_its_middle_is_read_by_nobody_and_looked_at_whole() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE, joined=True), stream(1, app=""))
        play(ScanDone(1, BAD), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 1), report(1, "blocked", rules=("Bad",)), Done(1))


def test_where_nothing_more_can_be_read_both_directions_pass() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE), stream(1))
        passes = Pass(FLOW, TO_CLIENT, sealed=True), Pass(FLOW, TO_SERVER, sealed=True)
        play(ScanDone(1, Result(1, opaque=True)), Release(FLOW, TO_CLIENT, 50, 0), *passes, Done(1))


def test_under_load_long_objects_are_not_looked_at_on_their_way() -> None:
    with Playbook(HoldEngine(overloaded=True)) as play:
        play(note(Kind.FRAME))
        play(note(Kind.PAUSE), stream(1))
        play(ScanDone(1, Result(1)), Release(FLOW, TO_CLIENT, 50, 0), Done(1))
        assert play.engine.shed["on_its_way"] == 1


PIECE = Object(OTHER, 10, body_at=20, ranged=(10, 20, 30), host="a", url="/a")


def test_a_piece_of_a_file_is_judged_with_the_others_and_told_with_the_last() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.COMPLETE), stream(1))
        ask = Assemble(1, FLOW, TO_CLIENT, PIECE, judge=True)
        play(ScanDone(1, Result(1, objects=[PIECE], finished=50)), ask)
        play(Assembled(1, whole=False, gap=False))
        play(ScanDone(1, Result(1, objects=[Object(SHA, 20)])), Release(FLOW, TO_CLIENT, 50, 50), Done(1))
        play(note(Kind.COMPLETE, base=50), stream(2))
        play(ScanDone(2, Result(2, objects=[PIECE], finished=50)), replace(ask, token=2))
        play(Assembled(2, whole=True, gap=False))
        told = report(2, "clean", size=30, meta=replace(bare(), url="/a", host="a"))
        play(ScanDone(2, Result(2, objects=[Object(SHA, 30)])), Release(FLOW, TO_CLIENT, 50, 50), told, Done(2))


def test_a_piece_that_completes_something_bad_is_withheld() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.COMPLETE), stream(1))
        play(ScanDone(1, Result(1, objects=[PIECE])), Assemble(1, FLOW, TO_CLIENT, PIECE, judge=True))
        play(Assembled(1, whole=True, gap=False))
        play(ScanDone(1, BAD), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 3), report(1, "blocked", rules=("Bad",), meta=replace(bare(), url="/a", host="a")), Done(1))


def test_a_piece_without_those_before_it_follows_the_policy() -> None:
    named = replace(bare(), url="/a", host="a")
    with Playbook(HoldEngine()) as play:
        play(note(Kind.COMPLETE), stream(1))
        play(ScanDone(1, Result(1, objects=[PIECE])), Assemble(1, FLOW, TO_CLIENT, PIECE, judge=True))
        told = report(1, "released_by_policy", "range", sha=OTHER, meta=named)
        play(Assembled(1, whole=False, gap=True), Release(FLOW, TO_CLIENT, 50, 0), told, Done(1))
    with Playbook(engine()) as play:
        play(note(Kind.COMPLETE), stream(1))
        play(ScanDone(1, Result(1, objects=[PIECE])), Assemble(1, FLOW, TO_CLIENT, PIECE, judge=True))
        play(Assembled(1, whole=False, gap=True), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 3), report(1, "blocked", "range", sha=OTHER, meta=named), Done(1))


def test_what_broke_off_is_kept_for_what_goes_on_from_there() -> None:
    broken = Object(OTHER, 10, complete=False, body_at=20, broken=True, host="a", url="/a")
    with Playbook(HoldEngine()) as play:
        play(note(Kind.COMPLETE, ended=True), stream(1))
        play(ScanDone(1, Result(1, objects=[broken])), Assemble(1, FLOW, TO_CLIENT, broken, judge=False))
        told = report(1, "clean", sha=OTHER, meta=replace(bare(), url="/a", host="a"))
        play(Assembled(1, whole=False, gap=True), Release(FLOW, TO_CLIENT, 50, 0), told, Done(1))


def test_what_was_found_is_remembered_until_the_rules_change() -> None:
    with Playbook(HoldEngine(cache=OrderedDict())) as play:
        play(note(Kind.COMPLETE), stream(1))
        seen = Result(1, objects=[Object(SHA, 10)], finished=50)
        play(ScanDone(1, seen), Release(FLOW, TO_CLIENT, 50, 50), report(1, "clean"), Done(1))
        assert play.engine.cache == {SHA: ()}
        play.engine.forget_verdicts()
        assert not play.engine.cache
