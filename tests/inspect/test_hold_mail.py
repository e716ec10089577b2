"""Mails at the gate: replaced before anything goes on, told once, and the session lives whenever it can."""

from __future__ import annotations

from dataclasses import replace

from playbook import BLOCKING, ENDS, FLOW, SHA, Playbook, note, report, stream

from sekisho.appliance.core import marks
from sekisho.inspect.gate import TO_CLIENT, TO_SERVER, Kind
from sekisho.inspect.hold import (
    Cut,
    CutDone,
    Done,
    Event,
    Expect,
    HoldEngine,
    Meta,
    Neutralise,
    Neutralised,
    Pass,
    Release,
    Scan,
    ScanDone,
)
from sekisho.inspect.neutralise import Patch
from sekisho.inspect.worker import Object, Result

POP3 = replace(ENDS, kind=marks.POP3)
META = Meta("203.0.113.9", 80, "10.0.0.10", 4000, "pop3")
NAMED = replace(META, file_name="a.exe", mail_from="a@b", mail_subject="s")
PATCH = Patch(10, b"notice", 30)
REST = Patch(50, b"", 90)


def look(token: int, length: int = 50, **more: int) -> Scan:
    return replace(stream(token, length, app="pop3"), mend=True, **more)  # type: ignore[arg-type]  # a field each


def pause(length: int = 50, base: int = 0) -> Event:
    return note(Kind.PAUSE, length, POP3, base=base)


def bad(start: int = 5, sha: str = SHA, *, complete: bool = True, more: bool = False, **fields: object) -> Object:
    made = Object(
        sha, 10, complete, start, ["Bad"], name="a.exe", mail=True, mail_from="a@b", mail_subject="s",
        patches=[PATCH], more=more, taken=(8, 40),
    )  # fmt: skip
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def clean(start: int = 0, *, complete: bool = True, left: int = 0) -> Object:
    return Object("cd" * 32, 20, complete, start, mail=True, left=left)


def told(
    token: int, outcome: str = "blocked", reason: str = "neutralised", rules: tuple[str, ...] = ("Bad",)
) -> object:
    return report(token, outcome, reason, rules, meta=NAMED)  # type: ignore[arg-type]  # outcomes are words


def test_an_infected_mail_is_replaced_before_it_goes_on_and_told_once() -> None:
    with Playbook(HoldEngine(block_reasons=BLOCKING)) as play:
        play(pause(), look(1))
        result = Result(1, objects=[bad()], finished=50)
        play(ScanDone(1, result), Neutralise(1, FLOW, TO_CLIENT, (PATCH,), ((2, 8, 40),)))
        play(Neutralised(1, done=True), told(2), Done(2), Release(FLOW, TO_CLIENT, 50, 50), Done(1))  # type: ignore[arg-type]


def test_two_infected_mails_and_a_clean_one_have_an_outcome_each() -> None:
    objects = [bad(0, "aa" * 32), clean(20), bad(30)]
    with Playbook(HoldEngine()) as play:
        play(pause(), look(1))
        taken = ((2, 8, 40), (3, 8, 40))
        play(
            ScanDone(1, Result(1, objects=objects, finished=50)), Neutralise(1, FLOW, TO_CLIENT, (PATCH, PATCH), taken)
        )
        play(
            Neutralised(1, done=True),
            replace(told(2), sha256="aa" * 32), Done(2), told(3), Done(3),  # type: ignore[type-var, arg-type]
            Release(FLOW, TO_CLIENT, 50, 50), report(1, "clean", meta=META, sha="cd" * 32, size=20), Done(1),
        )  # fmt: skip


def test_the_rest_of_an_unfinished_mail_becomes_filler_until_it_ends() -> None:
    begun = bad(complete=False, more=True)
    on = Object("", 0, False, 5, mail=True, blanked=True, patches=[REST], more=True)
    end = Object("", 0, True, 5, mail=True, blanked=True, patches=[REST])
    with Playbook(HoldEngine()) as play:
        play(pause(base=1000), look(1))
        play(ScanDone(1, Result(1, objects=[begun])), Neutralise(1, FLOW, TO_CLIENT, (PATCH,), ((2, 8, 40),)))
        play(Neutralised(1, done=True), told(2), Done(2), Release(FLOW, TO_CLIENT, 50, 0), Done(1))  # type: ignore[arg-type]
        play(pause(90, base=1000), look(3, 90, blank=5))
        play(ScanDone(3, Result(3, objects=[on])), Neutralise(3, FLOW, TO_CLIENT, (REST,), ()))
        play(Neutralised(3, done=True), Release(FLOW, TO_CLIENT, 90, 0), Done(3))
        play(pause(99, base=1000), look(4, 99, blank=5))
        play(ScanDone(4, Result(4, objects=[end], finished=99)), Neutralise(4, FLOW, TO_CLIENT, (REST,), ()))
        play(Neutralised(4, done=True), Release(FLOW, TO_CLIENT, 99, 99), Done(4))
        play(pause(7, base=1099), look(5, 7))
        play(ScanDone(5, Result(5, finished=7)), Release(FLOW, TO_CLIENT, 7, 7), Done(5))


def test_what_cannot_be_replaced_any_more_is_cut() -> None:
    with Playbook(HoldEngine()) as play:
        play(pause(), look(1))
        play(ScanDone(1, Result(1, objects=[bad()])), Neutralise(1, FLOW, TO_CLIENT, (PATCH,), ((2, 8, 40),)))
        play(Neutralised(1, done=False), Done(2), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 9), told(1, reason=""), Done(1))  # type: ignore[arg-type]


def test_a_mail_that_was_delivered_whole_is_told_as_that() -> None:
    with Playbook(HoldEngine()) as play:
        play(pause(), look(1))
        late = Result(1, objects=[bad(patches=[])], finished=50)
        play(ScanDone(1, late), Neutralise(1, FLOW, TO_CLIENT, (), ((2, 8, 40),)))
        play(
            Neutralised(1, done=True),
            told(2, "delivered_then_found", ""), Done(2), Release(FLOW, TO_CLIENT, 50, 50), Done(1),  # type: ignore[arg-type]
        )  # fmt: skip


def test_a_flow_that_ended_before_its_verdict_has_had_its_mail() -> None:
    with Playbook(HoldEngine()) as play:
        play(pause(), look(1))
        play(note(Kind.GONE, ends=None))
        got = play.engine.handle(ScanDone(1, Result(1, objects=[bad()])), play.now)
        assert [c for c in got if getattr(c, "outcome", "") == "delivered_then_found"]
        assert not play.engine.flows


def test_a_box_that_only_watches_replaces_nothing_and_tells_it_once() -> None:
    with Playbook(HoldEngine(block=False)) as play:
        play(pause(), replace(look(1), mend=False))
        seen = bad(patches=[])
        play(
            ScanDone(1, Result(1, objects=[seen], finished=0)),
            told(2, "released_by_policy", "detect_only"), Done(2), Release(FLOW, TO_CLIENT, 50, 0), Done(1),  # type: ignore[arg-type]
        )  # fmt: skip
        play(pause(60), replace(look(3, 60), mend=False))
        play(ScanDone(3, Result(3, objects=[seen], finished=60)), Release(FLOW, TO_CLIENT, 60, 60), Done(3))


def test_a_mail_that_policy_does_not_let_pass_is_replaced_with_the_reason() -> None:
    locked = bad(rules=[], reason="encrypted")
    with Playbook(HoldEngine(block_reasons=frozenset({"encrypted"}))) as play:
        play(pause(), look(1))
        play(
            ScanDone(1, Result(1, objects=[locked], finished=50)),
            Neutralise(1, FLOW, TO_CLIENT, (PATCH,), ((2, 8, 40),)),
        )
        play(
            Neutralised(1, done=True),
            told(2, reason="encrypted", rules=()), Done(2), Release(FLOW, TO_CLIENT, 50, 50), Done(1),  # type: ignore[arg-type]
        )  # fmt: skip


def test_between_whole_looks_the_engine_says_how_much_was_seen_and_lets_go_what_may() -> None:
    with Playbook(HoldEngine()) as play:
        play(pause(100_000, base=7), look(1, 100_000))
        unfinished = Result(1, objects=[clean(complete=False, left=500_000)], end=600_000)
        play(
            ScanDone(1, unfinished),
            Expect(FLOW, TO_CLIENT, 600_007), Release(FLOW, TO_CLIENT, 100_000, 0), Done(1),
        )  # fmt: skip
        play(pause(130_000, base=7), look(2, 130_000, full=100_000, looked=100_000, left=500_000))
        play(ScanDone(2, Result(2, passes=128_000)), Release(FLOW, TO_CLIENT, 128_000, 0), Done(2))
        play(pause(130_000, base=7), look(3, 130_000, full=100_000, looked=130_000, left=470_000), after_s=0.4)
        play(ScanDone(3, Result(3, passes=128_000)), Release(FLOW, TO_CLIENT, 128_000, 0), Done(3))
        stopped = look(4, 130_000, full=100_000, looked=130_000, left=470_000, stalled=True)
        play(pause(130_000, base=7), stopped, after_s=0.2)
        play(
            ScanDone(4, Result(4, objects=[clean()], finished=130_000)),
            Release(FLOW, TO_CLIENT, 130_000, 130_000), report(4, "clean", meta=META, sha="cd" * 32, size=20), Done(4),
        )  # fmt: skip
        play(pause(9, base=130_007), look(5, 9))
        play(ScanDone(5, Result(5, finished=9)), Release(FLOW, TO_CLIENT, 9, 9), Done(5))


def test_a_long_mail_on_its_way_is_not_looked_at_twice() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.FRAME, 300_000, POP3))


def test_a_mail_too_large_to_be_blanked_to_its_end_is_cut() -> None:
    with Playbook(HoldEngine()) as play:
        play(pause(), look(1))
        begun = Result(1, objects=[bad(complete=False, more=True)])
        play(ScanDone(1, begun), Neutralise(1, FLOW, TO_CLIENT, (PATCH,), ((2, 8, 40),)))
        play(Neutralised(1, done=True), told(2), Done(2), Release(FLOW, TO_CLIENT, 50, 0), Done(1))  # type: ignore[arg-type]
        play(note(Kind.TOO_BIG, 70 << 20, POP3), Cut(3, FLOW, TO_CLIENT))
        got = play.engine.handle(CutDone(3, 9), play.now)
        assert [getattr(c, "outcome", "") for c in got] == ["blocked", ""]


def test_tls_lets_both_directions_go_for_good() -> None:
    with Playbook(HoldEngine()) as play:
        play(pause(), look(1))
        play(
            ScanDone(1, Result(1, finished=50, opaque=True)),
            Release(FLOW, TO_CLIENT, 50, 50),
            *(Pass(FLOW, way, sealed=True) for way in (TO_CLIENT, TO_SERVER)),
            Done(1),
        )  # fmt: skip
