"""New alerts reach open pages by themselves: real HTTPS, the stream as a program and as Chromium hear it."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import requests
from attacks import calls_out, ids
from office import THEM, US, Office
from playwright.sync_api import sync_playwright

from sekisho.center import pki, settings
from sekisho.center.portal import live
from sekisho.center.portal.app import create_app
from sekisho.center.portal.live import Listener, Watch
from sekisho.center.portal.rendering import COOKIE
from sekisho.center.store import BoxState
from sekisho.center.web import guard
from sekisho.center.web.server import listen, make_server


class Site:
    """The portal on loopback, in this process."""

    def __init__(self, office: Office, root: Path, connections: int = 512) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        pki.create_ca(root / "pki")
        files = pki.issue(root / "pki", "portal", "server", ("127.0.0.1", "localhost"))
        self.ca, self.url, self.office = str(files.ca), f"https://localhost:{port}", office
        portal = settings.Portal(
            cert=str(files.cert), key=str(files.key), port=port, address="127.0.0.1", origin=self.url,
            connections=connections,
        )  # fmt: skip
        self._server = make_server(create_app(msgspec.structs.replace(office.settings, portal=portal)), portal)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listen(portal)]})
        self._thread.start()

    def hear(self, secret: str, after: str = "", **headers: str) -> requests.Response:
        """Open the stream."""
        cookie = {"cookie": f"{COOKIE}={secret}", **headers}
        address = f"{self.url}/live?after={after}"
        return requests.get(address, headers=cookie, verify=self.ca, stream=True, timeout=20, allow_redirects=False)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(15)
        assert not self._thread.is_alive(), "open streams keep the server"


@pytest.fixture
def site(office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(live, "BEAT_S", 0.5)  # what is read in another thread is closed with the next line only
    made = Site(office, tmp_path)
    yield made
    made.stop()


def lines(answer: requests.Response) -> Callable[[], str]:
    """The next line that says something."""
    heard: queue.Queue[str] = queue.Queue()

    def read() -> None:
        try:
            for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
                heard.put(str(line))
        except (requests.RequestException, AttributeError, ValueError):
            return

    threading.Thread(target=read, daemon=True).start()

    def following() -> str:
        while True:
            line = heard.get(timeout=10)
            if line and line != ":":
                return line

    return following


def test_only_ids_of_the_own_customers_alerts_are_sent_and_longer_than_other_answers_may_take(
    site: Site, ago: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "ANSWER_S", 1.0)
    secret, _ = site.office.sign_in("member", US)
    with site.hear(secret) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        following = lines(answer)
        assert following() == f"retry: {live.RETRY_MS}"
        site.office.feed(calls_out(ago()), tenant=THEM)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:  # what may be sent of the other customer's has its time to come
            threading.Event().wait(0.1)
        site.office.feed(calls_out(ago(), host="secret.example"))
        (ours,) = ids(site.office)
        assert [following(), following(), following()] == [f"id: {ours}", "event: alert", f"data: {ours}"]


def test_who_comes_back_hears_what_was_missed(site: Site, ago: Callable[..., str]) -> None:
    site.office.feed(calls_out(ago()), calls_out(ago(hours=1)))
    first, second = ids(site.office)
    secret, _ = site.office.sign_in("member", US)
    with site.hear(secret, "0", **{"last-event-id": str(first)}) as answer:
        following = lines(answer)
        assert [following(), following()] == [f"retry: {live.RETRY_MS}", f"id: {second}"]


def test_a_session_has_so_many_streams_and_no_more(site: Site) -> None:
    secret, _ = site.office.sign_in("member", US)
    held = [site.hear(secret) for _ in range(live.OF_SESSION)]
    for answer in held:
        lines(answer)()
    assert site.hear(secret).status_code == 429
    other, _ = site.office.sign_in("member", US)
    with site.hear(other) as answer:
        assert answer.status_code == 200
    held.pop().close()
    until = time.monotonic() + 10
    while (status := site.hear(secret).status_code) == 429 and time.monotonic() < until:
        threading.Event().wait(0.1)
    assert status == 200, "a stream that was closed makes room"
    for answer in held:
        answer.close()


def test_open_pages_leave_half_of_the_connections_to_others(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "BEAT_S", 0.5)
    site = Site(office, tmp_path, connections=8)
    secret, _ = office.sign_in("member", US)
    held = [site.hear(secret) for _ in range(4)]
    for answer in held:
        lines(answer)()
    other, _ = office.sign_in("member", THEM)
    with site.hear(other) as answer:
        assert answer.status_code == 429
    assert requests.get(f"{site.url}/login", verify=site.ca, timeout=20).status_code == 200
    for answer in held:
        answer.close()
    site.stop()


def test_who_has_no_session_hears_nothing(site: Site) -> None:
    assert site.hear("nobody").status_code == 303


class Counted(Listener):
    """A listener without an event loop."""

    def __init__(self, tenant: str) -> None:
        self.session, self.tenant, self.heard = "s", tenant, list[int]()

    def tell(self, newest: int) -> None:
        self.heard.append(newest)


def test_one_thread_looks_for_everybody_and_ends_with_the_last(
    office: Office, ago: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0.02)
    watch = Watch(office.store.database)
    many = [Counted(US) for _ in range(200)]
    for one in many:
        watch.join(one)
    threads = [thread for thread in threading.enumerate() if thread.name == "live"]
    assert len(threads) == 1
    until = time.monotonic() + 10
    while not watch.polls and time.monotonic() < until:
        threading.Event().wait(0.01)
    office.feed(calls_out(ago()))
    while not all(one.heard for one in many) and time.monotonic() < until:
        threading.Event().wait(0.01)
    assert all(one.heard == ids(office) for one in many), "told once each"
    for one in many:
        watch.leave(one)
    threads[0].join(10)
    assert not threads[0].is_alive()


def test_an_alert_appears_on_open_pages_within_a_second_and_without_reloading(
    site: Site, ago: Callable[..., str]
) -> None:
    office = site.office
    with office.store.transaction():
        office.store.set_state(BoxState("box-aoki-1", US, "on", 1, "e1", 1, ago(hours=1)))
    secret, _ = office.sign_in("admin", US)
    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        context = chromium.new_context(ignore_https_errors=True)
        context.add_cookies([{"name": COOKIE, "value": secret, "url": site.url, "secure": True}])
        home, alerts = context.new_page(), context.new_page()
        problems: list[str] = []
        took: dict[str, float] = {}
        for page, path in ((home, "/"), (alerts, "/alerts")):
            page.on("pageerror", lambda err: problems.append(str(err)))
            page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
            with page.expect_response("**/live?*"):
                page.goto(site.url + path)
            page.evaluate("window.same = true")
            known = ids(office)
            office.feed(calls_out(ago(minutes=len(known)), host=f"h{len(known)}.example"))
            began = time.monotonic()
            page.locator(f'[data-alert="{ids(office)[-1]}"]').first.wait_for(timeout=5000)
            took[path] = time.monotonic() - began
            assert page.evaluate("window.same"), "the page was loaded anew"
            assert page.locator("#news").inner_text(), "it is announced"
        assert "対応が必要です" in home.locator("#standing").inner_text()
        chromium.close()
    assert problems == []
    assert max(took.values()) < 1.0, took
