"""A box joins with a code that a person made in the portal, and leaves when an operator takes its certificates back."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from office import BOXES, THEM, US, Client, Office

from sekisho.center import belonging, customers, pki
from sekisho.center.ca import lookup
from sekisho.center.ca.granting import Granting, Refused
from sekisho.center.ca.tables import BOX_IDENTITY, CERTIFICATE, ENROL_CODE
from sekisho.center.scope import EVERYONE, only
from sekisho.telemetry.enrolment import code as codes
from sekisho.telemetry.enrolment.wire import EnrolAsk
from sekisho.telemetry.events import Device


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture
def granting(office: Office, tmp_path: Path) -> Granting:
    """The office's CA as its daemon has it."""
    folder = tmp_path / "ca"
    ca = pki.create_ca(folder)
    office.settings = msgspec.structs.replace(
        office.settings, broker=msgspec.structs.replace(office.settings.broker, ca=str(ca))
    )
    return Granting(pki.load_ca(folder), dt.timedelta(days=90), dt.timedelta(days=1))


def _code(text: str) -> str:
    found = re.search(r'id="enrol-code"[^>]*>([^<]+)<', text)
    assert found, text
    return found[1]


def _ask(code: str) -> EnrolAsk:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return EnrolAsk(codes.parse(code).secret.hex(), csr.public_bytes(Encoding.PEM).decode())


def _enrol(office: Office, granting: Granting, client: Client, box: str) -> str:
    """The serial of the certificate that a box gets with a code from the portal."""
    code = _code(client.submit("/boxes/enrol", box=box).text)
    with office.store.transaction() as db:
        return str(granting.grant(db, _ask(code), "192.0.2.1", _now()).serial)


def test_a_box_joins_with_the_code_that_its_owner_made(office: Office, granting: Granting) -> None:
    client = office.client("admin")
    answer = client.submit("/boxes/enrol", box="shop-1", site="本店")
    assert answer.status_code == 200
    code = _code(answer.text)
    with office.store.transaction() as db:
        row = granting.grant(db, _ask(code), "192.0.2.1", _now())
        identity = db.execute(sa.select(BOX_IDENTITY).where(BOX_IDENTITY.c.box == "shop-1")).one()
    assert (row.box, identity.tenant, identity.state) == ("shop-1", US, "active")
    page = client.get("/boxes/enrol").text
    assert "本店" in page and "登録済み" in page and "使用済み" in page


def test_a_code_is_shown_once_and_kept_nowhere(office: Office, granting: Granting) -> None:
    client = office.client("admin")
    code = _code(client.submit("/boxes/enrol", box="shop-1").text)
    assert code not in client.get("/boxes/enrol").text
    with office.store.database.reading() as db:
        assert code.replace("-", "") not in repr(db.execute(sa.select(ENROL_CODE)).all()).replace("-", "")


def test_a_second_code_for_a_box_voids_the_first(office: Office, granting: Granting) -> None:
    client = office.client("admin")
    first = _code(client.submit("/boxes/enrol", box="shop-1").text)
    client.submit("/boxes/enrol", box="shop-1")
    with office.store.transaction() as db, pytest.raises(Refused, match="expired"):
        granting.grant(db, _ask(first), "192.0.2.1", _now())


def test_the_name_of_somebody_elses_box_that_never_enrolled_here_gets_no_code(
    office: Office, granting: Granting
) -> None:
    office.feed(Device(at=_now().isoformat(), mac="02:00:5e:10:00:01"), tenant=THEM)
    answer = office.client("admin").submit("/boxes/enrol", box=BOXES[THEM])
    assert answer.status_code == 400
    with office.store.database.reading() as db:
        assert belonging.strangers(db, [(BOXES[THEM], THEM)]) == [], "it is believed as before"


def test_the_name_of_somebody_elses_box_gets_no_code_and_says_nothing_of_them(
    office: Office, granting: Granting
) -> None:
    office.client("admin", THEM).submit("/boxes/enrol", box="clinic-1")
    answer = office.client("admin", US).submit("/boxes/enrol", box="clinic-1")
    assert answer.status_code == 400
    assert THEM not in answer.text
    assert "enrol-code" not in answer.text


@pytest.mark.parametrize("box", ["", "a b", "x" * 65, "<script>", "center", "broker-2", "箱", "a\r\nb", "../etc"])
def test_a_name_no_box_can_have_gets_no_code(office: Office, granting: Granting, box: str) -> None:
    answer = office.client("admin").submit("/boxes/enrol", box=box)
    assert answer.status_code == 400
    assert "<script>" not in answer.text.replace('<script type="module"', "")


def test_codes_that_wait_are_bounded(office: Office, granting: Granting) -> None:
    client = office.client("admin")
    answers = [client.submit("/boxes/enrol", box=f"shop-{number}").status_code for number in range(21)]
    assert answers == [200] * 20 + [400]


def test_no_code_is_made_for_a_contract_that_is_over(office: Office, granting: Granting) -> None:
    with office.store.transaction() as db:
        db.execute(customers.CUSTOMER.update().where(customers.CUSTOMER.c.tenant == US).values(state="ended"))
    assert office.client("admin").submit("/boxes/enrol", box="shop-1").status_code == 400


def test_a_name_is_proposed_that_nobody_has(office: Office, granting: Granting) -> None:
    client = office.client("admin")
    assert f'value="{US}-1"' in client.get("/boxes/enrol").text
    client.submit("/boxes/enrol", box=f"{US}-1")
    assert f'value="{US}-2"' in client.get("/boxes/enrol").text


def test_only_an_operator_revokes_and_the_reason_is_kept(office: Office, granting: Granting) -> None:
    serial = _enrol(office, granting, office.client("admin"), "shop-1")
    assert office.client("admin").submit("/boxes/shop-1/revoke", why="lost").status_code == 403
    operator = office.client("operator")
    operator.submit("/boxes/shop-1/revoke", why=" ")
    with office.store.database.reading() as db:
        assert db.scalar(sa.select(CERTIFICATE.c.revoked_at)) == "", "without a reason nothing happens"
    assert operator.submit("/boxes/shop-1/revoke", why="<b>lost</b>").status_code == 303
    page = operator.get("/boxes/shop-1/certificates").text
    assert serial in page and "失効" in page and "&lt;b&gt;lost" in page and "<b>lost" not in page


def test_a_certificate_is_found_by_each_clue_and_by_nobody_else(office: Office, granting: Granting) -> None:
    serial = _enrol(office, granting, office.client("admin"), "shop-1")
    _enrol(office, granting, office.client("admin", THEM), "clinic-1")
    with office.store.database.reading() as db:
        key = str(db.scalar(sa.select(CERTIFICATE.c.key).where(CERTIFICATE.c.serial == serial)))
        colons = ":".join(serial[at : at + 2] for at in range(0, len(serial), 2)).upper()
        for clue in (serial, serial[:8], colons, key, "shop-1"):
            assert [one.serial for one in lookup.search(db, EVERYONE, clue, _now())] == [serial], clue
            assert lookup.search(db, only(THEM), clue, _now()) == [], clue
        for clue in ("", "%", "_", "'", "zz", "0000", "x" * 70_000, "\0", serial[:3]):
            assert lookup.search(db, EVERYONE, clue, _now()) == [], clue


def test_certificates_of_another_customers_box_are_not_there(office: Office, granting: Granting) -> None:
    _enrol(office, granting, office.client("admin", THEM), "clinic-1")
    assert office.client("admin").get("/boxes/clinic-1/certificates").status_code == 404
    assert office.client("operator").get("/boxes/clinic-1/certificates").status_code == 200


def test_who_has_not_opened_a_customer_is_sent_to_choose_one(office: Office) -> None:
    client = office.client("operator", "")
    assert client.get("/boxes/enrol", follow_redirects=False).headers["location"] == "/customers"


def test_older_codes_are_a_page_further(office: Office, granting: Granting) -> None:
    client = office.client("admin")
    with office.store.transaction() as db:
        row = {"tenant": US, "made_by": "x", "expires_at": "2020", "used_at": "", "used_key": ""}
        made = [
            {"digest": f"{n}", "box": f"old-{n:03}", "made_at": f"2026-01-01T00:{n:02}:00Z", **row} for n in range(59)
        ]
        db.execute(ENROL_CODE.insert(), made)
    first = client.get("/boxes/enrol").text
    assert "old-058" in first and "old-008" not in first
    link = re.search(r'href="(/boxes/enrol\?before=[^"]+)"', first)
    assert link
    second = client.get(link[1].replace("&amp;", "&")).text
    assert "old-008" in second and "old-009" not in second and "old-000" in second


def test_every_question_has_its_index(office: Office) -> None:
    questions = (
        "SELECT * FROM enrol_code WHERE tenant = ? AND made_at < ? ORDER BY made_at DESC LIMIT 50",
        "SELECT * FROM box_identity WHERE tenant = ? AND ? <> '' ORDER BY box LIMIT 50",
        "SELECT * FROM certificate WHERE serial >= ? AND serial < ?",
        "SELECT * FROM certificate WHERE key = ? AND ? <> ''",
    )
    with office.store.database.reading() as db:
        for question in questions:
            plan = " ".join(row[3] for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {question}", ("a", "b")))
            assert "SEARCH" in plan and "SCAN" not in plan and "TEMP B-TREE" not in plan, (question, plan)


def test_a_box_that_was_never_given_a_code_has_no_page(office: Office) -> None:
    assert office.client("admin").get(f"/boxes/{BOXES[US]}/certificates").status_code == 404
