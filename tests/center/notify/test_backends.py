"""Planning and claiming on both databases: several at once double nothing, and bad input stops nothing."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter

import pytest
import sqlalchemy as sa
from post_office import alert

from sekisho.center import devices, tenants
from sekisho.center.database import Database
from sekisho.center.devices import DEVICE
from sekisho.center.immunity import judge
from sekisho.center.immunity.tables import SIGHTING
from sekisho.center.notify import notices, queue, sweep, watch
from sekisho.center.notify.desk import Desk, Notice
from sekisho.center.notify.rounds import Rounds
from sekisho.center.notify.tables import gathering, heap, mail
from sekisho.center.outbox import BAD_FILE, NOTICE
from sekisho.center.settings import Days, Notify, Retention
from sekisho.center.store import BoxState, NewRow, Store
from sekisho.telemetry.events import Alert, Device, FileVerdict, Flow, encode

AT = "2026-01-02T03:04:05.000006Z"


class Centre:
    def __init__(self, url: str) -> None:
        self.url, self.store, self.database, self.seq = url, Store(url), Database(url), 0
        with self.database.transaction() as db:
            tenants.save(db, tenants.Tenant("t1", recipients=("a@shop.example", "b@shop.example"), mails_per_hour=60))

    def add(self, *events: Alert) -> None:
        self.add_bodies(*(encode(event) for event in events))

    def add_bodies(self, *bodies: bytes, tenant: str = "t1", box: str = "box-1") -> None:
        rows = []
        for body in bodies:
            self.seq += 1
            rows.append(NewRow(self.seq, 1, "alert", AT, body, stars=3))
        with self.store.transaction():
            self.store.add(tenant, box, "e" * 16, rows, AT)

    def states(self) -> Counter[str]:
        with self.database.reading() as db:
            return Counter(db.scalars(sa.select(NOTICE.c.state)))

    def count(self, table: sa.Table) -> int:
        with self.database.reading() as db:
            return int(db.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


@pytest.fixture
def centre(store_url: str) -> Centre:
    return Centre(store_url)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def together(count: int, work: object) -> None:
    """Run it in so many threads at once; what fails there fails here."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()  # type: ignore[operator]  # a function of the test
        except BaseException as err:  # noqa: BLE001 - told below
            failed.append(err)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_several_planners_decide_each_notice_once(centre: Centre) -> None:
    centre.add(*[alert(number % 20) for number in range(300)])

    def work() -> None:
        database = Database(centre.url)
        while notices.plan(database, now()):
            pass
        database.close()

    together(3, work)
    assert centre.states() == {"planned": 300}
    assert centre.count(mail) == 2 * 20
    with centre.database.reading() as db:
        assert db.execute(sa.select(sa.func.sum(heap.c.number))).scalar() == 280


def test_several_senders_claim_each_mail_once(centre: Centre) -> None:
    centre.add(*[alert(number) for number in range(20)])
    notices.plan(centre.database, now())
    claimed: Counter[str] = Counter()

    def work() -> None:
        database = Database(centre.url)
        while True:
            with database.transaction() as db:
                taken = queue.claim(db, now())
            if taken is None:
                break
            claimed[taken.id] += 1
            with database.transaction() as db:
                queue.sent(db, taken, "250 ok", now())
        database.close()

    together(4, work)
    assert set(claimed.values()) == {1}
    assert len(claimed) == 40


def test_a_claim_that_ran_out_is_anothers_and_the_first_has_no_say(centre: Centre) -> None:
    centre.add(alert(1))
    notices.plan(centre.database, now())
    later = now() + dt.timedelta(seconds=queue.LEASE_S + 1)
    with centre.database.transaction() as db:
        first, other = queue.claim(db, now()), queue.claim(db, now())
        assert queue.claim(db, now()) is None
        second, _ = queue.claim(db, later), queue.claim(db, later)
        assert first and second and other
        assert {second.id, _.id if _ else ""} == {first.id, other.id}
        queue.sent(db, first, "250 too late", now())
    assert {one.state for one in queue.shown(centre.database)} == {"sending"}


def test_a_mail_refused_for_now_waits_ever_longer_and_is_given_up_after_days(centre: Centre) -> None:
    centre.add(alert(1))
    begin = now()
    notices.plan(centre.database, begin)
    with centre.database.transaction() as db:
        db.execute(sa.delete(mail).where(mail.c.recipient != "a@shop.example"))
    at, waits = begin, []
    while True:
        with centre.database.transaction() as db:
            taken = queue.claim(db, at)
            assert taken
            if not queue.later(db, taken, "451 later", at):
                break
        (one,) = queue.shown(centre.database)
        due = dt.datetime.fromisoformat(one.due_at)
        waits.append((due - at).total_seconds())
        at = due
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (15, 1800)
    assert at - begin > queue.GIVE_UP
    assert [one.state for one in queue.shown(centre.database)] == ["failed"]
    assert len(waits) < 200


def test_days_without_a_server_give_up_no_mail_and_greylisting_after_them_neither(centre: Centre) -> None:
    centre.add(alert(1))
    begin = now()
    notices.plan(centre.database, begin)
    with centre.database.transaction() as db:
        db.execute(sa.delete(mail).where(mail.c.recipient != "a@shop.example"))
    for day in range(6):
        at = begin + dt.timedelta(days=day)
        with centre.database.transaction() as db:
            taken = queue.claim(db, at)
            assert taken
            queue.unreached(db, taken, "no route", at)
        (one,) = queue.shown(centre.database, state="due")
        assert dt.datetime.fromisoformat(one.due_at) - at <= dt.timedelta(seconds=30)
    with centre.database.transaction() as db:
        taken = queue.claim(db, at + dt.timedelta(minutes=1))
        assert taken
        assert queue.later(db, taken, "451 greylisted", at)
    (one,) = queue.shown(centre.database, state="due")
    assert dt.datetime.fromisoformat(one.due_at) - at == dt.timedelta(seconds=queue.SHORTEST_S)


def test_what_a_box_should_not_send_stops_no_other_notice(centre: Centre) -> None:
    long = "x\0" * 5000
    hostile = Alert(at=long, stars=3, why_stars=long, count=1 << 61, until=long, flow=Flow(src_ip=long, mac=long))
    centre.add_bodies(b"{", b'{"type":"none"}', b"[" * 5000, encode(hostile), encode(hostile), encode(hostile))
    centre.add(alert(1))
    while notices.plan(centre.database, now()):
        pass
    assert centre.states() == {"planned": 7}
    assert centre.count(mail) == 2 * 2


def test_a_notice_that_makes_planning_fail_is_set_aside(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Desk._place

    def place(desk: Desk, notice: Notice) -> None:
        if notice.key.endswith("/3"):
            raise ZeroDivisionError
        good(desk, notice)

    monkeypatch.setattr(Desk, "_place", place)
    centre.add(*[alert(number) for number in range(5)])
    while notices.plan(centre.database, now()):
        pass
    assert centre.states() == {"planned": 4, "aside": 1}
    assert centre.count(mail) == 2 * 4


@pytest.mark.parametrize("topics", [6000, 1])
def test_one_box_that_floods_delays_nobody_elses_alarm(centre: Centre, topics: int) -> None:
    with centre.database.transaction() as db:
        tenants.save(db, tenants.Tenant("t2", recipients=("other@shop.example",)))
    centre.add(*[alert(number % topics) for number in range(6000)])
    turn = notices.Turn()
    assert notices.plan(centre.database, now(), turn=turn) >= notices.PAGE
    centre.add_bodies(encode(alert(1)), tenant="t2", box="box-2")
    notices.plan(centre.database, now(), turn=turn)
    assert [one.recipient for one in queue.shown(centre.database, tenant="t2")] == ["other@shop.example"]


def test_repeats_are_counted_at_once(centre: Centre) -> None:
    centre.add(*[alert(1)] * 4000)
    pages = 0
    while notices.plan(centre.database, now()):
        pages += 1
    assert pages <= 8
    with centre.database.reading() as db:
        assert db.execute(sa.select(sa.func.sum(heap.c.number))).scalar() == 3999


def test_more_boxes_than_a_page_has_take_turns(centre: Centre) -> None:
    for number in range(120):
        centre.add_bodies(*[encode(alert(number)) for number in range(3)], tenant=f"t{number}", box=f"box-{number}")
    turn = notices.Turn()
    for _ in range(3):
        notices.plan(centre.database, now(), turn=turn)
    with centre.database.reading() as db:
        told = sa.select(NOTICE.c.box).where(NOTICE.c.state == "planned")
        assert len(set(db.scalars(told))) == 120


def test_a_round_that_cannot_be_closed_is_set_aside_alone(
    centre: Centre, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    centre.add(*[alert(number) for number in (1, 2, 1, 2)])
    begin = now()
    notices.plan(centre.database, begin)
    with centre.database.transaction() as db:
        db.execute(
            sa.update(heap)
            .where(heap.c.topic == sa.select(sa.func.min(heap.c.topic)).scalar_subquery())
            .values(told=b"{")
        )
    centre.add_bodies(encode(alert(7)), tenant="t2", box="box-2")
    at = begin + dt.timedelta(hours=1)
    assert notices.plan(centre.database, at, ("staff@centre.example",)) == 1
    assert centre.states() == {"planned": 5}
    assert Counter((one.tenant, one.kind) for one in queue.shown(centre.database)) == {
        ("t1", "alert"): 4,
        ("t1", "again"): 2,
        ("t2", "alert"): 1,
    }
    assert caplog.text.count("is set aside") == 1
    centre.add(*[alert(number) for number in (1, 2)])
    while notices.plan(centre.database, at):
        pass
    assert centre.states() == {"planned": 7}
    with centre.database.reading() as db:
        assert Counter(db.scalars(sa.select(gathering.c.kind).where(gathering.c.tenant == "t1")))["aside"] == 1


def test_a_box_that_is_gone_is_told_on_both_databases(centre: Centre) -> None:
    begin = now()
    for word, minute in (("on", 0), ("lost", 1), ("lost", 12), ("on", 13), ("on", 16)):
        with centre.store.transaction():
            centre.store.set_state(BoxState("box-1", "t1", word, 1, "", 0, ""))
        watch.step(centre.database, centre.database, Notify(), begin + dt.timedelta(minutes=minute))
    assert Counter(one.kind for one in queue.shown(centre.database)) == {"offline": 2, "back": 2}


def test_mails_are_kept_for_a_while_and_then_go_with_what_was_told(centre: Centre) -> None:
    centre.add(*[alert(number) for number in range(10)])
    notices.plan(centre.database, now())
    with centre.database.transaction() as db:
        taken = queue.claim(db, now())
        assert taken
        queue.sent(db, taken, "250 ok", now())
    for days, left in ((sweep.KEPT_DAYS - 1, 20), (sweep.KEPT_DAYS + 1, 19)):
        list(sweep.sweep(centre.database, now() + dt.timedelta(days=days), Retention()))
        assert centre.count(mail) == left
    assert centre.count(NOTICE) == 0


def test_a_sweep_goes_on_until_all_is_gone_in_short_steps(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "STEP_ROWS", 10)
    centre.add(*[alert(1)] * 95)
    while notices.plan(centre.database, now()):
        pass
    steps = sweep.sweep(centre.database, now() + dt.timedelta(days=9999), Retention())
    assert max(steps) == 10
    assert centre.count(NOTICE) == 0


def test_no_copy_of_an_event_outlives_what_its_tenant_wants_kept(centre: Centre) -> None:
    today = now()
    device = Device(at=today.isoformat(), mac="00:11:22:33:44:55", name="REGI-1")
    for tenant, box, sha256 in (("t1", "box-1", "ab" * 32), ("t2", "box-2", "cd" * 32)):
        bad = FileVerdict(at=AT, sha256=sha256, outcome="blocked", rules=["Emotet"])
        rows = [
            NewRow(1, 1, "alert", AT, encode(alert(1)), stars=3),
            NewRow(2, 0, "file", AT, encode(bad), stars=2),
            NewRow(3, 2, "device", AT, encode(device)),
        ]
        with centre.store.transaction():
            centre.store.add(tenant, box, "e" * 16, rows, today.isoformat())
    policy = Retention(tenants={"t2": Days(verdicts=5, alerts=9, metadata=7)})
    tables = (NOTICE, BAD_FILE, SIGHTING, DEVICE)
    list(sweep.sweep(centre.database, today + dt.timedelta(days=500), policy))
    assert [centre.count(table) for table in tables] == [4, 2, 0, 0], "what is new is not forgotten"
    with centre.database.transaction() as db:
        devices.note(db, "t1", "box-1", [NewRow(3, 2, "device", AT, encode(device))])
        devices.note(db, "t2", "box-2", [NewRow(3, 2, "device", AT, encode(device))])
    while notices.plan(centre.database, today):
        pass
    judge.judge(centre.database)
    for days, left in ((4, [4, 2, 2, 2]), (8, [3, 1, 1, 2]), (10, [2, 1, 1, 1]), (91, [0, 0, 0, 1]), (401, [0] * 4)):
        list(sweep.sweep(centre.database, today + dt.timedelta(days=days), policy))
        assert [centre.count(table) for table in tables] == left


def test_a_round_that_was_set_aside_goes_with_what_it_held(centre: Centre) -> None:
    centre.add(alert(1), alert(1))
    notices.plan(centre.database, now())
    with centre.database.transaction() as db:
        rounds = Rounds(db, now())
        rounds.set_aside(db.execute(sa.select(gathering)).one())
    for days, left in ((sweep.KEPT_DAYS - 1, 1), (sweep.KEPT_DAYS + 1, 0)):
        list(sweep.sweep(centre.database, now() + dt.timedelta(days=days), Retention()))
        assert (centre.count(gathering), centre.count(heap)) == (left, left)
