"""Which box belongs to whom, as ingest asks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.ca import registry
from sekisho.center.database import Database

NOW = "2026-01-02T03:04:05.000000Z"


@pytest.mark.protocol("P3")
def test_a_box_speaks_for_its_own_tenant_from_its_certificate_to_its_revocation(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "center.db"))
    with database.transaction() as db:
        registry.expect(db, "box-1", "t1", NOW)
        assert not registry.identities(db, ["box-1"])["box-1"].may_speak_for("t1")
        registry.activate(db, "box-1", NOW)
        known = registry.identities(db, ["box-1", "box-2", "box-1"])
        assert list(known) == ["box-1"]
        assert (known["box-1"].may_speak_for("t1"), known["box-1"].may_speak_for("t2")) == (True, False)
        registry.revoke(db, "box-1", NOW)
        assert not registry.identities(db, ["box-1"])["box-1"].may_speak_for("t1")
        registry.expect(db, "box-1", "t1", NOW)
        assert registry.identities(db, ["box-1"])["box-1"].state == "expected"
        assert registry.identities(db, []) == {}


def test_a_second_code_does_not_silence_a_box_that_works(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "center.db"))
    with database.transaction() as db:
        registry.expect(db, "box-1", "t1", NOW)
        registry.activate(db, "box-1", NOW)
        registry.expect(db, "box-1", "t1", NOW)
        assert registry.identities(db, ["box-1"])["box-1"].state == "active"


@pytest.mark.parametrize("name", ["center", "center-2", "Center", "centre", "immunity", "broker", "hub", "hub-7"])
def test_no_box_is_called_like_a_service(tmp_path: Path, name: str) -> None:
    with Database(str(tmp_path / "center.db")).transaction() as db:
        with pytest.raises(RejectedInput, match="services"):
            registry.expect(db, name, "t1", NOW, ("hub",))
        registry.expect(db, f"{name}-tokyo", "t1", NOW, ("hub",))


def test_a_box_does_not_change_hands(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "center.db"))
    with database.transaction() as db:
        registry.expect(db, "box-1", "t1", NOW)
        with pytest.raises(RejectedInput, match="belongs to t1"):
            registry.expect(db, "box-1", "t2", NOW)
