"""Who sees what on the box's page, over real HTTPS, with the real counters of inspect and telemetry behind it."""

from __future__ import annotations

import hashlib
import html
import json
import re

import httpx
import pytest
from litestar import get
from pagebox import PASSWORD, Box, Browser

from sekisho.portal_agent import app
from sekisho.portal_agent.rooms import home
from sekisho.telemetry.events import Dns, Flow

OWNERS = [
    ("GET", "/devices"), ("GET", "/quarantine"), ("GET", "/quarantine/x"), ("GET", "/quarantine/x/file"),
    ("POST", "/quarantine/x/release"), ("GET", "/sent"), ("GET", "/sent/fields"), ("GET", "/sent/all"),
    ("GET", "/updates"), ("POST", "/updates/choice"), ("GET", "/care"),
    ("POST", "/care/support"), ("POST", "/care/restart"), ("POST", "/care/wanted"), ("POST", "/care/enrol"),
    ("POST", "/care/password"), ("POST", "/sign-out"),
]  # fmt: skip
HOSTILE = [
    "<script>alert(1)</script>", "\u202egpj.exe", "\x00\x1b[2J\r\nSet-Cookie: a=b", "../../etc/passwd",
    '"; filename="x', "a" * 65536, "'onclick='x", "{{ 7*7 }}", "=1+1", "\ud800".encode("utf-8", "replace").decode(),
]  # fmt: skip
INLINE_OR_FOREIGN = re.compile(r"<script|<style|\sstyle=|\son[a-z]+=|javascript:|(href|src|action)=.?(https?:)?//")


def paths(box: Box) -> set[tuple[str, str]]:
    """Every route of the application, by method."""
    made = app.create_app(box.office)
    found = {
        (method, route.path)
        for route in made.routes
        for handler in getattr(route, "route_handlers", ())
        for method in handler.http_methods
        if handler.opt.get("right") == "owner" and method != "OPTIONS"
    }
    return {(method, path.replace("{ident:str}", "x")) for method, path in found}


def test_every_route_of_the_owner_is_walked_below(box: Box) -> None:
    assert paths(box) == set(OWNERS)


@pytest.mark.parametrize(("method", "path"), OWNERS)
def test_who_is_not_signed_in_is_led_to_the_door_and_sees_nothing(browser: Browser, method: str, path: str) -> None:
    browser.box.keep(b"secret content", file_name="secret-name.exe")
    answer = browser.get(path) if method == "GET" else browser.post(path, {"reason": "x", "sure": "yes", "when": "now"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert "secret" not in answer.text
    assert browser.box.office.restarts.kept.plan is None


def test_a_route_without_a_right_keeps_the_application_from_starting(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    @get("/forgotten", sync_to_thread=False)
    def forgotten() -> str:
        return "secret"

    monkeypatch.setattr(home, "HANDLERS", (*home.HANDLERS, forgotten))
    with pytest.raises(ValueError, match="forgotten"):
        app.create_app(box.office)


def test_the_first_screen_says_the_state_and_nothing_of_people(browser: Browser) -> None:
    browser.box.keep(b"x", file_name="secret-name.exe")
    assert "わかりません。見守るプログラムが答えません" in browser.get("/").text
    browser.box.inspecting()
    page = browser.get("/").text
    assert "はい。この会社の通信は、いま検査されています。" in page
    assert "secret-name" not in page
    browser.box.inspecting(engine="stopped", gate="hung")
    assert "いいえ。検査が止まっていて、通信は検査なしで通っています。" in browser.get("/").text


def test_the_language_is_the_browsers_until_it_is_chosen(browser: Browser) -> None:
    assert '<html lang="en">' in browser.get("/", **{"accept-language": "en-GB,en;q=0.9"}).text
    assert '<html lang="ja">' in browser.get("/", **{"accept-language": "fr"}).text
    answer = browser.post("/language", {"to": "en", "page": "//evil.example/"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/"), "never to a place that a form names"
    assert '<html lang="en">' in browser.get("/").text


def test_every_answer_carries_the_strict_headers_and_no_page_anything_inline(owner: Browser) -> None:
    entry = owner.box.keep(b"x")
    owner.box.sent(Dns(at="2026-11-21T10:00:00.000000Z", flow=Flow("10.0.0.1", 1, "8.8.8.8", 53, "UDP"), name="a.test"))
    for path in (
        "/",
        "/devices",
        "/quarantine",
        f"/quarantine/{entry.id}",
        "/sent",
        "/sent/fields",
        "/updates",
        "/care",
        "/none",
    ):
        answer = owner.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'") and "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY" and answer.headers["cache-control"] == "no-store"
        assert not re.search(
            r"<script|<style|\sstyle=|\son[a-z]+=|javascript:|(href|src|action)=.?(https?:)?//", answer.text
        ), path


def test_hostile_names_are_shown_and_never_obeyed(owner: Browser) -> None:
    for name in HOSTILE:
        entry = owner.box.keep(b"x", file_name=name, url=name, src=name, rules=[name], app=name)
        for path in ("/quarantine", f"/quarantine/{entry.id}"):
            page = owner.get(path)
            assert page.status_code == 200
            assert name not in page.text or html.escape(name) == name
            assert "\u202e" not in page.text and "\x1b" not in page.text and len(page.text) < 200_000
        assert owner.post(f"/quarantine/{entry.id}/release", {"reason": name, "sure": "yes"}).status_code in (303, 413)
        owner.post(f"/quarantine/{entry.id}/release", {"reason": "ours", "sure": "yes"})
        file = owner.get(f"/quarantine/{entry.id}/file")
        given = file.headers["content-disposition"]
        assert file.content == b"x" and file.headers["content-type"] == "application/octet-stream"
        assert re.fullmatch(r"attachment; filename=\"[^\"\\/\r\n]{1,100}\"; filename\*=UTF-8''[A-Za-z0-9%._~-]+", given)
        assert ".quarantined" in given and "set-cookie" not in file.headers
    assert owner.get("/care").status_code == 200


def test_hostile_names_in_what_was_sent_are_shown_whole_and_harmless(owner: Browser) -> None:
    at, flow = "2026-11-21T10:00:00.000000Z", Flow("10.0.0.1", 1, "8.8.8.8", 53, "UDP")
    owner.box.sent(*(Dns(at=at, flow=flow, name=name) for name in ("<img src=x onerror=alert(1)>", "\u202emoc.live")))
    page = owner.get("/sent").text
    assert "&lt;img src=x onerror=alert(1)&gt;" in page and "<img" not in page
    assert "moc.live" in page and "\u202e" not in page


def test_all_that_was_sent_is_saved_as_lines(owner: Browser) -> None:
    at = "2026-11-21T10:00:00.000000Z"
    owner.box.sent(*(Dns(at=at, name=f"{number}.example") for number in range(1200)))
    file = owner.get("/sent/all")
    assert file.headers["content-disposition"] == 'attachment; filename="sekisho-sent.jsonl"'
    rows = [json.loads(line) for line in file.text.splitlines()]
    assert [row["event"]["name"] for row in rows] == [f"{number}.example" for number in range(1200)]
    assert owner.get("/sent").text.count("<details>") == 100


@pytest.mark.parametrize("ident", ["x", "../key", "%2e%2e%2fkey", "20260101T000000-000000000000", "a" * 5000])
def test_an_entry_that_is_none_is_not_found(owner: Browser, ident: str) -> None:
    assert owner.get(f"/quarantine/{ident}").status_code in (400, 404)
    assert owner.get(f"/quarantine/{ident}/file").status_code in (400, 404, 409)
    assert owner.post(f"/quarantine/{ident}/release", {"reason": "x", "sure": "yes"}).status_code in (400, 404)


@pytest.mark.parametrize(
    "form",
    [{}, {"reason": "x"}, {"sure": "yes"}, {"reason": " \n", "sure": "yes"}, {"reason": "x" * 301, "sure": "yes"}],
)
def test_a_release_needs_a_reason_and_the_tick(owner: Browser, form: dict[str, str]) -> None:
    entry = owner.box.keep(b"x")
    assert owner.post(f"/quarantine/{entry.id}/release", form).status_code == 303
    assert "まだ取り出していません" in owner.get(f"/quarantine/{entry.id}").text
    assert owner.box.quarantine.show(entry.id).released == "" and owner.box.reported == []
    assert owner.get(f"/quarantine/{entry.id}/file").status_code == 409


def test_a_release_is_noted_told_and_recorded_and_the_file_comes_as_it_was(owner: Browser) -> None:
    content = bytes(range(256)) * 20_000
    entry = owner.box.keep(content)
    owner.post(f"/quarantine/{entry.id}/release", {"reason": "取引先の 見積書", "sure": "yes"})
    assert owner.get(f"/quarantine/{entry.id}/file").content == content
    assert owner.box.quarantine.show(entry.id).released.endswith("取引先の 見積書")
    assert [(h.part, h.state) for h in owner.box.reported] == [("quarantine", "released")]
    assert "見積書" not in owner.box.reported[0].detail
    deeds = [(line.deed, line.about) for line in owner.box.office.record.newest()]
    assert deeds[:2] == [("downloaded", entry.id), ("released", f"{entry.id} 取引先の 見積書")]


@pytest.mark.parametrize(("wanted", "end"), [(b"x" * 1000, ""), (b"another", ".transfer")])
def test_of_a_transfer_the_file_itself_is_saved_or_it_is_named_a_transfer(
    owner: Browser, wanted: bytes, end: str
) -> None:
    transfer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
    entry = owner.box.keep(transfer, form="transfer", sha256=hashlib.sha256(wanted).hexdigest())
    owner.post(f"/quarantine/{entry.id}/release", {"reason": "ours", "sure": "yes"})
    file = owner.get(f"/quarantine/{entry.id}/file")
    assert file.content == (transfer if end else wanted)
    assert f'filename="invoice.exe{end}.quarantined"' in file.headers["content-disposition"]


def test_a_file_that_was_changed_on_the_disk_is_not_given_out(owner: Browser) -> None:
    entry = owner.box.keep(b"x" * 3_000_000)
    owner.post(f"/quarantine/{entry.id}/release", {"reason": "ours", "sure": "yes"})
    path = owner.box.settings.quarantine_dir / f"{entry.id}.skq"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(httpx.RemoteProtocolError):
        owner.get(f"/quarantine/{entry.id}/file")


def test_a_daemon_that_does_not_answer_is_said_in_words(owner: Browser) -> None:
    owner.box.settings.quarantine_socket.unlink()
    answer = owner.get("/quarantine")
    assert answer.status_code == 503 and "担当のプログラムが、いま答えません" in answer.text
    assert owner.get("/").status_code == 200


def test_the_door_explains_the_warning_and_leads_to_the_page_with_the_fingerprint(browser: Browser) -> None:
    door = httpx.get(browser.box.door)
    assert door.status_code == 200 and "set-cookie" not in door.headers
    assert f'href="{browser.box.origin}/"' in door.text
    shown = re.search(r"<code>(([0-9A-F]{2}:){31}[0-9A-F]{2})</code>", door.text)
    assert shown is not None and shown[1] == browser.box.office.fingerprint
    assert httpx.post(browser.box.door, data={"password": PASSWORD}).status_code == 403
