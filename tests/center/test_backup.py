"""A backup is whole, private and brought back only into an empty place; what came after it comes again, once."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fleet import All
from sekisho.center import backup, pgtools, restore
from sekisho.center.database import Database
from sekisho.center.immunity import listing
from sekisho.center.immunity.judge import next_number
from sekisho.center.notify.tables import mail
from sekisho.center.orders.tables import ORDERS
from sekisho.center.outbox import NOTICE
from sekisho.center.store import NewRow, Store
from sekisho.telemetry.events import Alert, encode

if TYPE_CHECKING:
    from tests.center.conftest import Site

    from sekisho.lab.postgres import Postgres

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
NOW = "2026-11-21T12:00:00.000006Z"


class Place:
    """Where a centre is, and where the next one can be."""

    def __init__(self, kind: str, root: Path, request: pytest.FixtureRequest) -> None:
        self._kind, self._root, self._request = kind, root, request
        self._made = 0

    def empty(self) -> str:
        self._made += 1
        if self._kind == "sqlite":
            return str(self._root / f"centre-{self._made}.db")
        server: Postgres = self._request.getfixturevalue("postgres")
        return server.database()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    yield Place(request.param, tmp_path, request)


def put(store: Store, *seqs: int, again: bool = False) -> None:
    rows = [NewRow(seq, 1, "alert", NOW, encode(Alert(at=NOW, sid=seq)), stars=3, again=again) for seq in seqs]
    with store.transaction():
        store.add("t", "b", "e", rows, NOW)


def notices(store: Store) -> dict[int, str]:
    with store.database.reading() as db:
        return {seq: state for seq, state in db.execute(sa.select(NOTICE.c.seq, NOTICE.c.state))}


def test_what_was_saved_is_there_again_and_counts_go_on(place: Place, tmp_path: Path) -> None:
    url = place.empty()
    store = Store(url)
    put(store, 1, 2, 5)
    saved = backup.save(url, tmp_path / "backups", NOON)
    put(store, 3)
    url = place.empty()
    made = restore.restore(url, Path(saved.path), NOON)
    assert (made.streams, made.events) == (1, 3)
    again = Store(url)
    assert [row.seq for row in again.events()] == [1, 2, 5]
    assert [(hole.first, hole.last) for hole in again.missing()] == [(3, 4)]
    put(again, 2, 3, 5, again=True)
    put(again, 6)
    assert [row.seq for row in again.events()] == [1, 2, 5, 3, 6]
    assert notices(again) == {1: "restored", 2: "restored", 5: "restored", 3: "restored", 6: "new"}


def test_a_generation_grows_with_every_restore_also_of_the_same_backup(place: Place, tmp_path: Path) -> None:
    url = place.empty()
    assert Store(url).generation == 0
    saved = backup.save(url, tmp_path / "backups", NOON)
    generations = []
    for hours in (0, 1, -10):
        url = place.empty()
        made = restore.restore(url, Path(saved.path), NOON + dt.timedelta(hours=hours))
        generations.append(made.generation)
        assert Store(url).generation == made.generation
    assert generations[0] == int(NOON.timestamp()) < generations[1]
    later = backup.save(url, tmp_path / "backups", NOON + dt.timedelta(days=1))
    url = place.empty()
    assert restore.restore(url, Path(later.path), NOON - dt.timedelta(days=9000)).generation == generations[2] + 1


def test_a_mail_that_was_due_is_shown_as_not_sent_and_a_later_one_goes(place: Place, tmp_path: Path) -> None:
    url = place.empty()
    store = Store(url)
    due = {"early": "2026-11-21T11:59:59.000000Z", "late": "2026-11-21T13:00:00.000000Z"}
    row = dict.fromkeys(("tenant", "recipient", "kind", "about", "created_at", "due_at"), "x")
    with store.transaction() as db:
        for name, at in due.items():
            db.execute(mail.insert(), {**row, "id": name, "stars": 3, "letter": b"", "state": "due", "due_at": at})
    saved = backup.save(url, tmp_path / "backups", NOON)
    url = place.empty()
    restore.restore(url, Path(saved.path), NOON)
    with Database(url).reading() as db:
        states = {name: state for name, state in db.execute(sa.select(mail.c.id, mail.c.state))}
    assert states == {"early": "failed", "late": "due"}


def test_boxes_believe_the_restored_centres_lists(place: Place, tmp_path: Path) -> None:
    url = place.empty()
    Store(url).close()
    first = Database(url)
    saved = backup.save(url, tmp_path / "backups", NOON)
    for _ in range(3):
        with first.transaction() as db:
            heard = next_number(db)
    restored = []
    for later in (0, 1, -1):
        url = place.empty()
        restore.restore(url, Path(saved.path), NOON + dt.timedelta(days=later))
        (made,) = listing.current(Database(url), NOON.timestamp())
        assert isinstance(made, All)
        restored.append(made.n)
        saved = backup.save(url, tmp_path / f"backups{later}", NOON + dt.timedelta(days=later))
    assert heard < restored[0] < restored[1] < restored[2]


def test_boxes_take_what_the_restored_centre_decides_though_they_have_newer(place: Place, tmp_path: Path) -> None:
    url = place.empty()
    Store(url).close()
    with Database(url).transaction() as db:
        row = {"box": "b", "tenant": "t", "document": b"{}", "at": "", "author": "", "sent_at": ""}
        db.execute(ORDERS.insert().values(n=5, sent_n=5, **row))
    saved = backup.save(url, tmp_path / "backups", NOON)
    heard = int(NOON.timestamp()) - 1
    numbers = []
    for later in (0, 1, -1):
        url = place.empty()
        restore.restore(url, Path(saved.path), NOON + dt.timedelta(days=later))
        with Database(url).reading() as db:
            n, sent = db.execute(sa.select(ORDERS.c.n, ORDERS.c.sent_n)).one()
        numbers.append(n)
        assert sent == 0, "it goes out once more"
        saved = backup.save(url, tmp_path / f"backups{later}", NOON + dt.timedelta(days=later))
    assert heard < numbers[0] < numbers[1] < numbers[2]


def test_a_restore_never_overwrites_a_centre(place: Place, tmp_path: Path) -> None:
    url = place.empty()
    store = Store(url)
    put(store, 1)
    saved = backup.save(url, tmp_path / "backups", NOON)
    put(store, 2)
    with pytest.raises(DeviceFault, match="already"):
        restore.restore(url, Path(saved.path), NOON)
    assert [row.seq for row in store.events()] == [1, 2]


def test_a_damaged_backup_is_refused_and_nothing_is_there(place: Place, tmp_path: Path) -> None:
    url = place.empty()
    store = Store(url)
    put(store, *range(1, 3000))
    saved = Path(backup.save(url, tmp_path / "backups", NOON).path)
    whole = saved.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"junk" * 5000, whole[:4096] + b"\x55" * 8192 + whole[12288:]):
        saved.write_bytes(broken)
        url = place.empty()
        with pytest.raises(DeviceFault):
            restore.restore(url, saved, NOON)
        saved.write_bytes(whole)
        assert restore.restore(url, saved, NOON).events == 2999


def test_backups_are_private_and_the_oldest_go(place: Place, tmp_path: Path) -> None:
    url = place.empty()
    store = Store(url)
    put(store, 1)
    kept = tmp_path / "backups"
    (kept / "mine").mkdir(parents=True)
    (kept / ".center-20200101T000000Z.db.partial").write_bytes(b"cut off")
    made = [backup.save(url, kept, NOON + dt.timedelta(days=day), keep=3) for day in range(5)]
    left = sorted(path for path in kept.iterdir() if path.name != "mine")
    assert [str(path) for path in left] == [saved.path for saved in made[2:]]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in left)
    assert made[4].removed == [made[1].path]


def test_what_cannot_be_saved_removes_no_older_one(place: Place, tmp_path: Path) -> None:
    kept = tmp_path / "backups"
    with pytest.raises(DeviceFault):
        backup.save(place.empty(), kept, NOON, keep=1)
    assert not list(kept.glob("center-*")) and not list(kept.glob(".center-*"))


def test_a_restore_that_is_cut_off_leaves_the_database_empty(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.database()
    put(Store(url), 1)
    saved = Path(backup.save(url, tmp_path, NOON).path)
    url = postgres.database()
    with pytest.raises(DeviceFault):
        pgtools.PgTools(url).restore(saved, "SELECT 1", "SELECT no_such_column")
    with Database(url, read_only=True).reading() as db:
        assert not sa.inspect(db).has_table("event")


@pytest.mark.protocol("P13")
def test_nothing_is_missing_or_double_after_the_centre_was_lost_and_restored(site: Site, place: Place) -> None:
    site.store_in(place.empty())
    Store(site.store_url).close()
    site.start("broker", "center", "box")
    for number in range(1, 21):
        site.write(beacon(site, number))
    site.wait_alerts(20)
    saved = center(site, "backup", str(site.root / "backups"))
    for number in range(21, 41):
        site.write(beacon(site, number) + site.dns(number))
    site.wait_alerts(40)
    site.wait(lambda: site.waiting() == 0)
    site.kill("center")
    site.write(beacon(site, 41))
    site.store_in(place.empty())
    center(site, "restore", str(saved["path"]))
    site.start("center")
    site.write(beacon(site, 42))
    site.wait_alerts(42)
    site.wait(lambda: site.waiting() == 0)
    assert sorted(site.sids()) == list(range(1, 43))
    assert len(site.events()) == len({(row.epoch, row.seq) for row in site.events()})
    store = Store(site.store_url, read_only=True)
    assert store.missing() == [] and store.declared() == []
    sids = {row.seq: json.loads(bytes(row.event)).get("sid") for row in store.events()}
    told = {sids[seq]: state for seq, state in notices(store).items()}
    assert told == {number: "new" if number > 40 else "restored" for number in range(1, 43)}
    store.close()


def beacon(site: Site, number: int) -> bytes:
    """An alert that people are told of."""
    about = {"signature": "ET MALWARE Test CnC Beacon", "category": "A Network Trojan was detected", "severity": 1}
    return site.line("alert", alert={"signature_id": number, "action": "blocked", **about})


def center(site: Site, *argv: str) -> dict[str, object]:
    program = Path(sys.executable).with_name("sekisho")
    where = ("--settings", str(site.center_toml))
    done = subprocess.run([program, "center", *argv, *where, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found
