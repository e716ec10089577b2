"""Rollouts over the centre's real tables: nothing half done, nothing sent twice, a halt takes back what it can."""

from __future__ import annotations

import datetime as dt
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from thousand import KEY, RULE, START, World

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.bench.fleet_jobs import Fate
from sekisho.center.database import metadata
from sekisho.center.jobs.tables import JOB_BOX
from sekisho.center.notify import watch
from sekisho.center.notify.rollouts import waiting
from sekisho.center.notify.tables import mail
from sekisho.center.rollout import book, papers, turn
from sekisho.center.rollout.model import Plan
from sekisho.center.rollout.tables import ROLLOUT, ROLLOUT_BOX
from sekisho.center.rollout.worse import Signs, compare
from sekisho.center.settings import Notify
from sekisho.telemetry.events import Vitals

CHOSEN = [["box-0"], ["box-1", "box-2", "box-3", "box-4"]]
ASKED = [box for ring in CHOSEN for box in ring]
QUICK = msgspec.structs.replace(RULE, soak_s=100)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, 12, tenants=4)
    yield made
    made.close()


class _Killed(BaseException):
    pass


def dump(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """What a rollout decides about, as it lies on the disk."""
    names = [name for name in metadata.tables if name.startswith(("rollout", "job"))]
    with world.database.reading() as db:
        return {name: [tuple(row) for row in db.execute(sa.select(metadata.tables[name]))] for name in names}


def kill_at_every_write(world: World, act: Callable[[], object]) -> int:
    """Let the process die before each statement that `act` writes, then act; each death must leave what was before."""
    count, die_at = 0, -1

    def before(_db: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal count
        if statement.split()[0] in ("INSERT", "UPDATE", "DELETE"):
            if count == die_at:
                raise _Killed
            count += 1

    engine, found = world.database.engine, dump(world)
    sa.event.listen(engine, "before_cursor_execute", before)
    try:
        while True:
            die_at, count = die_at + 1, 0
            try:
                act()
            except _Killed:
                assert dump(world) == found, f"killed before write {die_at}: something was kept"
                continue
            return die_at
    finally:
        sa.event.remove(engine, "before_cursor_execute", before)


def test_killed_before_any_write_a_rollout_is_as_it_was_and_goes_on_to_the_same_end(world: World) -> None:
    made = world.plan(QUICK, CHOSEN)
    world.boxes["box-3"].fate = "revert"
    deaths = kill_at_every_write(world, lambda: world.start(made))
    for _ in range(60):
        world.now += 100
        world.hear()
        deaths += kill_at_every_write(world, world.step)
        world.say_on()
        if world.rollout(made.id).state == "halted":
            break
    assert (world.rollout(made.id).why, world.rollout(made.id).why_box) == ("bad", "box-3")
    deaths += kill_at_every_write(world, lambda: world.say("resume", made.id))
    deaths += kill_at_every_write(world, lambda: world.say("pause", made.id))
    deaths += kill_at_every_write(world, lambda: world.say("cancel", made.id))
    assert deaths > 40 and world.rollout(made.id).state == "canceled"
    assert all(box.truth.running == 139 for name, box in world.boxes.items() if name not in ASKED)
    notes = [note.what for note in reversed(world.shown(made.id).notes)]
    assert notes == ["start", "soak", "ring", "halt", "resume", "pause", "cancel"], "each is told once"


def test_a_centre_that_starts_anew_over_its_file_goes_on_where_it_was(world: World, tmp_path: Path) -> None:
    made = world.plan(QUICK, CHOSEN)
    world.start(made)
    world.run(500, every=100)
    before = world.rollout(made.id)
    world.reopen()
    assert world.rollout(made.id) == before
    world.run(3000, every=100)
    assert world.rollout(made.id).state == "done"
    assert all(states.count("SUCCEEDED") == 1 == states.count("fetch SUCCEEDED") for states in world.said.values())
    assert shutil.disk_usage(tmp_path).free


def test_a_halt_takes_the_release_back_where_it_has_not_begun_and_is_shown_so(world: World) -> None:
    made = world.plan(QUICK, CHOSEN)
    world.boxes["box-1"].fate = "fail"
    world.boxes["box-2"].hold_at = "downloading"
    world.start(made)
    world.run(1500, every=50)
    assert world.rollout(made.id).why_box == "box-1"
    box = world.boxes["box-2"]
    assert box.truth.state == "CANCELED" and box.truth.running == 139
    shown = {one.box: one for one in world.shown(made.id).boxes}
    assert (shown["box-2"].how, shown["box-2"].state) == ("passed", "CANCELED")
    assert shown["box-5"].how == "unasked" and not world.said.get("box-5")


def test_what_is_held_back_at_a_halt_is_asked_again_when_somebody_resumes(world: World) -> None:
    made = world.plan(QUICK, [["box-0"], ["box-1", "box-2"]])
    world.boxes["box-1"].fate = "revert"
    world.start(made)
    world.run(600, every=100)
    world.deliver_nothing_to = {"box-2"}
    world.run(600, every=50)
    assert world.rollout(made.id).state == "halted"
    assert {one.box: one.how for one in world.shown(made.id).boxes}["box-2"] == "unasked"
    world.say("resume", made.id)
    world.run(100, every=50)
    assert {one.box: one.how for one in world.shown(made.id).boxes}["box-2"] == "waiting"
    assert world.rollout(made.id).state == "running", "the box that went back is known"


def _halted_while_its_words_are_late(world: World, fate: Fate) -> Plan:
    """box-2 has got its job, its words stay in its spool, and box-1 halts the rollout."""
    made = world.plan(QUICK, [["box-0"], ["box-1", "box-2"]])
    world.boxes["box-1"].fate, world.boxes["box-2"].fate, world.late = "revert", fate, {"box-2"}
    world.start(made)
    for _ in range(60):
        world.run(50, every=50)
        if world.rollout(made.id).state == "halted":
            break
    assert world.rollout(made.id).why_box == "box-1"
    return made


def test_what_a_box_that_got_its_job_says_after_a_halt_is_believed(world: World) -> None:
    made = _halted_while_its_words_are_late(world, "good")
    world.run(600, every=50)
    shown = {one.box: one for one in world.shown(made.id).boxes}
    assert shown["box-2"].how == "waiting", "it may have its job"
    world.arrive("box-2")
    world.run(200, every=50)
    world.is_truthful(made)
    shown = {one.box: one for one in world.shown(made.id).boxes}
    assert world.boxes["box-2"].truth.running == 140
    assert (shown["box-2"].how, shown["box-2"].state) == ("good", "SUCCEEDED")


def test_a_box_that_dies_after_a_halt_that_came_before_its_words_is_silent_after_the_resume(world: World) -> None:
    made = _halted_while_its_words_are_late(world, "hang")
    world.run(600, every=50)
    world.arrive("box-2")
    world.lose(["box-2"])
    world.say("resume", made.id)
    world.run(RULE.silent_s + 200, every=50)
    assert (world.rollout(made.id).why, world.rollout(made.id).why_box) == ("silent", "box-2")


def test_a_box_has_its_job_even_where_nobody_noted_that_it_left(world: World) -> None:
    made = _halted_while_its_words_are_late(world, "good")
    world.boxes["box-2"].hold_at = "downloading"
    with world.database.transaction() as db:  # whoever sent it was killed before it could write that down
        db.execute(ROLLOUT_BOX.update().where(ROLLOUT_BOX.c.box == "box-2").values(asked_at=0.0))
    world.arrive("box-2")
    world.look()
    world.is_truthful(made)
    world.say("resume", made.id)
    with world.database.reading() as db:
        assert db.scalar(sa.select(ROLLOUT_BOX.c.asked_at).where(ROLLOUT_BOX.c.box == "box-2")) == world.now


def test_a_job_that_a_halt_held_while_it_was_on_its_way_goes_out_again_after_the_resume(world: World) -> None:
    made = world.plan(QUICK, [["box-0"], ["box-1", "box-2"]])
    world.boxes["box-1"].fate, world.deliver_nothing_to = "revert", {"box-2"}
    world.start(made)
    for _ in range(60):
        world.run(50, every=50)
        if world.rollout(made.id).ring == 1:
            break
    with world.database.transaction() as db:  # the broker had both, and lost them
        db.execute(JOB_BOX.update().where(JOB_BOX.c.box == "box-2").values(sent_at=utc.of_unix(world.now)))
    world.run(600, every=50)
    assert world.rollout(made.id).why_box == "box-1"
    world.say("resume", made.id)
    world.deliver_nothing_to = set()
    world.run(600, every=50)
    assert world.boxes["box-2"].truth.running == 140


def test_a_box_that_comes_back_after_the_resume_gets_the_release_and_not_what_cancels_it(world: World) -> None:
    made = world.plan(QUICK, [["box-0"], ["box-1", "box-2"]])
    world.boxes["box-1"].fate, world.boxes["box-2"].hold_at = "revert", "downloading"
    world.start(made)
    world.run(600, every=50)
    for _ in range(60):
        world.run(50, every=50)
        world.deliver_nothing_to = {"box-2"} if world.said.get("box-2") else set()
        if world.rollout(made.id).state == "halted":
            break
    assert world.rollout(made.id).why_box == "box-1"
    world.run(200, every=50)
    world.say("resume", made.id)
    world.deliver_nothing_to, world.boxes["box-2"].hold_at = set(), ""
    world.run(600, every=50)
    assert world.boxes["box-2"].truth.state == "SUCCEEDED" and world.boxes["box-2"].truth.running == 140
    assert not any("CANCELED" in state for state in world.said["box-2"])


def test_paused_asks_nobody_until_it_is_resumed(world: World) -> None:
    made = world.plan(QUICK, CHOSEN)
    world.start(made)
    world.say("pause", made.id)
    world.run(600, every=100)
    assert world.asked() == set()
    world.say("resume", made.id)
    world.run(4000, every=100)
    assert world.rollout(made.id).state == "done"
    with pytest.raises(RejectedInput, match="done"):
        world.say("halt", made.id)


def test_a_box_that_was_off_is_asked_when_it_comes_back(world: World) -> None:
    made = world.plan(msgspec.structs.replace(QUICK, absent=0.3), CHOSEN)
    world.lose(["box-4"])
    world.start(made)
    for _ in range(30):
        world.run(100, every=100)
        if world.rollout(made.id).ring == 2:
            break
    assert "box-4" not in world.asked() and world.rollout(made.id).state == "running"
    world.connect(["box-4"])
    world.run(2000, every=100)
    assert world.boxes["box-4"].truth.running == 140 and world.rollout(made.id).state == "done"


def test_a_rollout_is_not_over_while_a_box_of_its_last_ring_may_still_get_the_job(world: World) -> None:
    made = world.plan(msgspec.structs.replace(QUICK, absent=0.3), CHOSEN)
    last = made.rings[-1][-1]
    world.deliver_nothing_to = {last}
    world.start(made)
    world.run(4000, every=100)
    rollout = world.rollout(made.id)
    assert (rollout.state, rollout.ring + 1, rollout.soaked_s) == ("running", len(made.rings), 100.0)
    world.say("cancel", made.id)
    world.deliver_nothing_to = set()
    world.run(400, every=100)
    assert world.boxes[last].truth.running == 139


def test_a_ring_that_is_lost_during_its_soak_is_shown_so_and_nobody_follows_it(world: World) -> None:
    made = world.plan(msgspec.structs.replace(QUICK, soak_s=3600, deadline_s=20_000), CHOSEN)
    world.start(made)
    world.run(600)
    assert world.boxes["box-0"].truth.running == 140
    world.lose(["box-0"])
    world.run(19_000, every=100)
    world.is_truthful(made)
    shown = world.shown(made.id)
    assert (shown.listed.rollout.state, shown.listed.rollout.ring) == ("running", 0)
    assert (shown.rings[0].counts["good"], shown.rings[0].counts["gone"]) == (0, 1)
    assert world.asked() == {"box-0"}
    world.run(2000, every=100)
    assert world.rollout(made.id).why == "silent"
    world.connect(["box-0"])
    world.say("resume", made.id)
    world.run(12_000, every=110)
    assert world.rollout(made.id).state == "done"


@pytest.mark.parametrize("together", [False, True])
def test_late_words_of_an_earlier_attempt_are_not_counted_in_the_next_rollout(world: World, together: bool) -> None:
    first = world.plan(QUICK, [["box-1"], ["box-2"]])
    world.boxes["box-1"].fate, world.late = "revert", {"box-1"}
    world.start(first)
    world.run(900, every=50)
    assert world.boxes["box-1"].truth.state == "REVERTED"
    world.lose(["box-1"])
    world.say("cancel", first.id)
    second = world.plan(QUICK, [["box-1"], ["box-2"]], seed="C")
    world.boxes["box-1"].fate = "good"
    world.now += 60
    world.connect(["box-1"])
    world.start(second)
    world.look()
    for _ in range(2 if together else 0):  # it gets its job, and answers
        world.now += 1.5
        world.say_on()
    assert not world.said.get("box-1")
    world.arrive("box-1")
    world.look()
    rollout, shown = world.rollout(second.id), {one.box: one for one in world.shown(second.id).boxes}
    assert (rollout.state, rollout.why) == ("running", "")
    assert (shown["box-1"].state, shown["box-1"].firmware) == ("ACCEPTED" if together else "", "")
    world.run(6000, every=100)
    assert world.rollout(second.id).state == "done"


def test_a_customer_who_is_deleted_and_a_rollout_that_cannot_be_read_keep_no_other_from_being_looked_at(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    first = world.plan(QUICK, [["box-0"]], shares=())
    second = world.plan(QUICK, [["box-1"]], seed="C", shares=())
    third = world.plan(QUICK, [["box-2"]], seed="D", shares=())
    for made in (first, second, third):
        world.start(made)
    with world.database.transaction() as db:
        db.execute(ROLLOUT_BOX.delete().where(ROLLOUT_BOX.c.box == "box-0"))
        db.execute(ROLLOUT.update().where(ROLLOUT.c.id == second.id).values(rule=b"{"))
    world.run(1200)
    assert [world.rollout(one.id).state for one in (first, second, third)] == ["done", "running", "done"]
    assert f"rollout {second.id}: nothing was decided" in caplog.text


def test_more_rollouts_than_one_turn_takes_all_have_theirs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "ACTIVE_CAP", 2)
    made = [world.plan(QUICK, [[f"box-{n}"]], seed="CDEFG"[n], shares=()) for n in range(5)]
    for one in made:
        world.start(one)
    world.say("halt", made[0].id)
    world.run(1500, every=20)
    assert [world.rollout(one.id).state for one in made] == ["halted", *["done"] * 4]


def test_a_plan_that_is_not_signed_whole_or_was_changed_is_not_begun(world: World) -> None:
    made = world.plan(QUICK, CHOSEN)
    one = made.papers[0]

    def with_last(**change: Any) -> Plan:
        step = msgspec.structs.replace(one.steps[-1], **change)
        first = msgspec.structs.replace(one, steps=[one.steps[0], step])
        return msgspec.structs.replace(made, papers=[first, *made.papers[1:]])

    unsigned = with_last(cancel_envelope=b"")
    changed = with_last(job=msgspec.structs.replace(one.job, boxes=["box-9"]))
    foreign = msgspec.structs.replace(made, id="01JD3" + "B" * 21)
    for wrong in (unsigned, changed, foreign):
        with pytest.raises(RejectedInput):
            world.start(wrong)
    world.start(made)
    with pytest.raises(RejectedInput, match="already"):
        world.start(made)
    with pytest.raises(RejectedInput, match="not over"):
        world.start(world.plan(QUICK, CHOSEN, seed="C"))
    assert len(dump(world)["rollout"]) == 1


def test_two_operators_may_sign_the_same_plan_and_nobody_another_one(world: World) -> None:
    made = papers.sign(world.plan(QUICK, CHOSEN), "tanaka", b"t" * 32)
    first = made.papers[0]
    for step in first.steps:
        signatures = msgspec.json.decode(step.envelope)["signatures"]
        assert [one["keyid"] for one in signatures] == ["suzuki", "tanaka"]
    job = msgspec.structs.replace(first.job, boxes=["box-9"])
    steps = [first.steps[0], msgspec.structs.replace(first.steps[1], job=job)]
    swapped = msgspec.structs.replace(made, papers=[msgspec.structs.replace(first, steps=steps), *made.papers[1:]])
    with pytest.raises(RejectedInput, match="another job"):
        papers.sign(swapped, "kato", KEY)


def test_the_staff_gets_one_mail_when_a_rollout_halts_by_itself_and_none_when_somebody_did(world: World) -> None:
    made = world.plan(QUICK, CHOSEN)
    world.boxes["box-3"].fate = "revert"
    config = Notify(operator=("staff@centre.example",))

    def mails() -> list[str]:
        watch.step(world.database, world.database, config, world.moment())
        with world.database.reading() as db:
            return [row.letter.decode() for row in db.execute(sa.select(mail).where(mail.c.kind == "halted"))]

    world.start(made)
    assert mails() == []
    world.run(2500, every=100)
    (letter,) = mails()
    assert "1.4.0" in letter and "第2段階の 4 台のうち 1 台が" in letter and '"box":"box-3"' in letter
    world.say("resume", made.id)
    world.say("halt", made.id)
    assert len(mails()) == 1
    with world.database.reading() as db:
        assert not waiting(db)


def test_boxes_that_run_out_of_memory_with_the_release_halt_it(world: World) -> None:
    made = world.plan(msgspec.structs.replace(RULE, soak_s=6 * 3600), CHOSEN)

    def vitals(free: float) -> None:
        for name in ASKED:
            said = Vitals(at=utc.of_unix(world.now), memory_free=int(free * 1e9), memory_size=10**9, temperature=50.0)
            world.tell(name, said)

    for _ in range(30):
        world.now += 6 * 3600
        vitals(0.4)
    world.start(made)
    world.run(1200, every=100)
    for _ in range(4):
        world.run(3600, every=100)
        vitals(0.01)
    rollout = world.rollout(made.id)
    assert (rollout.state, rollout.why, rollout.why_detail) == ("halted", "worse", "memory")


def test_a_box_is_compared_for_a_week_and_then_no_more(world: World) -> None:
    rule = msgspec.structs.replace(RULE, deadline_s=80 * 86_400)
    made = world.plan(rule, [["box-0", "box-1", "box-2", "box-3"]])
    world.boxes["box-3"].hold_at = "downloading"  # the ring is not over
    world.start(made)
    world.run(1200)
    spans: list[float] = []

    @sa.event.listens_for(world.database.engine, "before_cursor_execute")
    def heard(_db: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if "FROM box_vitals" in statement:
            hours = [str(one) for one in parameters if re.fullmatch(r"[0-9-]{10}T[0-9]{2}", str(one))]
            times = [dt.datetime.fromisoformat(f"{one}:00+00:00").timestamp() for one in hours]
            spans.append((max(times) - min(times)) / 86_400)

    for day, compared in ((1, 1), (5, 5), (7.9, 7), (20, 0), (50, 0)):
        spans.clear()
        world.now = START + day * 86_400
        world.look()
        assert round(max(spans, default=0)) == compared, spans
        assert len(spans) <= 2, "of all boxes at once"
    assert world.rollout(made.id).ring == 0


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ({}, {}, ""),
        ({"alerts": 24}, {"alerts": 200}, "alerts"),
        ({"alerts": 24}, {"alerts": 40}, ""),
        ({"alerts": 2400}, {"alerts": 200}, ""),
        ({"off_s": 1}, {"off_s": 120}, "off"),
        ({"off_s": 240}, {"off_s": 60}, ""),
        ({"drops": 0}, {"drops": 5000}, "drops"),
        ({"memory": 0.3}, {"memory": 0.02}, "memory"),
        ({"memory": 0.06}, {"memory": 0.02}, ""),
        ({"hottest": 60}, {"hottest": 92}, "heat"),
        ({"hottest": 84}, {"hottest": 92}, ""),
        ({"hottest": 0}, {"hottest": 92}, ""),
    ],
)
def test_only_what_is_far_from_how_it_was_counts_as_worse(
    before: dict[str, float], after: dict[str, float], what: str
) -> None:
    assert compare(Signs(hours=24, **before), Signs(hours=4, **after)) == what
    assert compare(Signs(hours=0, **before), Signs(hours=4, **after)) == "", "nothing to compare with"
    assert compare(Signs(hours=24, **before), Signs(hours=0.5, **after)) == "", "too early to tell"


def test_a_page_of_boxes_is_a_part_of_all_and_asks_for_no_more_than_it_shows(world: World) -> None:
    made = world.plan(QUICK, [[f"box-{n}" for n in range(8)]])
    world.start(made)
    world.run(60, every=30)
    whole = world.shown(made.id)
    asked: list[str] = []

    @sa.event.listens_for(world.database.engine, "before_cursor_execute")
    def heard(_db: object, _cursor: object, _statement: str, parameters: Any, *_: object) -> None:
        asked.extend(str(one) for one in parameters if str(one).startswith("box-"))

    with world.database.reading() as db:
        first = book.show(db, made.id, world.sender, how=whole.boxes[0].how, limit=3)
        rest = book.show(db, made.id, world.sender, how=whole.boxes[0].how, after=first.boxes[-1].box, limit=100)
    alike = [one for one in whole.boxes if one.how == whole.boxes[0].how]
    assert len(alike) > 3 and first.boxes + rest.boxes == alike
    assert {one.box for one in whole.boxes} - {one.box for one in alike}, "others stand otherwise"
    assert set(asked) == {one.box for one in alike}
    assert first.rings == whole.rings


def test_what_boxes_say_after_a_rollout_is_over_is_counted_ever_more_seldom_and_in_the_end_no_more(
    world: World,
) -> None:
    made = world.plan(QUICK, CHOSEN)
    world.start(made)
    for box in world.boxes.values():
        box.hold_at = "verified"
    world.run(200)
    world.say("cancel", made.id)
    world.run(60)
    assert {one.how for one in world.shown(made.id).boxes if one.ring == 1} == {"passed"}
    counted = 0
    for _ in range(70 * 4):
        world.now += 6 * 3600
        before = _counted(world, made)
        world.step()
        counted += _counted(world, made) != before
    assert 20 < counted < 120, counted
    assert _counted(world, made) >= made.papers[0].job.exp


def _counted(world: World, made: Plan) -> float:
    with world.database.reading() as db:
        return float(turn.load(db, made.id).counted_at)
