"""The frame of every page: who gets in, in which language, and what no page of ours ever allows."""

from __future__ import annotations

import re

import pytest
from litestar import Litestar, get
from office import THEM, US, Office

from sekisho.center.portal import rendering, rights
from sekisho.center.portal.words import catalogue


def test_who_is_not_signed_in_is_sent_to_sign_in_and_comes_back(office: Office) -> None:
    answer = office.anonymous().get("/alerts?star=3", follow_redirects=False)
    assert answer.status_code in (303, 404)


def test_every_sentence_has_both_languages_and_the_same_places() -> None:
    for section, keys in catalogue().sentences.items():
        for key, sentence in keys.items():
            assert sentence.ja.strip() and sentence.en.strip(), f"{section}.{key}"
            places = [set(re.findall(r"{(\w+)[^}]*}", text)) for text in (sentence.ja, sentence.en)]
            assert places[0] == places[1], f"{section}.{key}"


ELSEWHERE = ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/a\r\nb", "", "/%0a/\x00", "//["]


@pytest.mark.parametrize("target", [*ELSEWHERE, "/\t/evil.example", "/" + "a" * 3000])
def test_no_redirect_leads_elsewhere(target: str) -> None:
    assert rendering.local_path(target) == "/"


def test_a_path_of_ours_is_kept() -> None:
    assert rendering.local_path("/alerts?star=3") == "/alerts?star=3"


def test_a_route_without_a_right_does_not_start() -> None:
    @get("/forgotten", sync_to_thread=False)
    def forgotten() -> str:
        return ""

    with pytest.raises(ValueError, match="right"):
        rights.check_routes(Litestar([forgotten]))


def test_the_language_is_switched_for_the_account(office: Office) -> None:
    client = office.client()
    assert 'lang="ja"' in client.get("/nowhere").text
    assert client.submit("/language", to="en", back="/nowhere").headers["location"] == "/nowhere"
    assert 'lang="en"' in client.get("/nowhere").text


def test_what_is_said_once_goes_by_a_cookie_that_browsers_drop(office: Office) -> None:
    client = office.client()
    for answer in (client.submit("/language", to="en"), client.submit("/logout")):
        for cookie in answer.headers.get_list("set-cookie"):
            assert cookie.startswith("__Host-") and "Secure" in cookie and "Path=/" in cookie
    client = office.client()
    client.cookies.set(rendering.FLASH, "shell.menu")
    answer = client.get("/nowhere")
    assert "Max-Age=0" in answer.headers["set-cookie"] and "Secure" in answer.headers["set-cookie"]


def test_a_form_without_its_token_changes_nothing(office: Office) -> None:
    client = office.client()
    client.csrf = ""
    assert client.submit("/logout").status_code == 403
    client.csrf = office.client().csrf
    assert client.submit("/logout").status_code == 403, "another session's token"


def test_a_form_of_another_site_changes_nothing(office: Office) -> None:
    client = office.client()
    answer = client.post("/logout", data={"csrf": client.csrf}, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403


def test_a_chamber_opens_its_own_customers_only(office: Office) -> None:
    client = office.client("reseller", US)
    assert client.submit("/customers/open", tenant=THEM).status_code == 404
    assert client.submit("/customers/open", tenant=US).status_code == 303


def test_staff_open_customers_that_there_are(office: Office) -> None:
    client = office.client("operator")
    assert client.submit("/customers/open", tenant="nobody").status_code == 404
    assert client.submit("/customers/open", tenant="x" * 5000).status_code == 404
    assert client.submit("/customers/open", tenant=THEM).status_code == 303


def test_nothing_from_outside_and_nothing_inline_is_allowed(office: Office) -> None:
    answer = office.client().get("/nowhere")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not re.search(r"""\s(style|on\w+)=["']|<style|<script(?! type="module" src="/static/)""", answer.text)
