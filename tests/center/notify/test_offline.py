"""Boxes that are gone, come and go, or seem gone because the centre is: what people are told, and what not."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path

import msgspec
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.center import tenants
from sekisho.center.ca import registry
from sekisho.center.database import Database
from sekisho.center.notify import offline, upkeep, watch
from sekisho.center.notify.letter import Letter
from sekisho.center.notify.offline import Watched
from sekisho.center.notify.tables import mail, text
from sekisho.center.pulse import PULSE
from sekisho.center.settings import Notify
from sekisho.center.store import BoxState, NewRow, Store
from sekisho.telemetry.events import Signatures, encode

NOON = dt.datetime(2026, 3, 4, 3, 0, tzinfo=dt.UTC)
WAIT = dt.timedelta(minutes=10)
MINUTE = dt.timedelta(minutes=1)
WORDS = st.sampled_from(["on", "lost"])


def state(birth: int, word: str) -> BoxState:
    return BoxState("box-1", "t1", word, birth, "", 0, "")


def course(*spells: tuple[str, int]) -> list[tuple[int, str]]:
    """What is told over spells of (state, minutes): (minute, kind)."""
    told: list[tuple[int, str]] = []
    watched, birth, minute = None, 0, 0
    for word, minutes in spells:
        if word == "on":  # as telemetry numbers its births: by the clock
            birth = int(NOON.timestamp()) + 60 * minute
        for _ in range(minutes):
            now = NOON + minute * MINUTE
            watched, kind = offline.judge(offline.seen(watched, state(birth, word), now), WAIT, now)
            if kind:
                told.append((minute, kind))
            minute += 1
    return told


def test_a_box_that_is_gone_is_told_once_and_so_is_its_return() -> None:
    assert course(("on", 60), ("lost", 300), ("on", 60)) == [(70, "offline"), (362, "back")]


def test_a_short_break_is_not_told() -> None:
    assert course(("on", 60), ("lost", 9), ("on", 400)) == []


def test_a_box_that_comes_and_goes_is_told_once_as_unstable_and_later_as_steady() -> None:
    spells = [("lost", 3), ("on", 5)] * 20
    assert course(("on", 60), *spells, ("on", 400)) == [(87, "flapping"), (580, "steady")]


def test_an_unstable_box_that_stays_away_is_told_as_gone() -> None:
    told = course(("on", 60), *[("lost", 3), ("on", 5)] * 4, ("lost", 300))
    assert [kind for _, kind in told] == ["flapping", "offline"]


def test_an_unstable_box_that_goes_for_long_again_and_again_is_told_of_rarely() -> None:
    told = course(("on", 60), *[("lost", 3), ("on", 5)] * 4, *[("lost", 70), ("on", 10)] * 18)
    assert len(told) <= 12, told


def test_a_wait_of_zero_tells_nothing() -> None:
    box = Watched("t1", "lost", 1, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z")
    assert offline.judge(box, dt.timedelta(0), NOON)[1] is None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["on", "lost"]), st.integers(1, 200)), max_size=60),
    st.sampled_from(["on", "lost"]),
)
def test_however_it_comes_and_goes_mails_are_few_and_the_last_is_true(spells: list[tuple[str, int]], last: str) -> None:
    told = course(("on", 5), *spells, (last, 800))
    for minute, _ in told:
        assert sum(minute - 360 < other <= minute for other, _ in told) <= 2 * offline.FLAPS + 2
    final = [kind for _, kind in told]
    if last == "lost":
        assert final[-1:] == ["offline"]
    else:
        assert final.count("offline") == final.count("back")
        assert final.count("flapping") >= final.count("steady")
        assert not final or final[-1] in ("back", "steady")


class Fleet:
    """Boxes in a centre's database, their tenants, and a clock that is moved by hand."""

    def __init__(self, root: Path, count: int) -> None:
        self.store = Store(root / "center.db")
        self.database = Database(str(root / "center.db"))
        self.reading = Database(str(root / "center.db"), read_only=True)
        self.now, self.births = NOON, [1] * count
        self.seq = 0
        with self.database.transaction() as db:
            for number in range(count):
                tenants.save(
                    db, tenants.changed(tenants.Tenant(f"t{number}"), {"recipients": [f"o{number}@shop.example"]})
                )
        self.set("on", *range(count))

    def set(self, word: str, *numbers: int) -> None:
        with self.store.transaction():
            for number in numbers:
                self.births[number] += word == "on"
                box = BoxState(f"box-{number}", f"t{number}", word, self.births[number], "", 0, "")
                self.store.set_state(box)

    def word(self, state: str, *numbers: int, **facts: str) -> None:
        """These boxes say this of their rules now."""
        at = text(self.now)
        with self.store.transaction():
            for number in numbers:
                self.seq += 1
                event = Signatures(at=at, state=state, number=7, **facts)  # type: ignore[arg-type]
                row = NewRow(self.seq, 0, "signatures", at, encode(event))
                self.store.add(f"t{number}", f"box-{number}", "e", [row], at)

    def hear(self) -> None:
        """An intake worker is connected to the broker now."""
        with self.database.transaction() as db:
            db.execute(sa.delete(PULSE))
            db.execute(sa.insert(PULSE).values(id=1, at=text(self.now)))

    def wait(self, minutes: float) -> None:
        until = self.now + minutes * MINUTE
        while self.now < until:
            self.now += dt.timedelta(seconds=20)
            watch.step(self.database, self.reading, Notify(operator=("staff@centre.example",)), self.now)

    def told(self) -> Counter[tuple[str, str]]:
        with self.reading.reading() as db:
            return Counter((row.kind, row.recipient) for row in db.execute(sa.select(mail.c.kind, mail.c.recipient)))


def test_one_box_of_many_is_told_to_its_own_people(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 6)
    fleet.wait(1)
    fleet.set("lost", 2)
    fleet.wait(11)
    assert fleet.told() == {("offline", "o2@shop.example"): 1}
    fleet.set("on", 2)
    fleet.wait(3)
    assert fleet.told() == {("offline", "o2@shop.example"): 1, ("back", "o2@shop.example"): 1}
    with fleet.reading.reading() as db:
        letters = [msgspec.json.decode(row, type=Letter) for row in db.scalars(sa.select(mail.c.letter))]
    back = next(letter for letter in letters if letter.kind == "back")
    assert back.thread, "the return is in the thread of the loss"


def test_a_box_whose_certificate_was_revoked_is_gone_on_purpose(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 6)
    fleet.wait(1)
    with fleet.database.transaction() as db:
        registry.expect(db, "box-2", "t2", text(NOON))
        registry.revoke(db, "box-2", text(NOON))
    fleet.set("lost", 2)
    fleet.wait(30)
    assert fleet.told() == {}


def test_when_most_are_gone_at_once_only_the_staff_is_told(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 6)
    fleet.wait(1)
    fleet.set("lost", 0, 1, 2, 3)
    fleet.wait(180)
    assert fleet.told() == {("outage", "staff@centre.example"): 1}
    fleet.set("on", 0, 1, 2)
    fleet.wait(5)
    assert fleet.told() == {("outage", "staff@centre.example"): 1, ("over", "staff@centre.example"): 1}
    fleet.wait(11)
    assert fleet.told()[("offline", "o3@shop.example")] == 1, "the one that did not come back is told after its wait"


def test_a_broker_that_restarts_again_and_again_makes_no_box_unstable(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 5)
    for _ in range(8):
        fleet.wait(10)
        fleet.set("on", *range(5))
    fleet.wait(10)
    assert fleet.told() == {}


def test_while_the_broker_is_not_heard_nothing_is_said_of_boxes(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 6)
    fleet.hear()
    fleet.wait(0.5)
    fleet.set("lost", 2)
    fleet.wait(60)
    assert fleet.told() == {("deaf", "staff@centre.example"): 1}
    fleet.set("on", 2)
    fleet.hear()
    fleet.wait(0.5)
    fleet.hear()
    fleet.wait(0.5)
    assert fleet.told() == {("deaf", "staff@centre.example"): 1, ("hears", "staff@centre.example"): 1}


def test_a_short_silence_of_the_broker_is_told_to_nobody(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 6)
    for _ in range(5):
        fleet.hear()
        fleet.wait(4)
    assert fleet.told() == {}


def test_nothing_is_written_while_nothing_changes(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 3)
    fleet.wait(1)
    before = (tmp_path / "center.db-wal").stat().st_size
    fleet.wait(5)
    assert (tmp_path / "center.db-wal").stat().st_size == before


def test_the_staff_is_told_once_of_boxes_without_rules_however_they_come_and_go(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 6)
    fleet.word("silent", 0)
    fleet.wait(1)
    assert fleet.told() == {("silent", "staff@centre.example"): 1}
    for _ in range(20):
        fleet.word("repaired", 0)
        fleet.wait(1)
        fleet.word("silent", 0)
        fleet.wait(1)
    assert fleet.told() == {("silent", "staff@centre.example"): 1}
    fleet.word("silent", 1, 2, 3)
    fleet.wait(1)
    assert fleet.told() == {("silent", "staff@centre.example"): 2}, "twice as many are worth another"
    fleet.word("repaired", 0, 1, 2, 3)
    fleet.wait(6 * 60 + 1)
    fleet.word("silent", 5)
    fleet.wait(1)
    assert fleet.told() == {("silent", "staff@centre.example"): 3}


def test_the_staff_is_told_daily_of_rules_that_were_not_asked_after_for_two_weeks(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 3)
    fleet.word("freshness", 0, checked=text(NOON - dt.timedelta(days=14) + 5 * MINUTE))
    fleet.wait(4)
    assert fleet.told() == {}
    fleet.wait(2)
    assert fleet.told() == {("stale", "staff@centre.example"): 1}
    assert upkeep.judge(upkeep.Told(1, text(NOON), text(NOON)), 1, NOON + dt.timedelta(hours=23))[1] is False
    assert upkeep.judge(upkeep.Told(1, text(NOON), text(NOON)), 1, NOON + dt.timedelta(hours=24))[1] is True
    fleet.word("freshness", 0, checked=text(fleet.now))
    fleet.wait(1)
    assert fleet.told() == {("stale", "staff@centre.example"): 1}


def test_boxes_that_are_gone_are_nobodys_rules(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 6)
    fleet.set("lost", 0)
    fleet.word("silent", 0)
    fleet.wait(5)
    assert fleet.told() == {}
