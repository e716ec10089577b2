"""Getting in: passwords, second steps, links by mail, and what guessing costs."""

from __future__ import annotations

import datetime as dt
import re
import time
from typing import Any

import argon2
import msgspec
import pyotp
import pytest
import sqlalchemy as sa
from office import US, Client, Office

from sekisho.center import tenants
from sekisho.center.notify.tables import mail
from sekisho.center.portal import accounts, sessions
from sekisho.center.portal.access import factors, onetime, passwords, throttle
from sekisho.center.portal.rendering import COOKIE, FLASH
from sekisho.center.portal.rights import Role
from sekisho.center.portal.words import catalogue

GOOD = "ao-neko no kasa 7"
LOGIN = "aoki@example.com"
NOW = dt.datetime.now(dt.UTC)


def person(office: Office, role: Role = "admin", login: str = LOGIN, tenant: str = US, password: str = GOOD) -> str:
    """An account with a password."""
    own = {"tenant": tenant} if role in ("admin", "member") else {}
    with office.store.transaction() as db:
        account = accounts.make(db, login, role, now=NOW, **own)  # type: ignore[arg-type]  # a tenant or nothing
        passwords.set_password(db, account, passwords.hashed(password), NOW)
    return account


def sign_in(client: Client, login: str = LOGIN, password: str = GOOD, **more: str) -> Any:
    return client.submit("/login", login=login, password=password, **more)


def cookies(answer: Any) -> dict[str, str]:
    """Name -> content of what an answer sets."""
    return {line.split("=")[0]: line.split("=", 1)[1].split(";")[0] for line in answer.headers.get_list("set-cookie")}


def said(answer: Any, key: str) -> bool:
    return catalogue().sentences["access"][key].ja.split("{")[0] in answer.text


def app_of(office: Office, account: str, *, confirmed: bool = True) -> pyotp.TOTP:
    with office.store.transaction() as db:
        secret = factors.offer(db, account, NOW)
        if confirmed:
            db.execute(factors.TOTP.update().values(confirmed_at="2026-01-01T00:00:00.000000Z"))
    return pyotp.TOTP(secret)


def test_a_password_opens_and_leads_to_where_one_wanted_to_go(office: Office) -> None:
    person(office)
    client = office.anonymous()
    asked = client.get("/account?tab=1", follow_redirects=False).headers["location"]
    assert asked == "/login?next=%2Faccount%3Ftab%3D1"
    assert 'value="/account?tab=1"' in client.get(asked).text
    answer = sign_in(client, next="/account?tab=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/account?tab=1")
    assert LOGIN in client.get("/account").text


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_signing_in_leads_nowhere_else(office: Office, target: str) -> None:
    person(office)
    client = office.anonymous()
    assert sign_in(client, next=target).headers["location"] == "/"
    assert client.get("/login", params={"next": target}, follow_redirects=False).headers["location"] == "/"


def test_a_wrong_password_and_an_unknown_login_look_the_same(office: Office) -> None:
    person(office)
    client = office.anonymous()
    wrong, unknown = sign_in(client, password="wrong wrong wrong"), sign_in(client, "nobody@example.com")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.text.replace(LOGIN, "nobody@example.com") == unknown.text
    assert COOKIE not in cookies(wrong) and COOKIE not in cookies(unknown)


def test_an_unknown_login_takes_as_long_as_a_wrong_password(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_HASHER", argon2.PasswordHasher())
    passwords._nobody.cache_clear()
    person(office)
    client = office.anonymous()
    took: dict[str, list[float]] = {LOGIN: [], "nobody@example.com": []}
    sign_in(client, "somebody@example.com")
    for _ in range(6):
        for login, times in took.items():
            began = time.perf_counter()
            assert sign_in(client, login, "wrong wrong wrong").status_code == 401
            times.append(time.perf_counter() - began)
    known, unknown = map(min, took.values())
    passwords._nobody.cache_clear()
    assert 0.5 < known / unknown < 2.0


def test_guessing_costs_ever_longer_waits_and_nothing_is_locked_for_good(office: Office) -> None:
    account = person(office)
    client = office.anonymous()
    answers = [sign_in(client, password=f"guess number {number}") for number in range(8)]
    assert [answer.status_code for answer in answers[:6]] == [401] * 6
    assert answers[6].status_code == answers[7].status_code == 429 and said(answers[6], "wait")
    assert sign_in(client).status_code == 429, "also the right one is not looked at"
    waits = []
    with office.store.transaction() as db:
        key = throttle.key("login", LOGIN, throttle.OF_ACCOUNT)
        at = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        for _ in range(40):
            assert throttle.take(db, at, key) == 0
            waits.append(throttle.take(db, at, key))
            at += dt.timedelta(seconds=waits[-1])
    assert waits == sorted(waits) and waits[0] == 4 and waits[-1] == throttle.OF_ACCOUNT.longest_s
    with office.store.transaction() as db:
        db.execute(throttle.ATTEMPT.update().values(until=""))
    assert sign_in(client).status_code == 303, account
    with office.store.database.reading() as db:
        assert not db.execute(sa.select(throttle.ATTEMPT).where(throttle.ATTEMPT.c.key == key[0])).first()


def test_an_unknown_login_must_wait_as_well(office: Office) -> None:
    client = office.anonymous()
    assert [sign_in(client, "nobody@example.com").status_code for _ in range(7)] == [401] * 6 + [429]


def test_one_source_that_tries_many_logins_must_wait(office: Office) -> None:
    now = dt.datetime.now(dt.UTC)
    with office.store.transaction() as db:
        key = throttle.key("source", "testclient", throttle.OF_SOURCE)
        for number in range(throttle.OF_SOURCE.free + 1):
            assert throttle.take(db, now, key, throttle.key("login", f"{number}", throttle.OF_ACCOUNT)) == 0
    assert sign_in(office.anonymous(), "somebody@example.com").status_code == 429


def test_guessing_from_elsewhere_does_not_keep_out_the_owner_at_the_own_browser(office: Office) -> None:
    person(office)
    owner, attacker = office.anonymous(), office.anonymous()
    assert sign_in(owner).status_code == 303
    owner.cookies.delete(COOKIE)
    for number in range(7):
        answer = sign_in(attacker, password=f"guess number {number}")
    assert answer.status_code == 429
    assert sign_in(owner).status_code == 303


def test_a_session_planted_before_signing_in_is_worth_nothing_after(office: Office) -> None:
    person(office)
    secret, _ = office.sign_in("member")
    client = office.anonymous()
    client.cookies.set(COOKIE, secret)
    answer = sign_in(client)
    assert cookies(answer)[COOKIE] not in ("", secret)
    stolen = office.anonymous()
    stolen.cookies.set(COOKIE, secret)
    assert stolen.get("/account", follow_redirects=False).headers["location"].startswith("/login")


def test_the_sessions_cookie_is_for_our_pages_alone(office: Office) -> None:
    person(office)
    lines = sign_in(office.anonymous()).headers.get_list("set-cookie")
    line = next(line for line in lines if line.startswith(COOKIE))
    flags = {part.strip().lower() for part in line.split(";")[1:]}
    assert flags == {"path=/", "secure", "httponly", "samesite=lax"}
    with office.store.database.reading() as db:
        stored = db.execute(sa.select(sessions.SESSION)).one()
    assert cookies(sign_in(office.anonymous()))[COOKIE] not in map(str, stored), "only its digest is kept"


def test_a_session_ends_when_idle_and_at_the_latest_after_twelve_hours(office: Office) -> None:
    secret, who = office.sign_in("admin")
    now = dt.datetime.now(dt.UTC)
    with office.store.transaction() as db:
        assert sessions.find(db, secret, now + sessions.IDLE - dt.timedelta(minutes=1)) is not None
        assert sessions.find(db, secret, now + sessions.IDLE + dt.timedelta(minutes=1)) is None
        late = now + sessions.LIVES - dt.timedelta(minutes=1)
        sessions.touch(db, who, late)
        assert sessions.find(db, secret, late) is not None
        sessions.touch(db, who, now + sessions.LIVES)
        assert sessions.find(db, secret, now + sessions.LIVES) is None


def test_using_the_pages_keeps_a_session_alive(office: Office) -> None:
    client = office.client()
    old = "2026-01-01T00:00:00.000000Z"
    recent = (dt.datetime.now(dt.UTC) - dt.timedelta(minutes=20)).isoformat(timespec="microseconds")
    with office.store.transaction() as db:
        db.execute(sessions.SESSION.update().values(seen_at=recent.replace("+00:00", "Z")))
    client.get("/account")
    with office.store.database.reading() as db:
        assert db.execute(sa.select(sessions.SESSION.c.seen_at)).scalar_one() > recent > old


def test_the_second_step_is_asked_for_and_a_code_opens_once(office: Office) -> None:
    account = person(office)
    app = app_of(office, account)
    client = office.anonymous()
    answer = sign_in(client, next="/account")
    assert answer.headers["location"] == "/login/second" and COOKIE not in cookies(answer)
    assert client.get("/account", follow_redirects=False).headers["location"].startswith("/login")
    code = app.now()
    assert client.submit("/login/second", code="000000" if code != "000000" else "111111").status_code == 401
    answer = client.submit("/login/second", code=f" {code[:3]} {code[3:]} ")
    assert answer.headers["location"] == "/account" and COOKIE in cookies(answer)
    again = office.anonymous()
    sign_in(again)
    replayed = again.submit("/login/second", code=code)
    assert replayed.status_code == 401 and said(replayed, "code_wrong")
    assert COOKIE not in cookies(replayed)


def test_a_code_of_an_earlier_step_does_not_open_after_a_later_one(office: Office) -> None:
    account = person(office)
    app = app_of(office, account)
    now = dt.datetime.now(dt.UTC)
    with office.store.transaction() as db:
        assert factors.take_code(db, account, app.at(now), now)
        assert not factors.take_code(db, account, app.at(now - dt.timedelta(seconds=30)), now)
        assert not factors.take_code(db, account, app.at(now - dt.timedelta(minutes=5)), now)
        assert not factors.take_code(db, account, app.at(now + dt.timedelta(minutes=5)), now)
        assert factors.take_code(db, account, app.at(now + dt.timedelta(seconds=30)), now)


def test_guessing_codes_costs_waits(office: Office) -> None:
    app_of(office, person(office))
    client = office.anonymous()
    sign_in(client)
    found = [client.submit("/login/second", code="12345x").status_code for _ in range(7)]
    assert found == [401] * 5 + [429] * 2


def test_the_second_step_without_the_first_is_no_way_in(office: Office) -> None:
    app = app_of(office, person(office))
    client = office.anonymous()
    assert client.submit("/login/second", code=app.now()).headers["location"] == "/login"
    client.cookies.set("__Host-step", "x" * 43)
    assert client.submit("/login/second", code=app.now()).headers["location"] == "/login"


def test_a_recovery_code_opens_once(office: Office) -> None:
    account = person(office)
    app_of(office, account)
    with office.store.transaction() as db:
        codes = factors.new_recovery_codes(db, account)
    assert len(set(codes)) == factors.RECOVERY_CODES
    client = office.anonymous()
    sign_in(client)
    answer = client.submit("/login/second", code=codes[0].upper().replace("-", " "))
    assert answer.headers["location"] == "/account"
    again = office.anonymous()
    sign_in(again)
    assert again.submit("/login/second", code=codes[0]).status_code == 401
    with office.store.database.reading() as db:
        stored = db.execute(sa.select(factors.RECOVERY)).all()
    assert len(stored) == 9 and not any(code in str(stored) for code in codes)


@pytest.mark.parametrize("role", ["operator", "helpdesk"])
def test_staff_without_a_second_factor_can_only_add_one(office: Office, role: Role) -> None:
    account = person(office, role)
    client = office.anonymous()
    answer = sign_in(client, next="/account")
    assert answer.headers["location"] == "/account/second"
    before = cookies(answer)[COOKIE]
    for path in ("/account", "/members", "/audit") if role == "operator" else ("/account",):
        assert client.get(path, follow_redirects=False).headers["location"] == "/account/second", path
    page = client.get("/account/second")
    secret = re.search(r"<code>([A-Z2-7]{32})</code>", page.text)
    token = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert secret and token and 'src="data:image/svg+xml' in page.text
    client.csrf = token[1]
    assert client.submit("/account/second", code="12345x").status_code == 422
    answer = client.submit("/account/second", code=pyotp.TOTP(secret[1]).now())
    assert answer.status_code == 200 and len(re.findall(r"<code>[a-z2-9-]{19}</code>", answer.text)) == 10
    assert cookies(answer)[COOKIE] not in ("", before), "more rights, a new secret"
    assert client.get("/account").status_code == 200
    with office.store.database.reading() as db:
        assert factors.of_account(db, account) == factors.Factors(True, 0, 10)
    old = office.anonymous()
    old.cookies.set(COOKIE, before)
    assert old.get("/account", follow_redirects=False).headers["location"].startswith("/login")


def test_a_customer_can_ask_everyone_for_a_second_factor(office: Office) -> None:
    person(office, "member")
    assert sign_in(office.anonymous()).headers["location"] == "/"
    admin = office.client()
    assert admin.submit("/members/rules", second_factor="yes").status_code == 303
    with office.store.database.reading() as db:
        assert tenants.load(db, US).second_factor
    assert sign_in(office.anonymous()).headers["location"] == "/account/second"


def test_one_session_mode_ends_the_older_one_and_says_so_there(office: Office) -> None:
    person(office, "member")
    assert office.client().submit("/members/rules", one_session="yes").status_code == 303
    first, second = office.anonymous(), office.anonymous()
    sign_in(first)
    assert first.get("/account").status_code == 200
    sign_in(second)
    answer = first.get("/account")
    assert answer.url.path == "/login" and said(answer, "ended_elsewhere")
    assert second.get("/account").url.path == "/account"
    assert not said(office.anonymous().get("/login"), "ended_elsewhere")


def test_what_is_dangerous_asks_again_who_one_is(office: Office) -> None:
    person(office)
    client = office.anonymous()
    sign_in(client)
    client.csrf = _csrf(client)
    with office.store.transaction() as db:
        db.execute(sessions.SESSION.update().values(confirmed_at="2026-01-01T00:00:00.000000Z"))
    answer = client.submit("/members/invite", login="new@example.com", role="member")
    assert answer.headers["location"] == "/confirm?next=%2Fmembers"
    with office.store.database.reading() as db:
        assert accounts.by_login(db, "new@example.com") is None
    assert client.submit("/confirm", password="wrong wrong wrong", next="/members").status_code == 401
    answer = client.submit("/confirm", password=GOOD, next="/members")
    assert answer.headers["location"] == "/members" and COOKIE in cookies(answer)
    client.csrf = _csrf(client)
    assert client.submit("/members/invite", login="new@example.com", role="member").status_code == 200


def _csrf(client: Client) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/account").text)
    assert found
    return found[1]


def test_confirming_gives_no_rights_to_who_must_add_a_second_factor(office: Office) -> None:
    person(office, "operator")
    client = office.anonymous()
    sign_in(client)
    token = re.search(r'name="csrf" value="([^"]+)"', client.get("/confirm").text)
    assert token
    client.csrf = token[1]
    assert client.submit("/confirm", password=GOOD).status_code == 303
    assert client.get("/audit", follow_redirects=False).headers["location"] == "/account/second"


def test_a_changed_password_ends_every_other_session(office: Office) -> None:
    person(office)
    here, there = office.anonymous(), office.anonymous()
    sign_in(here)
    sign_in(there)
    here.csrf = _csrf(here)
    new = "kumo no ue no inu"
    form = {"password": new, "again": new}
    assert here.submit("/account/password", old="wrong", **form).status_code == 422
    answer = here.submit("/account/password", old=GOOD, **form)
    assert cookies(answer)[FLASH] == "access.password_changed"
    assert here.get("/account").url.path == "/account"
    assert there.get("/account").url.path == "/login"
    assert sign_in(office.anonymous()).status_code == 401
    assert sign_in(office.anonymous(), password=new).status_code == 303


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "short"),
        ("x" * 300, "long"),
        ("password1234", "common"),
        ("P@ssw0rd2026!", "common"),
        ("123456789012", "common"),
        ("qwertyuiop12", "common"),
        ("aaaaaaaaaaaa", "common"),
        ("abcabcabcabc", "common"),
        ("sakurasakura", "common"),
        ("sekishosekisho", "common"),
        ("aoki@example.com", "own"),
        ("青木商店青木商店", "short"),
        ("aoki taro 2026", "own"),
    ],
)
def test_a_password_that_everybody_guesses_is_refused(password: str, why: str) -> None:
    assert passwords.weakness(password, (LOGIN, "Aoki Taro", US)) == why


@pytest.mark.parametrize("password", [GOOD, "correcthorsebatteryparrot", "すずめがさんわやねにいるよ", "zX9$kkq1!Lm2"])
def test_a_long_password_of_any_kind_is_taken(password: str) -> None:
    assert passwords.weakness(password, (LOGIN, "Aoki Taro", US)) is None


def test_a_password_is_kept_as_argon2id_and_spelt_in_one_way(office: Office) -> None:
    assert argon2.PasswordHasher().hash("x").startswith("$argon2id$v=19$m=65536,t=3,p=4$"), "RFC 9106 4"
    kept = passwords.hashed("パスワードではない長い文")
    assert kept.startswith("$argon2id$")
    assert passwords.matches(kept, "パスワードではない長い文".encode().decode())
    assert passwords.matches(passwords.hashed("ｆｕｌｌ ｗｉｄｔｈ ｗｏｒｄｓ"), "full width words")
    assert not passwords.matches(kept, "")
    assert not passwords.matches("", "")
    assert not passwords.matches("no hash at all", "x")


def test_a_forgotten_password_has_one_answer_for_everyone_and_a_mail_for_the_owner(office: Office) -> None:
    person(office)
    client = _with_mail(office)
    known, unknown = client.submit("/forgot", login=LOGIN), client.submit("/forgot", login="nobody@example.com")
    assert known.status_code == unknown.status_code == 200 and known.text == unknown.text
    assert said(known, "forgot_sent")
    rows = _mails(office)
    assert [(row.recipient, row.kind) for row in rows] == [(LOGIN, "password")]
    link = re.search(rb'"link":"https://portal.example(/welcome/[^"]+)"', rows[0].letter)
    assert link
    path = link[1].decode()
    assert client.get(path).status_code == client.get(path).status_code == 200, "looking uses nothing up"
    new = "kumo no ue no inu"
    assert client.submit(path, password=new, again="other").status_code == 422
    assert client.submit(path, password="password1234", again="password1234").status_code == 422
    answer = client.submit(path, password=new, again=new)
    assert answer.headers["location"] == "/login" and COOKIE not in cookies(answer)
    assert client.submit(path, password=new, again=new).status_code == 410
    assert sign_in(office.anonymous(), password=new).status_code == 303
    assert [row.kind for row in _mails(office)] == ["password", "account"]


def test_asking_for_links_again_and_again_must_wait(office: Office) -> None:
    person(office)
    client = _with_mail(office)
    assert [client.submit("/forgot", login=LOGIN).status_code for _ in range(5)] == [200] * 4 + [429]
    assert len(_mails(office)) == 4


def test_a_new_link_makes_the_older_one_useless_and_all_run_out(office: Office) -> None:
    account = person(office)
    with office.store.transaction() as db:
        older, newer = (onetime.make(db, account, "password", NOW).rpartition("/")[2] for _ in range(2))
        assert onetime.of(db, older, NOW) is None
        assert onetime.of(db, newer, NOW) is not None
        assert onetime.of(db, newer, NOW + dt.timedelta(hours=2)) is None
        assert not onetime.use(db, newer, NOW + dt.timedelta(hours=2))


def test_an_invitation_is_accepted_once_by_its_link(office: Office) -> None:
    admin = office.client()
    answer = admin.submit("/members/invite", login="New@Example.com", name="新人\u202e\n", role="member")
    link = re.search(r'<code class="link">https://portal.example(/welcome/[^<]+)</code>', answer.text)
    assert link, "no mail server is set, so the link is shown"
    guest = office.anonymous()
    assert sign_in(guest, "new@example.com", "").status_code == 401
    answer = guest.submit(link[1], password=GOOD, again=GOOD, name="新田")
    assert answer.headers["location"] == "/" and COOKIE in cookies(answer)
    assert "新田" in guest.get("/account").text
    assert guest.get("/members").status_code == 403
    assert office.anonymous().get(link[1]).status_code == 410


def test_an_invitation_goes_by_mail_where_there_is_mail(office: Office) -> None:
    client = _with_mail(office, office.sign_in("admin"))
    answer = client.submit("/members/invite", login="new@example.com", role="admin")
    assert answer.status_code == 303 and "welcome" not in answer.text
    assert [(row.recipient, row.kind, row.tenant) for row in _mails(office)] == [("new@example.com", "invite", US)]


def test_an_administrator_cannot_have_the_centre_mail_everybody(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "OF_INVITER", throttle.Limit(3, 3600.0))
    client = _with_mail(office, office.sign_in("admin"))
    sent = [client.submit("/members/invite", login=f"v{n}@example.com", role="member").status_code for n in range(6)]
    assert sent[:4] == [303] * 4 and sent[4:] == [429] * 2
    assert len(_mails(office)) == 4
    with office.store.database.reading() as db:
        assert accounts.by_login(db, "v5@example.com") is None, "what was refused has left nothing"


def _with_mail(office: Office, signed_in: tuple[str, Any] | None = None) -> Client:
    """A browser at a portal that has a mail server."""
    notify = msgspec.structs.replace(office.settings.notify, smtp_host="mail.example")
    office.settings = msgspec.structs.replace(office.settings, notify=notify)
    client = office.anonymous()
    if signed_in:
        client.cookies.set(COOKIE, signed_in[0])
        client.csrf = signed_in[1].csrf
    return client


def _mails(office: Office) -> list[Any]:
    with office.store.database.reading() as db:
        return list(db.execute(sa.select(mail).order_by(mail.c.created_at)))
