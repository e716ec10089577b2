"""A file that the engine refuses by its hash is cut without a look, and told once, by its name where it has one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playbook import FLOW, SHA, Playbook, bare, note, report, stream

from sekisho.inspect.gate import TO_CLIENT, Kind
from sekisho.inspect.hold import (
    KNOWN,
    KNOWN_FILE,
    NAME_S,
    Cut,
    CutDone,
    Done,
    FileSeen,
    HoldEngine,
    Keep,
    Meta,
    Report,
    ScanDone,
)
from sekisho.inspect.worker import Object, Result

META = Meta("203.0.113.9", 80, "10.0.0.10", 4000, "http", "a.exe")
SEEN = FileSeen(FLOW, TO_CLIENT, META, "CLOSED", True, SHA, 10, "/store/a")


def knowing() -> HoldEngine:
    engine = HoldEngine()
    engine.known[SHA] = ("Bad",)
    return engine


def told(token: int) -> Report:
    """Its outcome, which teaches nobody anything."""
    return replace(report(token, "blocked", KNOWN, ("Bad",), meta=META), hearsay=True)


def test_the_engine_has_named_it_already() -> None:
    with Playbook(knowing()) as play:
        play(SEEN)
        play(note(Kind.KNOWN), Cut(2, FLOW, TO_CLIENT), Done(1))
        play(CutDone(2, 10), told(2), Done(2))
        play(note(Kind.GONE, ends=None))


def test_the_engine_names_it_a_moment_later() -> None:
    with Playbook(knowing()) as play:
        play(note(Kind.KNOWN), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 10))
        other = replace(SEEN, sha256="cd" * 32)
        play(other, Done(2))
        play(SEEN, told(1), Done(1), Done(3))


@pytest.mark.parametrize("gone", [False, True])
def test_the_engine_never_names_it(gone: bool) -> None:
    with Playbook(knowing()) as play:
        play(note(Kind.KNOWN), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 10))
        nameless = replace(told(1), meta=bare(), rules=(KNOWN_FILE,), sha256="", size=0)
        if gone:
            play(note(Kind.GONE, ends=None), nameless, Done(1))
        else:
            play.due(nameless, Done(1), after_s=NAME_S)


def test_what_was_found_by_looking_a_moment_before_is_told_once() -> None:
    with Playbook(knowing()) as play:
        play(note(Kind.COMPLETE), stream(1))
        play(note(Kind.KNOWN), Cut(2, FLOW, TO_CLIENT))
        play(CutDone(2, 10))
        play(ScanDone(1, Result(1, objects=[Object(SHA, 10, rules=["Bad"])])), Done(1))
        play(SEEN, told(2), Done(2), Done(3))
        play(note(Kind.KNOWN))


def test_nothing_withheld_is_not_called_blocked() -> None:
    with Playbook(knowing()) as play:
        play(SEEN)
        play(note(Kind.KNOWN), Cut(2, FLOW, TO_CLIENT), Done(1))
        play(CutDone(2, 0))
        play(note(Kind.GONE, ends=None), replace(told(2), outcome="delivered_then_found"), Done(2))


def test_other_rules_forget() -> None:
    engine = knowing()
    engine.forget_verdicts()
    assert not engine.known


@pytest.mark.parametrize("outdated", [False, True])
def test_a_worker_with_the_rules_before_these_teaches_nothing(outdated: bool) -> None:
    with Playbook(engine := HoldEngine()) as play:
        play(note(Kind.COMPLETE), stream(1))
        result = Result(1, objects=[Object(SHA, 10, rules=["Bad"])], outdated=outdated)
        play(ScanDone(1, result), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 10), replace(report(1, "blocked", rules=("Bad",)), hearsay=outdated), Done(1))
    assert (SHA in engine.known) is (SHA in engine.cache) is not outdated
