"""Who asks for what is newest gets an answer that was fetched after the question."""

from __future__ import annotations

from sekisho.signatures.keeper import facts
from sekisho.signatures.keeper.journal import Journal, Kept
from sekisho.signatures.keeper.machine import Machine
from sekisho.signatures.published import Manifest

AT = "2026-11-21T03:00:00Z"
OLD = Manifest(number=1, built=AT, sha256="0" * 64, length=1, path="sig/1.tar.zst", packed=1, rules=1, yara=1)


def resting() -> Machine:
    """In force is set 1; the first refresh is under way."""
    machine = Machine(Journal(active=Kept(id="a", number=1), highest=1), 0.0, lambda _most: 0.0)
    machine.handle(facts.Started(Kept(id="a", number=1)), 0.0, AT)
    machine.handle(facts.Asked(), 1.0, AT)
    assert looked(machine, 1.0) == [facts.Refresh(False)]
    return machine


def looked(machine: Machine, now: float) -> list[facts.Command]:
    return machine.handle(facts.Looked(link="a"), now, AT)


def test_a_question_during_a_refresh_is_asked_again_when_that_one_has_ended() -> None:
    machine = resting()
    machine.handle(facts.Asked(again=True), 2.0, AT)
    assert looked(machine, 2.0) == [], "one at a time"
    machine.handle(facts.Refreshed(OLD), 3.0, AT)
    assert looked(machine, 3.0) == [facts.Refresh(True)]
    machine.handle(facts.Refreshed(OLD), 4.0, AT)
    assert looked(machine, 5.0) == [], "it was answered"


def test_a_question_during_a_refresh_that_fails_is_asked_again_once() -> None:
    machine = resting()
    machine.handle(facts.Asked(), 2.0, AT)
    machine.handle(facts.Failed(machine.journal.step, "peer", "away"), 3.0, AT)
    assert looked(machine, 3.0) == [facts.Refresh(False)]
    machine.handle(facts.Failed(machine.journal.step, "peer", "away"), 4.0, AT)
    assert looked(machine, 4.0) == [], "a server that is away is not asked without a pause"
