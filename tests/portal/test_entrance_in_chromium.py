"""Somebody new in a real browser: the first sign-in, a second step, a passkey, and in again with it."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyotp
import pytest
from browse import CHROMIUM, WIDTHS, Critic
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Page, sync_playwright
from served import Served

from sekisho.center.portal import accounts
from sekisho.center.portal.access import passwords

GOOD = "ao-neko no kasa 7"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, ago: Callable[..., str]) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("entrance"), ago)
    yield made
    made.close()


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, served: Served, tmp_path: Path) -> Iterator[Page]:
    """Chromium that trusts the portal's certificate, because it makes no passkey where it does not."""
    cert = x509.load_pem_x509_certificate((served.ca.parent / "portal.crt").read_bytes())
    key = cert.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    trusted = base64.b64encode(hashlib.sha256(key).digest()).decode()
    args = ["--no-sandbox", "--disable-gpu", f"--ignore-certificate-errors-spki-list={trusted}"]
    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            args=args,
            viewport={"width": request.param, "height": 844},
            locale="ja-JP",
        )
        made = context.pages[0]
        touch = context.new_cdp_session(made)
        touch.send("WebAuthn.enable")
        options = {"protocol": "ctap2", "transport": "internal", "automaticPresenceSimulation": True}
        options |= {"hasResidentKey": True, "hasUserVerification": True, "isUserVerified": True}
        touch.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        yield made
        context.close()


@pytest.mark.timeout(120)
def test_an_operator_comes_in_adds_both_second_steps_and_comes_in_again_with_a_passkey(
    served: Served, page: Page
) -> None:
    size = page.viewport_size
    assert size
    width, now = size["width"], dt.datetime.now(dt.UTC)
    login = f"chief-{width}@example.com"
    with served.office.store.transaction() as db:
        account = accounts.make(db, login, "operator", name="見守 花子", now=now)
        passwords.set_password(db, account, passwords.hashed(GOOD), now)
    critic = Critic(f"entrance/{width}")
    critic.listen(page)
    page.goto(f"{served.url}/audit")
    critic.look("login", page)
    page.fill("#login", login)
    page.fill("#password", "not this one at all")
    with page.expect_response(lambda answer: answer.request.method == "POST") as refused:
        page.click("main form button:not([type=button])")
    assert refused.value.status == 401
    critic.problems.clear()  # the console says that a page came with 401
    critic.look("login-wrong", page)
    page.fill("#password", GOOD)
    page.click("main form button:not([type=button])")
    page.wait_for_url("**/account/second")
    critic.look("second-step", page)
    page.click("details summary:not(.menu-small summary)")
    secret = page.inner_text("main details code")
    page.fill("#code", pyotp.TOTP(secret).now())
    page.click("section[aria-labelledby=app] button")
    page.wait_for_selector("ul.codes")
    assert page.locator("ul.codes li").count() == 10
    critic.look("recovery-codes", page)

    page.goto(f"{served.url}/account/second")
    page.fill("#passkey-name", "仕事のパソコン")
    with page.expect_navigation():
        page.click("section[aria-labelledby=passkey] button")
    page.goto(f"{served.url}/account")
    page.wait_for_selector("text=仕事のパソコン")
    critic.look("account", page)
    for name in ("members", "staff", "audit"):
        page.goto(f"{served.url}/{name}")
        critic.look(name, page)

    page.context.clear_cookies()
    page.goto(f"{served.url}/audit")
    page.click("[data-passkey] button")
    page.wait_for_url("**/audit")
    page.context.clear_cookies()
    page.goto(f"{served.url}/login")
    page.fill("#login", login)
    page.fill("#password", GOOD)
    page.click("main form button:not([type=button])")
    page.wait_for_url("**/login/second")
    critic.look("second-step-asked", page)
    # Between signing out and the next page, the old one may still ask for its stream of new alerts.
    problems = [one for one in critic.problems if "status of 401" not in one]
    assert not problems, "\n".join(problems)
