"""Which notice is mailed when: a table of cases, then properties that hold for every course of events."""

from __future__ import annotations

import datetime as dt
import itertools
import tempfile
from collections import Counter
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from post_office import alert

from sekisho.center import tenants
from sekisho.center.database import Database
from sekisho.center.notify import rules
from sekisho.center.notify.desk import Desk, Notice
from sekisho.center.notify.letter import Letter
from sekisho.center.notify.rounds import HEAP_CAP
from sekisho.center.notify.tables import gathering, heap, mail, moment
from sekisho.center.notify.told import tell
from sekisho.center.tenants import Tenant

NOON = dt.datetime(2026, 3, 4, 3, 0, tzinfo=dt.UTC)
"""A Wednesday, noon in Tokyo."""
HOUR = dt.timedelta(hours=1)
NIGHT = {"quiet_from": "22:00", "quiet_to": "07:00"}


def tenant(**change: object) -> Tenant:
    values = {"recipients": ["a@shop.example"], **change}
    return tenants.changed(Tenant("t1"), values)


@pytest.mark.parametrize(
    ("stars", "change", "at", "window", "mailed", "way"),
    [
        (3, {}, NOON, None, 0, "now"),
        (2, {}, NOON, None, 0, "digest"),
        (2, {"threshold": 2}, NOON, None, 0, "now"),
        (1, {"digest": "off"}, NOON, None, 0, "kept"),
        (3, {}, NOON, rules.Window(3), 0, "again"),
        (3, {"threshold": 2}, NOON, rules.Window(2), 0, "now"),
        (2, {"threshold": 2}, NOON, rules.Window(3), 0, "again"),
        (3, {}, NOON, None, 10, "storm"),
        (3, {"mails_per_hour": 11}, NOON, None, 10, "now"),
        (2, {"threshold": 2, **NIGHT}, NOON + 12 * HOUR, None, 0, "quiet"),
        (3, NIGHT, NOON + 12 * HOUR, None, 0, "now"),
        (3, {**NIGHT, "quiet_holds_important": True}, NOON + 12 * HOUR, None, 0, "quiet"),
        (3, {**NIGHT, "quiet_holds_important": True}, NOON, None, 0, "now"),
    ],
)
def test_where_a_notice_goes(
    stars: int, change: dict[str, object], at: dt.datetime, window: rules.Window | None, mailed: int, way: str
) -> None:
    found = rules.place(stars, tenant(**change), at, window, mailed)
    kind = {"MailNow": "now", "Keep": "kept"}.get(type(found).__name__) or getattr(found, "kind", "")
    assert kind == way


@pytest.mark.parametrize(
    ("at", "change", "due"),
    [
        (NOON, {}, "2026-03-05T08:00"),
        (NOON - 5 * HOUR, {}, "2026-03-04T08:00"),
        (NOON - 4 * HOUR, {}, "2026-03-05T08:00"),
        (NOON, {"digest": "weekly"}, "2026-03-09T08:00"),
        (NOON + 4.5 * 24 * HOUR, {"digest": "weekly"}, "2026-03-09T08:00"),
        (NOON + 5 * 24 * HOUR, {"digest": "weekly", "digest_hour": 12}, "2026-03-16T12:00"),
        (dt.datetime(2026, 3, 28, 12, tzinfo=dt.UTC), {"time_zone": "Europe/Berlin"}, "2026-03-29T08:00"),
    ],
)
def test_when_a_digest_is_due(at: dt.datetime, change: dict[str, object], due: str) -> None:
    one = tenant(**change)
    assert f"{rules.next_digest(one, at).astimezone(one.zone):%Y-%m-%dT%H:%M}" == due


@given(
    at=st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2027, 12, 31)),  # noqa: DTZ001 - any wall time, as UTC
    begin=st.integers(0, 1439),
    end=st.integers(0, 1439),
    zone=st.sampled_from(["Asia/Tokyo", "Europe/Berlin", "America/New_York", "Pacific/Apia"]),
)
def test_quiet_hours_end_within_a_day_and_then_it_is_not_quiet(
    at: dt.datetime, begin: int, end: int, zone: str
) -> None:
    hours = {"quiet_from": f"{begin // 60:02}:{begin % 60:02}", "quiet_to": f"{end // 60:02}:{end % 60:02}"}
    one, now = tenant(time_zone=zone, **hours), at.replace(tzinfo=dt.UTC)
    until = rules.quiet_end(one, now)
    if until is not None:
        assert now < until <= now + 25 * HOUR
        if zone == "Asia/Tokyo":  # elsewhere a clock that is put back may make an end quiet again
            assert rules.quiet_end(one, until) is None


@pytest.mark.parametrize(
    ("kind", "gathered", "at", "mailed", "closing"),
    [
        ("again", 0, NOON, 0, rules.Closing(mail=False)),
        ("again", 5, NOON, 0, rules.Closing(mail=True, until=NOON + HOUR)),
        ("again", 5, NOON, 10, rules.Closing(mail=False, into_storm=True, until=NOON + HOUR)),
        ("storm", 5, NOON, 10, rules.Closing(mail=True, until=NOON + HOUR * 2 / 3)),
        ("again", 5, NOON + 12 * HOUR, 0, rules.Closing(mail=False, until=NOON + 19 * HOUR)),
        ("storm", 5, NOON + 12 * HOUR, 0, rules.Closing(mail=False, until=NOON + 19 * HOUR)),
        ("quiet", 5, NOON + 19 * HOUR, 99, rules.Closing(mail=True)),
        ("digest", 5, NOON + 12 * HOUR, 99, rules.Closing(mail=True)),
    ],
)
def test_what_becomes_of_a_round(
    kind: rules.Kind, gathered: int, at: dt.datetime, mailed: int, closing: object
) -> None:
    assert rules.close(kind, gathered, 1, tenant(**NIGHT), at, mailed) == closing


class Course:
    """A desk's database and a clock that is moved by hand."""

    def __init__(self, root: Path, one: Tenant) -> None:
        self.database = Database(str(root / "center.db"))
        self.now, self.seq, self.kept = NOON, 0, 0
        self.tenant = one
        with self.database.transaction() as db:
            tenants.save(db, one)

    def step(self, minutes: int, *notices: tuple[int, int, int]) -> None:
        """Let time pass, then plan these (rule, stars, count)."""
        until = self.now + dt.timedelta(minutes=minutes)
        while self.now < until:
            # The daemon closes a round when its time has come; so the clock stops at every such time.
            with self.database.reading() as db:
                closes = db.execute(sa.select(sa.func.min(gathering.c.until))).scalar()
            self.now = min(until, max(moment(closes), self.now + dt.timedelta(seconds=1)) if closes else until)
            self.plan()
        self.plan(*notices)

    def plan(self, *notices: tuple[int, int, int]) -> None:
        with self.database.transaction() as db:
            Desk(db, self.now, ("staff@centre.example",)).plan([self.notice(*one) for one in notices])

    def notice(self, rule: int, stars: int, count: int) -> Notice:
        self.seq += 1
        if stars < self.tenant.threshold and self.tenant.digest == "off":
            self.kept += count
        told = tell("box-1", alert(rule, stars, count=count))
        assert told is not None
        return Notice(f"box-1/e/{self.seq}", "t1", told)

    def letters(self) -> list[tuple[dt.datetime, Letter]]:
        with self.database.reading() as db:
            rows = db.execute(sa.select(mail.c.created_at, mail.c.letter).order_by(mail.c.created_at)).all()
        return [(moment(at), msgspec.json.decode(letter, type=Letter)) for at, letter in rows]

    def gathered(self) -> int:
        with self.database.reading() as db:
            return int(db.execute(sa.select(sa.func.coalesce(sa.func.sum(heap.c.number), 0))).scalar_one())


_Step = tuple[int, list[tuple[int, int, int]]]

STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 5, 16, 40, 200, 500]),
        st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 3, 3, 3]), st.integers(1, 50)), max_size=6),
    ),
    max_size=12,
)
TENANTS = st.one_of(
    st.builds(
        tenant,
        threshold=st.integers(1, 3),
        digest=st.sampled_from(["daily", "weekly", "off"]),
        mails_per_hour=st.integers(1, 3),
        fold_minutes=st.sampled_from([1, 15, 60]),
    ),
    st.builds(
        tenant,
        threshold=st.integers(1, 3),
        quiet_holds_important=st.booleans(),
        quiet_from=st.just("22:00"),
        quiet_to=st.just("07:00"),
    ),
)


@settings(max_examples=20, deadline=None)
@given(one=TENANTS, steps=STEPS)
def test_every_count_is_told_once_and_never_too_many_mails(
    one: Tenant, steps: list[tuple[int, list[tuple[int, int, int]]]]
) -> None:
    with tempfile.TemporaryDirectory() as root:
        course = Course(Path(root), one)
        for minutes, notices in steps:
            course.step(minutes, *notices)
        total = sum(count for _, notices in steps for _, _, count in notices)
        letters = course.letters()
        assert sum(letter.total for _, letter in letters) + course.gathered() + course.kept == total
        course.step(8 * 24 * 60)
        assert course.gathered() == 0, "what waits is told within a week"
        letters = course.letters()
        assert sum(letter.total for _, letter in letters) + course.kept == total
        _check_mails(one, letters)


def _check_mails(one: Tenant, letters: list[tuple[dt.datetime, Letter]]) -> None:
    urgent = [at for at, letter in letters if letter.kind in ("alert", "again")]
    for at in urgent:
        assert sum(at - HOUR < other <= at for other in urgent) <= one.mails_per_hour
    storms = [at for at, letter in letters if letter.kind == "storm"]
    for at in storms:
        assert sum(at - HOUR < other <= at for other in storms) <= 6
    for at, letter in letters:
        if letter.kind != "digest":
            assert all(entry.told.stars >= one.threshold for entry in letter.entries)
        if letter.kind in ("again", "storm"):
            assert rules.quiet_end(one, at) is None
        if letter.kind == "alert" and rules.quiet_end(one, at) is not None:
            assert letter.entries[0].told.stars == 3
            assert not one.quiet_holds_important


def test_a_storm_of_a_thousand_is_a_handful_of_mails_that_say_so(tmp_path: Path) -> None:
    course = Course(tmp_path, tenant())
    for start in range(0, 1000, 100):
        course.step(1, *[(rule, 3, 2) for rule in range(start, start + 100)])
    course.step(60)
    kinds = Counter(letter.kind for _, letter in course.letters())
    assert kinds == {"alert": 10, "storm": 1}
    (storm,) = [letter for _, letter in course.letters() if letter.kind == "storm"]
    assert storm.total == 990 * 2
    assert len(storm.entries) + storm.more == HEAP_CAP + 1, "what is beyond the cap is one row"


def test_what_goes_on_is_told_ever_more_rarely_with_its_number(tmp_path: Path) -> None:
    course = Course(tmp_path, tenant())
    for _ in range(24 * 12):
        course.step(5, (1, 3, 12))
    letters = course.letters()
    assert [letter.kind for _, letter in letters] == ["alert"] + ["again"] * 6
    gaps = [b - a for (a, _), (b, _) in itertools.pairwise(letters)]
    assert [gap // dt.timedelta(minutes=1) for gap in gaps] == [15, 30, 60, 120, 240, 480]
    assert letters[1][1].total == 12 * 2
    assert {letter.thread for _, letter in letters[1:]} == {"box-1/e/1"}


def test_beyond_the_hourly_number_repeats_go_into_the_storms_summary(tmp_path: Path) -> None:
    course = Course(tmp_path, tenant(mails_per_hour=1))
    course.step(0, (1, 3, 1))
    course.step(5, (1, 3, 7))
    course.step(60)
    assert [(letter.kind, letter.total) for _, letter in course.letters()] == [("alert", 1), ("storm", 7)]


def test_the_number_of_what_pierced_the_quiet_hours_waits_for_the_morning(tmp_path: Path) -> None:
    course = Course(tmp_path, tenant(**NIGHT))
    course.step(12 * 60, (1, 3, 1))
    course.step(5, (1, 3, 7))
    course.step(12 * 60)
    (_, first), (at, second) = course.letters()
    assert (first.kind, second.kind, second.total) == ("alert", "again", 7)
    assert at == NOON + 19 * HOUR


def test_where_nobody_is_named_the_staff_is_told_of_what_is_important_only(tmp_path: Path) -> None:
    course = Course(tmp_path, tenant(recipients=[], threshold=1))
    course.step(0, (1, 3, 1), (2, 2, 1))
    (one,) = course.letters()
    assert one[1].unaddressed
    with course.database.reading() as db:
        assert list(db.scalars(sa.select(mail.c.recipient))) == ["staff@centre.example"]
