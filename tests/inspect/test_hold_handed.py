"""What one process decided about the gate's files, the next one goes on with; nothing is told twice, nothing never."""

from __future__ import annotations

import msgspec
from playbook import ENDS, FLOW, SHA, Playbook, note, report, stream

from sekisho.inspect.gate import TO_CLIENT, Kind, Note
from sekisho.inspect.hold import (
    CLAIM_S,
    Cut,
    CutDone,
    Done,
    FileSeen,
    Handed,
    HoldEngine,
    Keep,
    Meta,
    NoteRaised,
    Release,
    Scan,
    ScanDone,
)
from sekisho.inspect.worker import Object, Result

META = Meta("203.0.113.9", 80, "10.0.0.10", 4000, "http", "a.exe")
SEEN = FileSeen(FLOW, TO_CLIENT, META, "CLOSED", True, SHA, 10, "/store/a")
BAD = Result(1, objects=[Object(SHA, 10, rules=["Bad"])])


def successor(engine: HoldEngine, *, flows: bool = True) -> HoldEngine:
    """Another one, told over a wire."""
    told = engine.hand_over() if flows else engine.hand_over().without_flows()
    heir = HoldEngine()
    heir.take_over(msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=Handed))
    return heir


def test_a_file_announced_before_is_named_and_not_judged_again_after() -> None:
    engine = HoldEngine()
    engine.handle(SEEN, 100.0)
    with Playbook(successor(engine)) as play:
        play(note(Kind.COMPLETE), stream(2))
        whole = Result(2, objects=[Object(SHA, 10)], finished=50)
        play(ScanDone(2, whole), Release(FLOW, TO_CLIENT, 50, 50), report(2, "clean", meta=META), Done(2))
        play.due(Done(1), after_s=CLAIM_S)
    assert not engine.leave(101.0, whole=True) and not (engine.cases or engine.waiting)


def test_how_a_cut_ended_is_told_by_the_successor_alone() -> None:
    engine = HoldEngine()
    with Playbook(engine) as play:
        play(note(Kind.PAUSE), stream(1))
        play(ScanDone(1, BAD), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 0))
        heir = successor(engine)
        assert not engine.leave(play.now, whole=True) and not engine.cases
    with Playbook(heir) as play:
        play(NoteRaised(Note(Kind.WITHHELD, FLOW, TO_CLIENT, 0), ENDS), report(1, "blocked", rules=("Bad",)), Done(1))


def test_where_the_flows_are_not_handed_over_the_cuts_end_is_told_as_far_as_it_is_known() -> None:
    engine = HoldEngine()
    with Playbook(engine) as play:
        play(note(Kind.PAUSE), stream(1))
        play(ScanDone(1, BAD), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 0))
        assert not successor(engine, flows=False).cases
        told = engine.leave(play.now, whole=False)
    assert told == [report(1, "delivered_then_found", rules=("Bad",)), Done(1)]


def test_an_announced_file_whose_flow_is_not_handed_over_is_judged_late() -> None:
    engine = HoldEngine()
    engine.handle(SEEN, 100.0)
    with Playbook(successor(engine, flows=False)) as play:
        play.due(Scan(1, "file", 0, TO_CLIENT, "/store/a", 10, name="a.exe"), after_s=CLAIM_S + 1)
        play(ScanDone(1, BAD), Keep(1), report(1, "delivered_then_found", "late", ("Bad",), meta=META), Done(1))


def test_a_look_at_a_flow_is_left_to_the_successor_and_one_at_what_is_over_is_finished() -> None:
    engine = HoldEngine()
    engine.handle(note(Kind.PAUSE), 100.0)
    engine.handle(note(Kind.FRAME), 100.0)
    engine.handle(NoteRaised(Note(Kind.GONE, FLOW, 0, 0), None), 100.0)
    other = FLOW + 1
    engine.handle(NoteRaised(Note(Kind.FRAME, other, TO_CLIENT, 50), ENDS), 100.0)
    assert successor(engine).cases == {} and engine.hand_over().on_its_way == [(other, TO_CLIENT)]
    assert engine.leave(100.0, whole=True) == [] and set(engine.cases) == {1, 2}
    told = engine.handle(ScanDone(1, BAD), 100.0)
    assert told == [Keep(1), report(1, "delivered_then_found", rules=("Bad",)), Done(1)]
