"""Mails on their way from a mailbox are mended where they lie: told once, kept, and cut only where that fails."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playbook import BLOCKING, ENDS, FLOW, SHA, Playbook, bare, note, report, stream

from sekisho.appliance.core import marks
from sekisho.inspect.gate import TO_CLIENT, Kind
from sekisho.inspect.hold import (
    Cut,
    CutDone,
    Done,
    Expect,
    HoldEngine,
    Neutralise,
    Neutralised,
    NoteRaised,
    Release,
    Report,
    Scan,
    ScanDone,
)
from sekisho.inspect.neutralise import Patch
from sekisho.inspect.worker import Object, Result

BOX = replace(ENDS, kind=marks.POP3)
POP = bare("pop3")
PATCH = Patch(20, b"a note in its place", 45)
OTHER = "cd" * 32
BAD = Object(SHA, 10, rules=["Bad"], mail=True, patches=[PATCH], taken=(15, 48), start=5)


def said(kind: Kind, length: int = 50, **more: int) -> NoteRaised:
    return note(kind, length, BOX, **more)  # type: ignore[arg-type]  # the test's own values


def look(token: int, length: int = 50, *, mend: bool = True) -> Scan:
    return stream(token, length, app="pop3", mend=mend)


def test_a_clean_mail_goes_on_and_is_told() -> None:
    with Playbook(HoldEngine()) as play:
        play(said(Kind.COMPLETE), look(1))
        mail = Result(1, objects=[Object(SHA, 10, mail=True)], finished=50)
        play(ScanDone(1, mail), Release(FLOW, TO_CLIENT, 50, 50), report(1, "clean", meta=POP), Done(1))


def test_a_bad_mail_is_mended_kept_and_told_before_anything_is_let_go() -> None:
    with Playbook(HoldEngine()) as play:
        play(said(Kind.COMPLETE), look(1))
        order = Neutralise(1, FLOW, TO_CLIENT, (PATCH,), ((2, 15, 48),))
        play(ScanDone(1, Result(1, objects=[BAD], finished=50)), order)
        told = report(2, "blocked", "neutralised", ("Bad",), meta=POP)
        play(Neutralised(1, done=True), told, Done(2), Release(FLOW, TO_CLIENT, 50, 50), Done(1))


def test_a_mail_that_cannot_be_mended_any_more_is_cut_and_told_as_that_ended() -> None:
    for withheld, outcome in ((9, "blocked"), (0, "delivered_then_found")):
        with Playbook(HoldEngine()) as play:
            play(said(Kind.COMPLETE), look(1))
            order = Neutralise(1, FLOW, TO_CLIENT, (PATCH,), ((2, 15, 48),))
            play(ScanDone(1, Result(1, objects=[BAD])), order)
            play(Neutralised(1, done=False), Done(2), Cut(1, FLOW, TO_CLIENT))
            end = play.engine.handle(CutDone(1, withheld), play.now)
            if not withheld:
                assert end == []
                end = play.engine.handle(said(Kind.GONE), play.now)
            (told,) = [command for command in end if isinstance(command, Report)]
            assert (told.outcome, told.rules) == (outcome, ("Bad",))


def test_only_looking_changes_nothing_and_tells_once() -> None:
    with Playbook(HoldEngine(block=False)) as play:
        for token in (1, 3):
            play(said(Kind.PAUSE), look(token, mend=False))
            seen = replace_patches(BAD)
            found = Result(token, objects=[seen])
            if token == 1:
                told = report(2, "released_by_policy", "detect_only", ("Bad",), meta=POP)
                play(ScanDone(1, found), told, Done(2), Release(FLOW, TO_CLIENT, 50, 0), Done(1))
            else:
                play(ScanDone(3, found), Release(FLOW, TO_CLIENT, 50, 0), Done(3))


def replace_patches(seen: Object) -> Object:
    """The same mail as it is found where nothing is to be replaced."""
    return Object(seen.sha256, seen.size, rules=seen.rules, mail=True, taken=seen.taken, start=seen.start)


def test_the_rest_of_a_bad_mail_is_filler_without_another_outcome() -> None:
    with Playbook(HoldEngine()) as play:
        play(said(Kind.PAUSE), look(1))
        half = Object(
            SHA, 10, complete=False, rules=["Bad"], mail=True, patches=[PATCH], taken=(15, 48), start=5, more=True
        )
        order = Neutralise(1, FLOW, TO_CLIENT, (PATCH,), ((2, 15, 48),))
        play(ScanDone(1, Result(1, objects=[half])), order)
        told = report(2, "blocked", "neutralised", ("Bad",), meta=POP)
        play(Neutralised(1, done=True), told, Done(2), Release(FLOW, TO_CLIENT, 50, 0), Done(1))
        play(said(Kind.PAUSE, 90), replace(look(3, 90), blank=5))
        white = Patch(50, b"", 80)
        rest = Object(OTHER, 10, mail=True, blanked=True, patches=[white], start=5)
        order = Neutralise(3, FLOW, TO_CLIENT, (white,), ())
        play(ScanDone(3, Result(3, objects=[rest], finished=90)), order)
        play(Neutralised(3, done=True), Release(FLOW, TO_CLIENT, 90, 90), Done(3))
        assert play.engine.flows[FLOW].blank == -1, "the next mail is its own"


def test_a_mail_that_becomes_too_large_while_its_rest_is_replaced_does_not_pass() -> None:
    with Playbook(HoldEngine()) as play:
        play.engine._flow(FLOW).blank = 5
        play(said(Kind.TOO_BIG), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 9), report(1, "blocked", sha="", size=50, meta=POP), Done(1))


def test_a_mail_nobody_can_look_into_is_mended_where_policy_says_so() -> None:
    sealed = Object(SHA, 10, reason="encrypted", mail=True, patches=[PATCH], taken=(15, 48))
    with Playbook(HoldEngine(block_reasons=BLOCKING)) as play:
        play(said(Kind.COMPLETE), look(1))
        play(ScanDone(1, Result(1, objects=[sealed])), Neutralise(1, FLOW, TO_CLIENT, (PATCH,), ((2, 15, 48),)))
        told = report(2, "blocked", "encrypted", meta=POP)
        play(Neutralised(1, done=True), told, Done(2), Release(FLOW, TO_CLIENT, 50, 0), Done(1))
    with Playbook(HoldEngine()) as play:
        play(said(Kind.COMPLETE), look(1))
        told = report(1, "released_by_policy", "encrypted", meta=POP)
        play(ScanDone(1, Result(1, objects=[sealed], finished=50)), Release(FLOW, TO_CLIENT, 50, 50), told, Done(1))


def test_a_mail_on_its_way_is_not_looked_at_for_its_length_and_a_part_of_it_may_go_on() -> None:
    with Playbook(HoldEngine()) as play:
        play(said(Kind.FRAME))
        play(said(Kind.PAUSE, 5000), look(1, 5000))
        half = Object(SHA, 10, complete=False, mail=True, left=900)
        play(
            ScanDone(1, Result(1, objects=[half], end=5900)),
            Expect(FLOW, TO_CLIENT, 5900), Release(FLOW, TO_CLIENT, 5000, 0), Done(1),
        )  # fmt: skip
        known = replace(look(2, 5100), full=5000, looked=5000, left=900)
        play(said(Kind.PAUSE, 5100), known)
        play(ScanDone(2, Result(2, passes=3000)), Release(FLOW, TO_CLIENT, 3000, 0), Done(2))
        play(said(Kind.PAUSE, 5300), replace(known, token=3, length=5300, looked=5100, left=800))
        play(ScanDone(3, Result(3, passes=3200)), Release(FLOW, TO_CLIENT, 3200, 0), Done(3))


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_found_after_the_connection_is_gone_is_told_as_delivered(whole: bool) -> None:
    """A mail of which nothing can be changed any more was not blocked, and the next connection knows nothing of it."""
    with Playbook(HoldEngine()) as play:
        play(said(Kind.COMPLETE), look(1))
        play(said(Kind.GONE))
        found = BAD if whole else replace_patches(BAD)
        told = report(2, "delivered_then_found", rules=("Bad",), meta=POP)
        play(ScanDone(1, Result(1, objects=[found])), told, Done(2), Release(0, TO_CLIENT, 50, 0), Done(1))
        assert not play.engine.flows
        assert not play.engine.cut


def test_a_part_that_may_go_on_after_the_connection_is_gone_leaves_nothing() -> None:
    with Playbook(HoldEngine()) as play:
        play(said(Kind.COMPLETE), look(1))
        play(said(Kind.GONE))
        play(ScanDone(1, Result(1, passes=5)), Release(0, TO_CLIENT, 5, 0), Done(1))
        assert not play.engine.flows
