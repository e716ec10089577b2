"""A mail's links: genuine, expiring, for one mail and one action; looking does nothing, pressing does it once."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import TestClient
from post_office import MailServer, Office, alert, text_of

from sekisho.appliance import cli
from sekisho.center.database import Database
from sekisho.center.notify import links, requests
from sekisho.center.notify.pages import make_router

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
KEYS = {"0a1b2c3d": b"k" * 32, "ffffffff": b"f" * 32}
MAIL = "ab" * 16


def token(**change: object) -> str:
    values = {"key": "0a1b2c3d", "secret": KEYS["0a1b2c3d"], "mail": MAIL, "action": "call", "at": NOW, **change}
    return links.make(**values)  # type: ignore[arg-type]  # one test's values


def test_a_token_says_for_which_mail_and_what_until_it_expires() -> None:
    assert links.read(KEYS, token(), NOW) == links.Grant(MAIL, "call", expired=False)
    assert links.read(KEYS, token(), NOW + links.VALID) == links.Grant(MAIL, "call", expired=True)


def test_what_another_key_signed_is_nothing() -> None:
    assert links.read(KEYS, token(secret=b"x" * 32), NOW) is None
    assert links.read(KEYS, token(key="00000000"), NOW) is None
    assert links.read(KEYS, token(action="wipe"), NOW) is None


@given(place=st.integers(0, 200), char=st.sampled_from("0123456789abcdefXYZ_-.é\n"))
def test_a_changed_token_is_none(place: int, char: str) -> None:
    good = token()
    place %= len(good)
    if good[place] != char:
        bent = good[:place] + char + good[place + 1 :]
        assert links.read(KEYS, bent, NOW) is None


@given(st.text(max_size=300))
def test_any_text_is_a_token_or_none(text: str) -> None:
    assert links.read(KEYS, text, NOW) is None


def test_keys_are_replaced_and_kept_while_a_link_of_theirs_may_be_good(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "center.db"))
    names, day = [], NOW
    for _ in range(5):
        with database.transaction() as db:
            names.append(links.signing_key(db, day)[0])
            assert links.signing_key(db, day)[0] == names[-1]
        day += dt.timedelta(days=links.KEY_DAYS + 1)
    assert len(set(names)) == 5
    with database.reading() as db:
        kept = links.keys(db)
    assert names[-1] in kept
    assert names[-2] in kept
    assert names[0] not in kept


class Desk:
    """The pages, and one mail that has arrived."""

    def __init__(self, office: Office, server: MailServer) -> None:
        self.now = dt.datetime.now(dt.UTC)
        office.start()
        office.add(alert(1))
        (mail,) = server.wait(1)
        office.wait(lambda: office.mails(state="sent"))
        office.kill()
        found = re.findall(r"https://centre\.example(/t/\S+)", text_of(mail))
        self.call, self.fine = found
        self.store = str(office.root / "center.db")
        self.client = TestClient(Litestar([make_router(self.store, "相談窓口 03-0000-0000", lambda: self.now)]))

    def requests(self) -> list[requests.Request]:
        with Database(self.store, read_only=True).reading() as db:
            return requests.listed(db, done=True)


@pytest.fixture
def desk(office: Office, server: MailServer) -> Iterator[Desk]:
    made = Desk(office, server)
    with made.client:
        yield made


def test_looking_at_a_link_does_nothing_however_often(desk: Desk) -> None:
    for _ in range(3):
        page = desk.client.get(desk.call)
        assert page.status_code == 200
        assert '<form method="post">' in page.text
    desk.client.head(desk.call)
    assert desk.requests() == []


def test_pressing_does_it_once(desk: Desk) -> None:
    for _ in range(3):
        page = desk.client.post(desk.call)
        assert page.status_code == 200
        assert "受け付けました" in page.text
    assert '<form method="post">' not in desk.client.get(desk.call).text
    (asked,) = desk.requests()
    assert (asked.tenant, asked.action, asked.recipient) == ("t1", "call", "owner@shop.example")
    assert asked.about == f"box-1/{'e' * 16}/1"
    desk.client.post(desk.fine)
    assert sorted(one.action for one in desk.requests()) == ["call", "fine"]


def test_an_expired_or_broken_link_says_so_and_does_nothing(desk: Desk) -> None:
    broken = desk.client.post(desk.call[:-3] + "abc")
    assert broken.status_code == 404
    assert "cannot be used" in broken.text
    desk.now += links.VALID + dt.timedelta(hours=1)
    for answer in (desk.client.get(desk.call), desk.client.post(desk.call)):
        assert answer.status_code == 410
        assert "期限" in answer.text
    assert desk.requests() == []


def test_a_page_allows_its_own_style_and_form_and_nothing_else(desk: Desk) -> None:
    page = desk.client.get(desk.call)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script" not in page.text
    assert page.headers["x-robots-tag"] == "noindex"


def test_the_staff_sees_what_is_asked_and_writes_down_that_it_is_done(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.client.post(desk.call)
    store = f"--store={desk.store}"
    assert cli.main(["center", "requests", "--json", store]) == 0
    (asked,) = json.loads(capsys.readouterr().out)
    assert cli.main(["center", "requests", "--done", asked["id"], store]) == 0
    assert capsys.readouterr().out == "none\n"
    assert cli.main(["center", "requests", "--done", asked["id"], store]) == 2
    assert cli.main(["center", "mails", store]) == 0
    assert "owner@shop.example" in capsys.readouterr().out
    assert cli.main(["center", "mails", "--failed", "--json", store]) == 0
