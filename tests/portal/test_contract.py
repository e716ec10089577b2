"""The contract's page as a customer, its chamber and the centre use it."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import re
import zipfile
from pathlib import Path

import pytest
import sqlalchemy as sa
from office import THEM, US, Client, Office

from sekisho.appliance.core import utc
from sekisho.center.contracts import book, deleting, exporting, state
from sekisho.center.customers import CUSTOMER
from sekisho.center.portal.audit import AUDIT
from sekisho.center.scope import EVERYONE
from sekisho.center.store import STORE
from sekisho.telemetry.events import Dns

TODAY = dt.datetime.now(dt.UTC).astimezone(dt.timezone(dt.timedelta(hours=9))).date()
FAR = str(state.earliest(TODAY) + dt.timedelta(days=1))


def _state(office: Office, tenant: str = US) -> str:
    with office.store.database.reading() as db:
        contract = book.load(db, EVERYONE, tenant)
    assert contract is not None
    return contract.state


def _ask(client: Client, last: str = FAR, reason: str = "移転") -> str:
    return str(client.submit("/contract/end", last=last, reason=reason).headers["location"])


def test_an_administrator_asks_for_the_end_and_withdraws(office: Office) -> None:
    client = office.client("admin")
    _ask(client, reason="<b>移転</b>")
    assert _state(office) == "ending"
    page = client.get("/contract").text
    assert FAR in page and "&lt;b&gt;移転" in page and "<b>移転" not in page
    client.submit("/contract/withdraw")
    assert _state(office) == "active"
    with office.store.database.reading() as db:
        noted = db.scalars(sa.select(AUDIT.c.action).where(AUDIT.c.tenant == US).order_by(AUDIT.c.id)).all()
    assert [action for action in noted if action.startswith("contract")] == ["contract.end", "contract.withdraw"]


@pytest.mark.parametrize("last", ["", "tomorrow", "2020-01-01", str(TODAY), "9999-12-31", "2026-02-30", "x" * 70_000])
def test_a_day_that_is_too_near_or_none_ends_nothing(office: Office, last: str) -> None:
    _ask(office.client("admin"), last=last)
    assert _state(office) == "active"


def test_the_centre_may_agree_to_an_earlier_day(office: Office) -> None:
    _ask(office.client("operator"), last=str(TODAY + dt.timedelta(days=1)))
    assert _state(office) == "ending"


def test_others_neither_end_nor_take_away(office: Office) -> None:
    for role in ("member", "helpdesk", "reseller"):
        client = office.client(role)
        for path in ("/contract/end", "/contract/withdraw", "/contract/resume", "/contract/export"):
            assert client.submit(path, last=FAR).status_code == 403, (role, path)
    assert office.client("admin").submit("/contract/resume").status_code == 403
    assert _state(office) == "active"
    assert office.client("member").get("/contract").status_code == 403


def test_a_customer_that_comes_back_needs_the_centre_and_new_codes(office: Office) -> None:
    with office.store.transaction() as db:
        db.execute(CUSTOMER.update().where(CUSTOMER.c.tenant == US).values(state="ended"))
    page = office.client("admin").get("/contract").text
    assert "/contract/resume" not in page
    office.client("operator").submit("/contract/resume")
    assert _state(office) == "active"


def test_a_file_is_made_shown_with_its_hash_and_taken_by_its_customer_alone(office: Office) -> None:
    office.feed(Dns(at=utc.now(), name="shop.example"))
    client = office.client("admin")
    client.submit("/contract/export")
    assert "順番を待っています" in client.get("/contract").text
    files = Path(office.settings.exports)
    database = office.store.database
    exporting.run_next(database, database, files, dt.datetime.now(dt.UTC), lambda: None)
    page = client.get("/contract").text
    link = re.search(r'href="(/contract/export/[0-9a-f]+)"', page)
    assert link
    answer = client.get(link[1])
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].startswith("attachment")
    assert hashlib.sha256(answer.content).hexdigest() in page
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        events = [name for name in archive.namelist() if name.startswith("events/")]
        assert b"shop.example" in archive.read(events[0])
    assert office.client("admin", THEM).get(link[1]).status_code == 404
    assert office.client("reseller", US).get(link[1]).status_code == 403
    for forged in ("0" * 32, "..%2f..%2fevents.db", "x" * 64):
        assert client.get(f"/contract/export/{forged}").status_code == 404


def test_the_record_of_a_deletion_is_the_centres_and_the_chambers(office: Office, tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    with office.store.transaction() as db:
        db.execute(STORE.insert().values(id=1, generation=0, swept=str(now.date()), swept_at=now.isoformat()))
        long_ago = now - dt.timedelta(days=400)
        contract = state.ask_end(state.Contract(US), "x", long_ago.date(), "", long_ago.date(), early=True)
        book.save(db, state.end(contract, long_ago.date() + dt.timedelta(days=1)), now)
        deleting.begin(db, US, "op@example.com", now)
    while deleting.step(office.store.database, tmp_path, US, now):
        pass
    for role in ("operator", "reseller"):
        page = office.client(role).get(f"/customers/{US}/record").text
        assert "署名は正しく" in page and "op@example.com" in page, role
    assert office.client("reseller", THEM).get(f"/customers/{US}/record").status_code == 404
    assert "データ消去済み" in office.client("operator").get("/customers").text


def test_nobody_of_a_deleted_customer_gets_in(office: Office) -> None:
    client = office.client("admin")
    now = dt.datetime.now(dt.UTC)
    with office.store.transaction() as db:
        db.execute(STORE.insert().values(id=1, generation=0, swept=str(now.date()), swept_at=now.isoformat()))
        old = state.Contract(US, "ended", ended_on="2020-01-01", kept_until="2020-04-01")
        book.save(db, old, now)
        deleting.begin(db, US, "op@example.com", now)
    assert client.get("/contract", follow_redirects=False).headers["location"].startswith("/login")
