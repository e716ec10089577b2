"""What the engine says about files: names at once, a verdict of its own only where the gate told none."""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import replace

import pytest
from playbook import BLOCKING, ENDS, FLOW, SHA, Playbook, note, report, stream

from sekisho.appliance.core import marks
from sekisho.inspect.gate import TO_CLIENT, Kind, Note
from sekisho.inspect.hold import (
    CACHE_SIZE,
    CLAIM_S,
    ENGINE_DEPTH_BYTES,
    MAX_CLAIMS,
    Command,
    Cut,
    CutDone,
    Done,
    Event,
    FileSeen,
    HoldEngine,
    Keep,
    Meta,
    NoteRaised,
    Release,
    Report,
    Scan,
    ScanDone,
)
from sekisho.inspect.worker import Object, Result

META = Meta("203.0.113.9", 80, "10.0.0.10", 4000, "http", "a.exe")
SEEN = FileSeen(FLOW, TO_CLIENT, META, "CLOSED", True, SHA, 10, "/store/a")
SCAN = Scan(1, "file", 0, TO_CLIENT, "/store/a", 10, name="a.exe")
OTHER = "cd" * 32
BAD = [Object("", 10, rules=["Bad"])]


def test_a_claim_names_what_the_gate_tells_and_is_not_judged_again() -> None:
    with Playbook(HoldEngine()) as play:
        play(SEEN)
        play(note(Kind.COMPLETE), stream(2))
        whole = Result(2, objects=[Object(SHA, 10)], finished=50)
        play(ScanDone(2, whole), Release(FLOW, TO_CLIENT, 50, 50), report(2, "clean", meta=META), Done(2))
        play.due()
        play.due(Done(1), after_s=CLAIM_S)


def test_a_name_told_elsewhere_is_known_at_the_first_look_and_belongs_to_one_connection() -> None:
    """FTP: the engine has the name before the first data, its file only when the connection is over."""
    ends = replace(ENDS, kind=marks.FTPDATA)
    between = frozenset({(ENDS.client, ENDS.client_port), (ENDS.server, ENDS.server_port)})
    meta = replace(META, app="ftp-data")
    engine = HoldEngine()
    engine.name(between, "a.exe")
    with Playbook(engine) as play:
        look = replace(stream(1, app="ftp-data"), name="a.exe")
        play(note(Kind.PAUSE, ends=ends), look)
        play(ScanDone(1, Result(1)), Release(FLOW, TO_CLIENT, 50, 0), Done(1))
        play(note(Kind.COMPLETE, ends=ends), replace(look, token=2))
        play(ScanDone(2, Result(2, objects=BAD)), Keep(2), Cut(2, FLOW, TO_CLIENT))
        play(CutDone(2, 9), report(2, "blocked", rules=("Bad",), meta=meta, sha="", size=10), Done(2))
        play(note(Kind.GONE, ends=None))
        play(note(Kind.PAUSE, ends=ends), stream(3, app="ftp-data"))
        play(ScanDone(3, Result(3)), Release(FLOW, TO_CLIENT, 50, 0), Done(3))
    for port in range(CACHE_SIZE + 1):
        engine.name(frozenset({("10.0.0.1", port)}), "b")
    assert len(engine.names) == CACHE_SIZE


def test_a_claim_the_gate_tells_nothing_about_is_judged_late() -> None:
    for objects, told in (([], "clean"), (BAD, "delivered_then_found")):
        with Playbook(HoldEngine()) as play:
            play(SEEN)
            play.due(after_s=CLAIM_S - 0.1)
            play.due(SCAN, after_s=0.1)
            result = ScanDone(1, Result(1, objects=objects))
            if told == "clean":
                play(result, report(1, "clean", "late", meta=META), Done(1))
            else:
                late = report(1, "delivered_then_found", "late", ("Bad",), meta=META)
                play(result, Keep(1), Cut(1, FLOW, TO_CLIENT))
                play(CutDone(1, 0))
                play(note(Kind.GONE, ends=None), replace(late, reason=""), Done(1))


def test_a_second_opinion_is_told_only_if_it_differs() -> None:
    for objects, wanted in (([], False), (BAD, True)):
        with Playbook(HoldEngine()) as play:
            play(note(Kind.COMPLETE), stream(1))
            other = Result(1, objects=[Object(OTHER, 9)], finished=50)
            play(ScanDone(1, other), Release(FLOW, TO_CLIENT, 50, 50), report(1, "clean", sha=OTHER, size=9), Done(1))
            play(SEEN)
            play(note(Kind.GONE, ends=None))
            play.due(replace(SCAN, token=2), after_s=CLAIM_S)
            found = (Keep(2), report(2, "delivered_then_found", rules=("Bad",), meta=META)) if wanted else ()
            play(ScanDone(2, Result(2, objects=objects)), *found, Done(2))


def test_of_a_longer_file_the_engines_part_is_not_judged_again() -> None:
    with Playbook(HoldEngine()) as play:
        big = ENGINE_DEPTH_BYTES * 2
        play(note(Kind.COMPLETE, big), stream(1, big))
        whole = Result(1, objects=[Object(OTHER, big)], finished=big)
        play(
            ScanDone(1, whole),
            Release(FLOW, TO_CLIENT, big, big), report(1, "clean", sha=OTHER, size=big), Done(1),
        )  # fmt: skip
        play(replace(SEEN, size=ENGINE_DEPTH_BYTES))
        play.due(Done(2), after_s=CLAIM_S)


def test_a_claim_that_is_not_whole_only_names() -> None:
    for claim in (replace(SEEN, state="TRUNCATED"), replace(SEEN, stored=False)):
        with Playbook(HoldEngine()) as play:
            play(claim, Done(1))
            play(note(Kind.COMPLETE), stream(2))
            whole = Result(2, objects=[Object(OTHER, 10)], finished=50)
            told = report(2, "clean", meta=META, sha=OTHER)
            play(ScanDone(2, whole), Release(FLOW, TO_CLIENT, 50, 50), told, Done(2))


def test_a_file_of_a_flow_that_was_cut_is_part_of_that_outcome() -> None:
    with Playbook(HoldEngine()) as play:
        play(note(Kind.PAUSE), stream(1))
        play(ScanDone(1, Result(1, objects=[Object(SHA, 10, rules=["Bad"])])), Keep(1), Cut(1, FLOW, TO_CLIENT))
        play(CutDone(1, 1), report(1, "blocked", rules=("Bad",)), Done(1))
        play(SEEN, Done(2))
        play(note(Kind.PAUSE), stream(3))
        play(ScanDone(3, Result(3)), Done(3))
        play(note(Kind.GONE, ends=None))
        assert not play.engine.cut


def test_claims_are_bounded_and_the_oldest_is_judged_first() -> None:
    engine = HoldEngine()
    for number in range(MAX_CLAIMS + 3):
        assert engine.handle(replace(SEEN, flow=number + 1), 100.0) == []
    scans = [c for c in engine.due(100.0) if isinstance(c, Scan)]
    assert [s.token for s in scans] == [1, 2, 3]
    for number in range(40):
        engine.handle(replace(SEEN, flow=9, sha256=f"{number:064x}"), 100.0)
    assert len(engine.flows[9].claims) == 16


def test_under_load_second_opinions_wait() -> None:
    engine = HoldEngine(overloaded=True)
    with Playbook(engine) as play:
        play(SEEN)
        play.due(after_s=CLAIM_S * 5)
        engine.overloaded = False
        play.due(SCAN)
        play(ScanDone(1, Result(1)), report(1, "clean", "late", meta=META), Done(1))


def test_a_restart_tells_late_and_never_says_blocked() -> None:
    late = replace(SEEN, flow=0, dir=0, late=True)
    with Playbook(HoldEngine(block_reasons=BLOCKING)) as play:
        play(late, replace(SCAN, dir=0))
        found = report(1, "delivered_then_found", "restart", ("Bad",), meta=META)
        play(ScanDone(1, Result(1, objects=BAD)), Keep(1), found, Done(1), after_s=9)
        play(late, Keep(2), replace(found, token=2), Done(2))
        play(replace(late, sha256=OTHER), replace(SCAN, token=3, dir=0))
        clean = report(3, "clean", "restart", meta=META, sha=OTHER)
        play(ScanDone(3, Result(3)), clean, Done(3))
        play(replace(late, sha256=OTHER), replace(clean, token=4), Done(4))
        play.engine.forget_verdicts()
        play(replace(late, sha256=OTHER), replace(SCAN, token=5, dir=0))
        play(ScanDone(5, Result(5)), replace(clean, token=5), Done(5))
        unstored = report(6, "released_by_policy", "not_stored", meta=META, sha="ef" * 32)
        play(replace(late, stored=False, sha256="ef" * 32), unstored, Done(6))


def test_the_memory_of_verdicts_is_bounded() -> None:
    engine = HoldEngine(cache=OrderedDict())
    for number in range(CACHE_SIZE + 10):
        meta = replace(META, dst_port=number)
        engine.handle(replace(SEEN, flow=0, late=True, meta=meta, sha256=f"{number:064x}"), 0.0)
        engine.handle(ScanDone(number + 1, Result(number + 1)), 0.0)
    assert len(engine.cache) == len(engine.told) == CACHE_SIZE
    assert not engine.cases


@pytest.mark.parametrize("seed", range(60))
def test_no_order_of_events_says_blocked_without_withheld_bytes_or_loses_a_file(seed: int) -> None:
    """Random notes, faithful answers: every stream has one outcome at the end, and each held byte its word."""
    rng = random.Random(seed)
    reasons = BLOCKING if rng.random() < 0.5 else frozenset()
    engine = HoldEngine(block=rng.random() < 0.8, block_reasons=reasons, overloaded=rng.random() < 0.2)
    now, flows = 100.0, 0
    reports, scans, withheld = list[tuple[int, Report]](), list[Scan](), set[int]()
    asked, answered, gone, cuts = set[int](), set[int](), set[int](), set[int]()

    def act(event: Event) -> None:
        take(engine.handle(event, now), event)

    def take(took: list[Command], event: Event | None = None) -> None:
        reports.extend((c.meta.dst_port, c) for c in took if isinstance(c, Report))
        scans.extend(c for c in took if isinstance(c, Scan))
        answered.update(c.flow for c in took if isinstance(c, Release))
        for cut in (c for c in took if isinstance(c, Cut)):  # the adapter answers at once; a second cut finds nothing
            count = 0 if cut.flow in cuts else rng.choice((0, 5))
            cuts.add(cut.flow)
            answered.add(cut.flow)
            withheld.update({cut.flow} if count else ())
            act(CutDone(cut.token, count))

    def ends(flow: int) -> Note:
        return Note(Kind.COMPLETE, flow, TO_CLIENT, 50)

    def tell(kind: Kind, flow: int) -> None:
        act(NoteRaised(replace(ends(flow), kind=kind), replace(ENDS, client_port=flow)))

    def answer() -> None:
        if not scans:
            return
        scan = scans.pop(rng.randrange(len(scans)))
        flow = scan.flow or int(scan.path)
        bad = flow % 3 == 0
        error = rng.choice(("", "", "timeout"))
        seen = Object(f"{flow:064x}", 10, rules=["Bad"] if bad else [])
        act(ScanDone(scan.token, Result(scan.token, [] if error else [seen], error, finished=0 if error else 50)))

    for _ in range(80):
        now += 0.3
        roll = rng.random()
        if roll < 0.3:
            flows += 1
            tell(Kind.COMPLETE, flows)
            asked.add(flows)
        elif flows and roll < 0.5:
            tell(rng.choice((Kind.EXPIRED, Kind.FRAME)), rng.choice(sorted(asked)))
        elif flows and roll < 0.6:
            flow = rng.choice(sorted(asked))
            meta = replace(META, dst_port=flow)
            act(FileSeen(flow, TO_CLIENT, meta, "CLOSED", True, f"{flow:064x}", 10, str(flow)))
        elif roll < 0.7:
            take(engine.due(now))
        answer()
    while scans or engine.waiting:
        answer()
        engine.overloaded = False
        now += 1
        take(engine.due(now))
    for number in sorted(asked):
        if number in engine.undecided and rng.random() < 0.5:
            withheld.add(number)
            tell(Kind.WITHHELD, number)
        gone.add(number)
        tell(Kind.GONE, number)
    assert asked <= answered, "held bytes were never answered for"
    assert {flow for flow, _ in reports} == asked
    assert {flow for flow, r in reports if r.outcome == "blocked"} <= withheld
    if engine.block:
        assert not [r for flow, r in reports if flow % 3 == 0 and r.outcome == "clean"], "bad, and called clean"
    assert not engine.cases
    assert not engine.flows
