"""Applying at a chamber: open to everyone, bounded, and nothing happens until a person of that chamber says so."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from office import CHAMBERS, ORIGIN, THEM, US, Client, Office

from sekisho.center import customers, tenants
from sekisho.center.contracts import applying
from sekisho.center.contracts.tables import APPLICATION
from sekisho.center.customers import CUSTOMER
from sekisho.center.notify.tables import mail
from sekisho.center.portal.accounts import ACCOUNT

FORM = {
    "company": "新しい店",
    "person": "田中",
    "mail": "tanaka@example.com",
    "phone": "025-000-0000",
    "note": "",
}
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def chambers(office: Office) -> None:
    with office.store.transaction() as db:
        for chamber in CHAMBERS.values():
            applying.name_reseller(db, chamber, f"{chamber} 商工会議所")


def _send(client: Client, reseller: str = CHAMBERS[US], **change: str) -> Any:
    return client.post(f"/apply/{reseller}", data={**FORM, **change}, headers={"origin": ORIGIN})


def _waiting(office: Office) -> list[str]:
    with office.store.database.reading() as db:
        return [row.company for row in applying.waiting(db, None)]


def test_an_application_becomes_a_customer_of_its_chamber_when_approved(office: Office, chambers: None) -> None:
    office.settings = msgspec.structs.replace(
        office.settings,
        notify=msgspec.structs.replace(office.settings.notify, smtp_host="localhost", sender="a@b.example"),
    )
    assert "受け付けました" in _send(office.anonymous()).text
    with office.store.database.reading() as db:
        before = set(db.scalars(sa.select(CUSTOMER.c.tenant)))
    assert before == {US, THEM}, "nothing happens until it is approved"
    chamber = office.client("reseller", US)
    link = re.search(r'action="(/applications/[0-9a-f]+/approve)"', chamber.get("/applications").text)
    assert link
    assert chamber.submit(link[1]).status_code == 303
    with office.store.database.reading() as db:
        (made,) = set(customers.of_reseller(db, CHAMBERS[US])) - before
        settings = tenants.load(db, made)
        account = db.execute(sa.select(ACCOUNT).where(ACCOUNT.c.tenant == made)).one()
        invitations = db.execute(sa.select(mail).where(mail.c.recipient == FORM["mail"])).all()
    assert (settings.name, settings.recipients) == ("新しい店", ("tanaka@example.com",))
    assert (account.login, account.role, account.state) == ("tanaka@example.com", "admin", "invited")
    assert len(invitations) == 1
    assert chamber.submit(link[1]).status_code == 404, "once"


def test_a_chamber_neither_sees_nor_decides_anothers_applications(office: Office, chambers: None) -> None:
    _send(office.anonymous(), CHAMBERS[THEM])
    with office.store.database.reading() as db:
        application = applying.waiting(db, None)[0].id
    client = office.client("reseller", US)
    assert "新しい店" not in client.get("/applications").text
    for action in ("approve", "decline"):
        assert client.submit(f"/applications/{application}/{action}").status_code == 404
    for role in ("admin", "member", "helpdesk"):
        assert office.client(role).get("/applications").status_code == 403
        assert office.client(role).submit(f"/applications/{application}/approve").status_code == 403
    assert _waiting(office) == ["新しい店"]
    assert "新しい店" in office.client("operator").get("/applications").text


def test_what_is_declined_or_old_is_forgotten(office: Office, chambers: None) -> None:
    _send(office.anonymous())
    with office.store.transaction() as db:
        application = applying.waiting(db, None)[0].id
        applying.forget(db, NOW + applying.KEPT - dt.timedelta(days=1))
    assert len(_waiting(office)) == 1
    office.client("reseller", US).submit(f"/applications/{application}/decline")
    assert _waiting(office) == []
    _send(office.anonymous())
    with office.store.transaction() as db:
        applying.forget(db, NOW + applying.KEPT + dt.timedelta(days=1))
        assert db.execute(sa.select(APPLICATION)).all() == []


def test_one_address_applies_a_few_times_a_day(office: Office, chambers: None) -> None:
    client = office.anonymous()
    answers = [_send(client, company=f"店{number}").status_code for number in range(applying.PER_SOURCE + 2)]
    assert answers == [200] * applying.PER_SOURCE + [422] * 2
    assert len(_waiting(office)) == applying.PER_SOURCE


@pytest.mark.parametrize(
    "change",
    [
        {"company": ""}, {"company": "x" * 81}, {"mail": "no"}, {"mail": "a@b.example\r\nBcc: c@d.example"},
        {"person": "a\u202eb"}, {"phone": "1" * 33}, {"note": "x" * 501}, {"company": "x" * 65_536}, {"mail": ""},
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_and_kept_nowhere(
    office: Office, chambers: None, change: dict[str, str]
) -> None:
    answer = _send(office.anonymous(), **change)
    assert answer.status_code in (400, 413, 422)
    assert _waiting(office) == []


def test_hostile_words_are_text(office: Office, chambers: None) -> None:
    _send(office.anonymous(), company='"><script>alert(1)</script>', note="<img src=x onerror=alert(1)>")
    page = office.client("operator").get("/applications").text
    assert "<script>alert" not in page and "<img src=x" not in page and "&lt;script&gt;" in page


def test_there_is_no_form_of_an_unknown_chamber(office: Office, chambers: None) -> None:
    client = office.anonymous()
    assert client.get("/apply/nobody").status_code == 404
    assert _send(client, "nobody").status_code == 404
    assert "kita-cci 商工会議所" in client.get("/apply/kita-cci").text
