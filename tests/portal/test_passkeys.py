"""Passkeys with a software authenticator: real bytes of WebAuthn, of our site and of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from authenticator import PRESENT, Authenticator
from office import ORIGIN, US, Client, Office

from sekisho.center import tenants
from sekisho.center.portal import sessions
from sekisho.center.portal.access import factors, passkeys
from sekisho.center.portal.rendering import COOKIE
from sekisho.center.portal.rights import Role

CREATE = ("/account/passkeys/options", "/account/passkeys")
SIGN_IN = ("/login/passkey/options", "/login/passkey")


def post(client: Client, path: str, body: Any = None) -> Any:
    headers = {"origin": ORIGIN, "x-csrf": client.csrf}
    return client.post(path, json=body or {}, headers=headers, follow_redirects=False)


def add(client: Client, key: Authenticator) -> Any:
    options = post(client, CREATE[0]).json()
    return post(client, CREATE[1], {"credential": key.make(options), "name": "スマホ\u202e"})


def owner(office: Office, role: Role = "admin") -> Authenticator:
    """A passkey that somebody of ours has."""
    key, client = Authenticator(ORIGIN), office.client(role)
    answer = add(client, key)
    assert answer.json() == {"to": "/account/second"}, answer.text
    return key


def enter(client: Client, key: Authenticator, **more: str) -> Any:
    return post(client, SIGN_IN[1], {"credential": key.sign(post(client, SIGN_IN[0]).json()), **more})


def test_a_passkey_is_added_and_opens_without_password_or_code(office: Office) -> None:
    key, client = owner(office), office.anonymous()
    answer = enter(client, key, next="/account")
    assert answer.json() == {"to": "/account"}
    page = client.get("/account")
    assert page.url.path == "/account" and "スマホ" in page.text and "\u202e" not in page.text


def test_adding_one_gives_the_session_a_new_secret(office: Office) -> None:
    client = office.client()
    before = client.cookies[COOKIE]
    answer = add(client, Authenticator(ORIGIN))
    assert COOKIE in answer.headers["set-cookie"] and before not in answer.headers["set-cookie"]


def test_a_passkey_does_for_staff_what_a_second_factor_must(office: Office) -> None:
    client = office.anonymous()
    assert enter(client, owner(office, "operator")).status_code == 200
    assert client.get("/audit").url.path == "/audit"


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/\\evil.example"])
def test_a_passkey_leads_nowhere_else(office: Office, target: str) -> None:
    assert enter(office.anonymous(), owner(office), next=target).json() == {"to": "/"}


def _elsewhere(key: Authenticator) -> None:
    key.origin = "https://portal.example.evil.example"


def _other_site(key: Authenticator) -> None:
    key.host = "evil.example"


def _unverified(key: Authenticator) -> None:
    key.flags = PRESENT


def _somebody_else(key: Authenticator) -> None:
    key.user = b"0" * 32


def _nameless(key: Authenticator) -> None:
    key.user = b""


def _unknown(key: Authenticator) -> None:
    key.id = b"1" * 32


def _other_key(key: Authenticator) -> None:
    key._key = Authenticator(ORIGIN)._key


@pytest.mark.parametrize(
    "change", [_elsewhere, _other_site, _unverified, _somebody_else, _nameless, _unknown, _other_key]
)
def test_what_is_not_our_sites_passkey_opens_nothing(office: Office, change: Callable[[Authenticator], None]) -> None:
    key, client = owner(office), office.anonymous()
    change(key)
    answer = enter(client, key)
    assert answer.status_code == 401 and COOKIE not in answer.headers.get("set-cookie", "")


def test_an_answer_opens_once_and_for_the_browser_that_was_asked(office: Office) -> None:
    key, client, other = owner(office), office.anonymous(), office.anonymous()
    answer = {"credential": key.sign(post(client, SIGN_IN[0]).json())}
    post(other, SIGN_IN[0])
    assert post(other, SIGN_IN[1], answer).status_code == 401, "another browser's question"
    assert post(client, SIGN_IN[1], answer).status_code == 200
    assert post(client, SIGN_IN[1], answer).status_code == 401, "replayed"


def test_a_question_is_used_up_by_a_wrong_answer(office: Office) -> None:
    key, client = owner(office), office.anonymous()
    options = post(client, SIGN_IN[0]).json()
    good = {"credential": key.sign(options)}
    key.flags = PRESENT
    assert post(client, SIGN_IN[1], {"credential": key.sign(options)}).status_code == 401
    assert post(client, SIGN_IN[1], good).status_code == 401


def test_a_question_that_is_old_opens_nothing(office: Office) -> None:
    key, client = owner(office), office.anonymous()
    answer = {"credential": key.sign(post(client, SIGN_IN[0]).json())}
    with office.store.transaction() as db:
        db.execute(passkeys.CHALLENGE.update().values(until="2026-01-01T00:00:00.000000Z"))
    assert post(client, SIGN_IN[1], answer).status_code == 401


def test_a_copied_key_whose_counter_goes_back_opens_nothing(office: Office) -> None:
    key, client = owner(office), office.anonymous()
    assert enter(client, key).status_code == 200
    assert enter(client, key).status_code == 200
    key.count = 0
    assert enter(client, key).status_code == 401


@pytest.mark.parametrize(
    "rubbish",
    [{}, {"credential": None}, {"credential": []}, {"credential": {"id": 7}}, {"credential": {"id": "x" * 5000}}],
)
def test_rubbish_is_refused_quietly(office: Office, rubbish: Any) -> None:
    client = office.anonymous()
    post(client, SIGN_IN[0])
    assert post(client, SIGN_IN[1], rubbish).status_code == 401
    signed_in = office.client()
    post(signed_in, CREATE[0])
    assert post(signed_in, CREATE[1], rubbish).status_code == 422


def test_a_passkey_made_for_another_question_or_site_is_not_kept(office: Office) -> None:
    client = office.client()
    options = post(client, CREATE[0]).json()
    key = Authenticator("https://evil.example")
    assert post(client, CREATE[1], {"credential": key.make(options)}).status_code == 422
    key = Authenticator(ORIGIN)
    assert post(client, CREATE[1], {"credential": key.make(options)}).status_code == 422, "the question is used up"
    options = post(client, SIGN_IN[0]).json() | {"user": {"id": "AA"}}
    assert post(client, CREATE[1], {"credential": key.make(options)}).status_code == 422, "asked for another purpose"
    with office.store.database.reading() as db:
        assert not db.execute(sa.select(passkeys.PASSKEY)).all()


def test_one_passkey_is_one_accounts(office: Office) -> None:
    key = owner(office)
    assert add(office.client(), key).status_code == 422


def test_a_passkey_proves_again_who_one_is(office: Office) -> None:
    client, key = office.client(), Authenticator(ORIGIN)
    answer = add(client, key)
    client.cookies.set(COOKIE, answer.headers["set-cookie"].split("=", 1)[1].split(";")[0])
    with office.store.transaction() as db:
        db.execute(sessions.SESSION.update().values(confirmed_at="2026-01-01T00:00:00.000000Z", csrf=client.csrf))
    assert client.submit("/members/rules").headers["location"].startswith("/confirm")
    stranger = owner(office)
    options = post(client, "/confirm/passkey/options").json()
    assert post(client, "/confirm/passkey", {"credential": stranger.sign(options)}).status_code == 401
    options = post(client, "/confirm/passkey/options").json()
    answer = post(client, "/confirm/passkey", {"credential": key.sign(options), "next": "/members"})
    assert answer.json() == {"to": "/members"}


def test_the_last_second_factor_of_staff_stays(office: Office) -> None:
    with office.store.transaction() as db:
        tenants.save(db, tenants.changed(tenants.load(db, US), {"second_factor": True}))
    client, key = office.client(), Authenticator(ORIGIN)
    answer = add(client, key)
    client.cookies.set(COOKIE, answer.headers["set-cookie"].split("=", 1)[1].split(";")[0])
    with office.store.transaction() as db:
        db.execute(sessions.SESSION.update().values(csrf=client.csrf))
        found = db.execute(sa.select(passkeys.PASSKEY)).one()
    client.submit(f"/account/passkeys/{found.id}/remove")
    with office.store.database.reading() as db:
        assert factors.of_account(db, found.account).any
    with office.store.transaction() as db:
        tenants.save(db, tenants.changed(tenants.load(db, US), {"second_factor": False}))
    client.submit(f"/account/passkeys/{found.id}/remove")
    with office.store.database.reading() as db:
        assert not factors.of_account(db, found.account).any


def test_a_site_that_is_a_bare_address_offers_none() -> None:
    assert passkeys.Site("https://portal.example").able and passkeys.Site("https://localhost:8443").able
    assert not passkeys.Site("https://192.0.2.1").able and not passkeys.Site("https://[2001:db8::1]:8443").able


def test_a_body_deeper_than_anything_is_refused(office: Office) -> None:
    headers = {"origin": ORIGIN, "content-type": "application/json"}
    for body in (b"[" * 9000, b'{"a":' * 9000):
        answer = office.anonymous().post("/login/passkey", content=body, headers=headers, follow_redirects=False)
        assert answer.status_code == 400
