"""What is decided for a box: proven before it is kept, numbered, never over somebody else's change; how far it got."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.database import Database
from sekisho.center.orders import wishes
from sekisho.center.orders.tables import EXCEPTION, ORDERS
from sekisho.center.orders.wishes import ChangedMeanwhile, Wish
from sekisho.center.scope import EVERYONE, only
from sekisho.center.store import NewRow, Store
from sekisho.center.views import orders as view
from sekisho.policy.model import Exemption, Keyword, UrlCategory
from sekisho.policy.overlay import Overlay
from sekisho.telemetry.events import Alert, Applied, Event, encode

T1 = only("t1")
NOT_MADE = UrlCategory(categories=("no_such_kind",))


class Centre:
    """A store with one customer's box, and what its people do."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self.database = Database(url)
        self._seq: dict[str, int] = {}

    def decide(self, box: str = "box-1", tenant: str = "t1", by: str = "花子", **change: Any) -> int:
        wish = self.wish(box, tenant) or Wish(box, tenant)
        made = wishes.prepare(wish, lambda now: msgspec.structs.replace(now, **change))
        assert made is not None
        with self.database.transaction() as db:
            return wishes.commit(db, made, by)

    def wish(self, box: str = "box-1", tenant: str = "t1") -> Wish | None:
        with self.database.reading() as db:
            return wishes.of_box(db, only(tenant), box)

    def state(self, box: str = "box-1") -> tuple[str, str]:
        wish = self.wish(box)
        assert wish is not None
        return wish.state, wish.why

    def sent(self) -> None:
        with self.database.transaction() as db:
            db.execute(ORDERS.update().values(sent_n=ORDERS.c.n))

    def says(self, *events: Event, box: str = "box-1", tenant: str = "t1") -> None:
        """A box's events are stored as ingest stores them."""
        rows = []
        for event in events:
            self._seq[box] = self._seq.get(box, 0) + 1
            kind = str(event.__struct_config__.tag)
            rows.append(NewRow(self._seq[box], 0, kind, event.at, encode(event)))
        with self.store.transaction():
            self.store.add(tenant, box, "a" * 16, rows, "2026-11-21T10:00:00.000000Z")


@pytest.fixture
def centre(store_url: str) -> Any:
    made = Centre(store_url)
    with closing(made.store), closing(made.database):
        yield made


def at(second: int) -> str:
    return f"2026-11-21T10:00:{second:02}.000000Z"


def exemption(name: str) -> Exemption:
    return Exemption(id=name, reason="経理", function="keyword", domains=("bank.example",))


def test_a_decision_goes_from_waiting_to_in_force_by_what_the_box_says_alone(centre: Centre) -> None:
    assert centre.wish() is None
    n = centre.decide(keyword=(Keyword(name="words", words=("torrent",)),))
    assert centre.state() == ("waiting", "")
    centre.sent()
    assert centre.state() == ("sent", "")
    centre.says(Applied(at=at(1), number=n - 1, state="in_force"))
    assert centre.state() == ("sent", ""), "that was an older one"
    centre.says(Applied(at=at(2), number=n, state="in_force", overruled=2))
    wish = centre.wish()
    assert wish is not None
    assert (wish.state, wish.overruled, wish.state_at, wish.by, wish.force_n) == ("in_force", 2, at(2), "花子", n)


def test_what_was_refused_says_why_until_it_is_decided_anew(centre: Centre) -> None:
    first = centre.decide(keyword=(Keyword(name="words", words=("torrent",)),))
    centre.says(Applied(at=at(1), number=first, state="in_force"))
    second = centre.decide(keyword=())
    centre.says(
        Applied(at=at(2), number=second, state="refused", why="engine"),
        Applied(at=at(3), number=first, state="in_force"),
    )
    assert centre.state() == ("refused", "engine")
    wish = centre.wish()
    assert wish is not None and wish.force_n == first and wish.of(first) == "in_force"
    third = centre.decide(zone="Asia/Tokyo")
    assert third > second and centre.state() == ("waiting", "")


def test_what_could_not_be_put_in_force_is_never_kept(centre: Centre) -> None:
    with pytest.raises(RejectedInput, match="no_such_kind"):
        centre.decide(url_category=(NOT_MADE,))
    assert centre.wish() is None


def test_of_two_people_at_once_the_second_is_told(centre: Centre) -> None:
    centre.decide(zone="Asia/Tokyo")
    read = centre.wish()
    assert read is not None
    edits: list[Callable[[Overlay], Overlay]] = [
        lambda now: msgspec.structs.replace(now, exception=(exemption("x-1"),)),
        lambda now: msgspec.structs.replace(now, zone="UTC"),
    ]
    first, second = (wishes.prepare(read, edit) for edit in edits)
    assert first is not None and second is not None
    with centre.database.transaction() as db:
        wishes.commit(db, first, "花子")
    with pytest.raises(ChangedMeanwhile), centre.database.transaction() as db:
        wishes.commit(db, second, "太郎")
    wish = centre.wish()
    assert wish is not None and wish.overlay.exception and wish.overlay.zone == "Asia/Tokyo"
    with pytest.raises(ChangedMeanwhile), centre.database.transaction() as db:
        new = wishes.prepare(Wish("box-1", "t1"), edits[1])
        assert new is not None
        wishes.commit(db, new, "太郎")


def test_what_changes_nothing_makes_no_number(centre: Centre) -> None:
    centre.decide(zone="UTC")
    wish = centre.wish()
    assert wish is not None and wishes.prepare(wish, lambda now: now) is None


def test_numbers_grow_also_when_the_clock_goes_back(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    first = centre.decide(zone="UTC")
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert centre.decide(zone="Asia/Tokyo") == first + 1


def test_an_exception_remembers_its_maker_and_is_shown_until_the_box_has_let_it_go(centre: Centre) -> None:
    first = centre.decide(exception=(exemption("x-1"),))
    centre.says(Applied(at=at(1), number=first, state="in_force"))
    second = centre.decide(exception=(exemption("x-1"), exemption("x-2")), by="太郎")

    def shown() -> list[tuple[str, str, int]]:
        with centre.database.reading() as db:
            return [(one.id, one.by, one.gone_n) for one in wishes.exceptions(db, T1)]

    assert shown() == [("x-1", "花子", 0), ("x-2", "太郎", 0)]
    wish = centre.wish()
    assert wish is not None and (wish.of(first), wish.of(second)) == ("in_force", "waiting")
    third = centre.decide(exception=(exemption("x-2"),))
    assert shown() == [("x-1", "花子", third), ("x-2", "太郎", 0)]
    centre.says(Applied(at=at(2), number=third, state="refused", why="own_policy"))
    assert len(shown()) == 2, "the box still lets it pass"
    centre.says(Applied(at=at(3), number=third, state="in_force"))
    assert shown() == [("x-2", "太郎", 0)]
    centre.decide(exception=(exemption("x-1"), exemption("x-2")), by="次郎")
    assert shown() == [("x-1", "次郎", 0), ("x-2", "太郎", 0)]


def test_each_use_of_an_exception_is_counted_with_what_was_folded(centre: Centre) -> None:
    centre.says(Alert(at=at(1), exception="x-1"), Alert(at=at(2), exception="x-1", count=40, until=at(9)))
    centre.says(Alert(at=at(3), exception="x-1"), Alert(at=at(4)), Alert(at=at(5), exception="y" * 60))
    centre.says(Alert(at=at(1), exception="x-1", count=(1 << 62) - 1), box="box-2", tenant="t2")
    centre.says(Alert(at=at(1), exception="x-1", count=(1 << 62) - 1), box="box-2", tenant="t2")
    with centre.database.reading() as db:
        assert view.uses(db, T1) == {("box-1", "x-1"): (42, at(9))}
        assert view.uses(db, only("t2"))["box-2", "x-1"][0] == view.HITS_CAP


def test_another_customers_decisions_exceptions_and_counts_are_not_there(centre: Centre) -> None:
    n = centre.decide(box="box-1", exception=(exemption("x-1"),))
    centre.says(Applied(at=at(1), number=n, state="in_force"), Alert(at=at(1), exception="x-1"))
    t2 = only("t2")
    with centre.database.reading() as db:
        assert wishes.of_box(db, t2, "box-1") is None
        assert (wishes.of_tenant(db, t2), wishes.exceptions(db, t2), view.uses(db, t2)) == ([], [], {})
        assert [one.box for one in wishes.of_tenant(db, EVERYONE)] == ["box-1"]
    centre.says(Applied(at=at(9), number=n + 5, state="refused", why="engine"), box="box-1", tenant="t2")
    assert centre.state() == ("in_force", ""), "a word under another customer's name counts for nothing"


def test_a_restored_centre_goes_past_the_number_its_box_has(centre: Centre) -> None:
    n = centre.decide(zone="UTC")
    centre.sent()
    centre.says(Applied(at=at(1), number=n + 7, state="in_force"))
    assert wishes.overtake(centre.database) == 1
    wish = centre.wish()
    assert wish is not None and wish.n == n + 8 and wish.state == "waiting"
    centre.says(Applied(at=at(2), number=(1 << 53) - 1, state="in_force"))
    assert wishes.overtake(centre.database) == 0, "no box drives the numbers to their end"


def test_a_contract_that_ends_leaves_nothing_of_its_decisions(centre: Centre) -> None:
    centre.decide(exception=(exemption("x-1"),))
    centre.decide(box="box-9", tenant="t9", zone="UTC")
    with centre.database.transaction() as db:
        wishes.forget(db, "t1")
    assert centre.wish() is None and centre.wish("box-9", "t9") is not None
    with centre.database.reading() as db:
        assert db.execute(sa.select(ORDERS).where(ORDERS.c.tenant == "t1")).all() == []
        assert db.execute(sa.select(EXCEPTION)).all() == []
    assert centre.decide(zone="UTC"), "and a new one may be made"


def test_what_a_box_refused_may_be_sent_once_more_unchanged(centre: Centre) -> None:
    n = centre.decide(zone="UTC")
    centre.says(Applied(at=at(1), number=n, state="refused", why="engine"))
    assert centre.decide(zone="UTC") > n and centre.state() == ("waiting", "")
