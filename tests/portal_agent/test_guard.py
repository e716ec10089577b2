"""Who is let near the page at all, and under which name; signing in, waiting, forms."""

from __future__ import annotations

import msgspec
import pytest
from pagebox import PASSWORD, Box, Browser

from sekisho.appliance.core.settings import Bridge, parse
from sekisho.portal_agent.delays import ALL_PER_MINUTE, FREE, LONGEST_S, Delays
from sekisho.portal_agent.guard import Guard
from sekisho.portal_agent.sessions import AT_ONCE, IDLE_S, Sessions
from sekisho.portal_agent.sessions import LONGEST_S as SESSION_S


@pytest.fixture
def guard(box: Box) -> Guard:
    text = (
        'box = "b"\n[bridge]\naddresses = ["192.168.1.2/24", "fd00::2/64"]\n'
        f'[paths]\nrun = "{box.settings.run}"\nstate = "{box.settings.state}"\n'
    )
    return Guard(parse(text), 443, "https")


@pytest.mark.parametrize("host", ["192.168.1.2", "192.168.1.2:443", "[fd00::2]", "[fd00::2]:443"])
def test_the_boxs_own_address_is_its_name(guard: Guard, host: str) -> None:
    assert guard.refusal("GET", "192.168.1.77", {"host": [host]}) == 0


@pytest.mark.parametrize(
    "hosts",
    [[], ["evil.example"], ["192.168.1.2:80"], ["192.168.1.2.evil.example"], ["192.168.1.2", "192.168.1.2"], [""]],
)
def test_another_name_is_misdirected(guard: Guard, hosts: list[str]) -> None:
    assert guard.refusal("GET", "192.168.1.77", {"host": hosts}) == 421


@pytest.mark.parametrize("peer", ["203.0.113.9", "192.168.2.1", "fd01::1", "::ffff:203.0.113.9", "", "x"])
def test_who_is_no_neighbour_is_refused(guard: Guard, peer: str) -> None:
    assert guard.refusal("GET", peer, {"host": ["192.168.1.2"]}) == 403


@pytest.mark.parametrize(
    "origin", [[], ["null"], ["https://evil.example"], ["http://192.168.1.2"], ["https://192.168.1.2:444"]]
)
def test_a_form_from_elsewhere_is_refused(guard: Guard, origin: list[str]) -> None:
    headers = {"host": ["192.168.1.2"], "origin": origin}
    assert guard.refusal("POST", "192.168.1.77", headers) == 403
    assert guard.refusal("POST", "192.168.1.77", headers | {"origin": ["https://192.168.1.2"]}) == 0


def test_an_address_without_its_network_is_for_the_home_networks(box: Box) -> None:
    alone = msgspec.structs.replace(box.settings, bridge=Bridge(addresses=("192.168.1.2",)))
    made = Guard(alone, 443, "https")
    assert made.refusal("GET", "192.168.1.77", {"host": ["192.168.1.2"]}) == 0
    assert made.refusal("GET", "203.0.113.9", {"host": ["192.168.1.2"]}) == 403


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_refused(guard: Guard, method: str) -> None:
    assert guard.refusal(method, "192.168.1.77", {"host": ["192.168.1.2"]}) == 405


def test_without_the_packet_rule_the_page_is_shut(browser: Browser) -> None:
    browser.box.settings.doorway.unlink()
    answer = browser.get("/")
    assert (answer.status_code, answer.text) == (503, "503\n")


def test_a_rebound_name_gets_nothing(browser: Browser) -> None:
    answer = browser.get("/", host="evil.example")
    assert (answer.status_code, answer.text) == (421, "421\n")


def test_a_form_without_its_token_changes_nothing(owner: Browser) -> None:
    for csrf in ("", "x", "x" * 43):
        assert owner.post("/care/restart", {"when": "tonight", "at": "02:00", "csrf": csrf}).status_code == 403
    assert owner.box.office.restarts.kept.plan is None
    assert (
        owner.post("/care/restart", {"when": "tonight", "at": "02:00"}, origin="https://evil.example").status_code
        == 403
    )
    assert owner.box.office.restarts.kept.plan is None
    assert owner.post("/care/restart", {"when": "tonight", "at": "02:00"}).status_code == 303
    assert owner.box.office.restarts.kept.plan is not None


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "application/json", "text/plain", ""])
def test_a_body_of_another_kind_is_not_read(owner: Browser, kind: str) -> None:
    headers = {"origin": owner.box.origin, "content-type": kind}
    body = b"csrf=" + owner.csrf.encode() + b"&when=tonight&at=02:00"
    assert owner.client.post("/care/restart", content=body, headers=headers).status_code == 415
    assert owner.box.office.restarts.kept.plan is None


def test_a_large_body_is_refused(owner: Browser) -> None:
    assert owner.post("/care/restart", {"when": "x" * 100_000}).status_code == 413
    assert owner.get("/").status_code == 200


def test_the_cookie_is_the_browsers_alone_and_new_at_each_sign_in(browser: Browser) -> None:
    planted = "A" * 43
    browser.client.cookies.set("__Host-sekisho", planted)
    answer = browser.sign_in()
    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("__Host-sekisho=", "HttpOnly", "Secure", "Path=/")) and planted not in cookie
    assert "samesite=strict" in cookie.lower() and "Domain" not in cookie


def test_signing_out_ends_the_session_and_not_only_the_cookie(owner: Browser) -> None:
    token = owner.client.cookies["__Host-sekisho"]
    assert owner.post("/sign-out").status_code == 303
    answer = owner.client.get("/care", headers={"cookie": f"__Host-sekisho={token}"})
    assert answer.status_code == 303


def test_a_new_password_ends_every_session(owner: Browser) -> None:
    owner.box.office.password.change("another password")
    assert owner.get("/care").headers["location"] == "/sign-in"


def test_the_owner_changes_the_password_with_the_old_one_and_other_screens_end(owner: Browser) -> None:
    other = Browser(owner.box)
    assert other.sign_in().status_code == 303
    wrong = {"old": "x", "new": "brand new password", "again": "brand new password"}
    owner.post("/care/password", wrong)
    assert owner.box.office.password.is_right(PASSWORD)
    owner.post("/care/password", wrong | {"old": PASSWORD, "again": "brand new pass word"})
    owner.post("/care/password", wrong | {"old": PASSWORD, "new": "short", "again": "short"})
    assert owner.box.office.password.is_right(PASSWORD)
    owner.post("/care/password", wrong | {"old": PASSWORD})
    assert owner.box.office.password.is_right("brand new password")
    assert "ほかの画面はログアウトしました" in owner.get("/care").text
    assert other.get("/care").status_code == 303
    other.client.close()


def test_mistakes_cost_time_also_for_the_right_password(browser: Browser) -> None:
    for _ in range(FREE):
        assert browser.sign_in("wrong").status_code == 403
    answer = browser.sign_in(PASSWORD)
    assert answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= 2
    neighbour = Browser(browser.box, peer="127.0.0.9")
    assert neighbour.sign_in().status_code == 303, "another one is not locked out with him"
    neighbour.client.close()
    browser.box.ahead = 3.0
    assert browser.sign_in().status_code == 303


def test_the_wait_grows_to_a_quarter_of_an_hour_and_is_forgotten_after_an_hour() -> None:
    delays, now, waits = Delays(), 0.0, []
    for _ in range(FREE + 12):
        delays.wrong("10.0.0.1", now)
        waits.append(delays.wait_s("10.0.0.1", now))
        now += waits[-1]
    assert waits[: FREE - 1] == [0.0] * (FREE - 1) and waits == sorted(waits) and waits[-1] == LONGEST_S
    assert delays.wait_s("10.0.0.1", now + 3600) == 0


def test_a_whole_ipv6_network_counts_as_one_and_many_sources_as_all() -> None:
    delays = Delays()
    for number in range(FREE):
        delays.wrong(f"fd00::{number}", 0.0)
    assert delays.wait_s("fd00::ffff", 0.0) > 0 and delays.wait_s("fd01::1", 0.0) == 0
    for number in range(ALL_PER_MINUTE):
        delays.tried(float(number))
    assert delays.wait_s("10.9.9.9", 30.0) == 30.0 and delays.wait_s("10.9.9.9", 60.0) == 0


def test_sessions_end_by_idleness_by_age_and_by_number() -> None:
    sessions = Sessions()
    idle, old = sessions.begin(0.0), sessions.begin(0.0)
    assert sessions.of(idle, IDLE_S + 1) is None
    for now in range(0, SESSION_S, IDLE_S):
        assert sessions.of(old, float(now)) is not None
    assert sessions.of(old, SESSION_S + 1.0) is None
    first = sessions.begin(0.0)
    for _ in range(AT_ONCE):
        sessions.begin(0.0)
    assert sessions.of(first, 0.0) is None
    assert sessions.of("", 0.0) is None and sessions.of("x" * 100_000, 0.0) is None
