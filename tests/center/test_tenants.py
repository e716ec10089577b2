"""What a customer sets is kept whole, checked when it is set, and has sensible values before anyone did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from sekisho.appliance import cli
from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import tenants
from sekisho.center.database import Database, metadata
from sekisho.center.tenants import Tenant

RECIPIENTS = "recipients=a@example.jp,b@example.jp"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(str(tmp_path / "center.db"))


def test_a_tenant_nobody_has_set_up_has_the_defaults(database: Database) -> None:
    with database.reading() as db:
        assert tenants.load(db, "t1") == Tenant("t1")
        assert tenants.every(db) == []


def test_settings_are_kept_and_changed_one_by_one(database: Database) -> None:
    for values in ({"threshold": "2", "name": "桜商店"}, {"recipients": ["a@example.jp"]}, {"immunity": "false"}):
        with database.transaction() as db:
            tenants.save(db, tenants.changed(tenants.load(db, "t1"), dict(values)))
    with database.reading() as db:
        kept = tenants.load(db, "t1")
    assert (kept.threshold, kept.name, kept.recipients, kept.immunity) == (2, "桜商店", ("a@example.jp",), False)


@pytest.mark.parametrize(
    "values",
    [
        {"threshold": "4"},
        {"treshold": "2"},
        {"locale": "fr"},
        {"time_zone": "Mars/Olympus"},
        {"time_zone": "../../etc/passwd"},
        {"quiet_from": "22:00"},
        {"quiet_from": "24:00", "quiet_to": "06:00"},
        {"recipients": ["a@example.jp\r\nBcc: all@example.jp"]},
        {"recipients": ["a@example.jp"] * 17},
        {"recipients": ["社長@example.jp"]},
        {"recipients": ["a@" + "b." * 126 + "jp"]},
        {"name": "x" * 81},
        {"name": "a\nb"},
    ],
)
def test_what_could_not_be_used_is_refused_when_it_is_set(values: dict[str, object]) -> None:
    with pytest.raises(RejectedInput):
        tenants.changed(Tenant("t1"), values)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (b'{"id":"t1","time_zone":"Mars/Olympus","threshold":2}', Tenant("t1", threshold=2)),
        (b'{"id":"t1","of_tomorrow":1,"threshold":2,"locale":"fr"}', Tenant("t1", threshold=2)),
        (b'{"id":"t1","threshold":9,"immunity":false}', Tenant("t1", immunity=False)),
        (b'{"id":"t1","immunity":"of course not"}', Tenant("t1", immunity=False)),
        (b"\xff{", Tenant("t1", immunity=False)),
        (b"[]", Tenant("t1", immunity=False)),
    ],
)
def test_settings_that_cannot_be_used_any_more_stop_nobody_and_are_said(
    database: Database, settings: bytes, expected: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    tenants._read.cache_clear()
    with database.transaction() as db:
        tenants.save(db, Tenant("t1"))
        tenants.save(db, Tenant("t2", threshold=1))
        db.execute(
            sa.update(metadata.tables["tenant"]).values(settings=settings).where(sa.literal_column("id") == "t1")
        )
    for _ in range(2):
        with database.reading() as db:
            assert tenants.load(db, "t1") == expected
            assert tenants.every(db) == [expected, Tenant("t2", threshold=1)]
    assert caplog.text.count("settings of tenant t1") == 1


def test_an_identifier_is_one(database: Database) -> None:
    with database.transaction() as db, pytest.raises(RejectedInput):
        tenants.save(db, Tenant("a/b"))


def test_the_command_line_sets_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = f"--store={tmp_path}/center.db"
    assert cli.main(["center", "tenant", "show", store]) == 2
    assert cli.main(["center", "tenant", "set", "t1", RECIPIENTS, "threshold=2", store]) == 0
    assert cli.main(["center", "tenant", "site", "t1", "box-1", "本店", store]) == 0
    assert cli.main(["center", "tenant", "set", "t1", "threshold=9", store]) == 2
    capsys.readouterr()
    assert cli.main(["center", "tenant", "show", "t1", "--json", store]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["recipients"] == ["a@example.jp", "b@example.jp"]
    assert (shown["threshold"], shown["digest_hour"], shown["sites"]) == (2, 8, {"box-1": "本店"})
