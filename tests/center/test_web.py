"""The web service as a browser and a stranger meet it: HTTPS, strict headers, nothing of the inside."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from sekisho.center import pki
from sekisho.lab.ports import free_port

LINK = '[broker]\nhost = "127.0.0.1"\nca = "a"\ncert = "b"\nkey = "c"\n'


class WebService:
    """The real process on loopback."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        pki.create_ca(root / "pki")
        self.files = pki.issue(root / "pki", "centre", "server", ("127.0.0.1", "localhost"))
        self.settings = root / "center.toml"
        self.settings.write_text(
            f'store = "{root}/center.db"\n{LINK}[web]\nport = {self.port}\naddress = "127.0.0.1"\n'
            f'cert = "{self.files.cert}"\nkey = "{self.files.key}"\n'
        )
        self.log = root / "web.log"
        argv = [sys.executable, "-I", "-m", "sekisho.center.web", "--settings", str(self.settings)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stderr=log)
        until = time.monotonic() + 30
        while not self._listens():
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url(path), verify=str(self.files.ca), timeout=20)

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebService]:
    made = WebService(tmp_path_factory.mktemp("web"))
    yield made
    made.stop()


def test_it_is_well_and_allows_a_browser_nothing_else(web: WebService) -> None:
    answer = web.get("/health")
    assert (answer.status_code, answer.text) == (200, "ok\n")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


def test_what_is_not_there_is_refused_without_detail_and_its_path_is_not_logged(web: WebService) -> None:
    answer = web.get("/links/SECRET-TOKEN?key=SECRET-KEY")
    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})
    assert answer.headers["x-frame-options"] == "DENY"
    until = time.monotonic() + 20
    while " 404 " not in web.log.read_text():  # written when the answer is through
        assert time.monotonic() < until
        time.sleep(0.02)
    assert "SECRET" not in web.log.read_text()


def test_clear_text_is_refused(web: WebService) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{web.port}/health", timeout=10)


def test_a_renewed_certificate_is_taken_without_a_restart(web: WebService) -> None:
    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", web.port))

    before = shown()
    pki.issue(web.root / "pki", "centre", "server", ("127.0.0.1", "localhost"))
    until = time.monotonic() + 20
    while shown() == before:
        assert time.monotonic() < until
        time.sleep(0.2)
    assert web.get("/health").status_code == 200


@pytest.mark.parametrize(("change", "code", "told"), [("[web]", 2, "[web]"), ("port = ", 3, "cannot listen")])
def test_it_says_why_it_cannot_start(web: WebService, tmp_path: Path, change: str, code: int, told: str) -> None:
    text = web.settings.read_text()
    path = tmp_path / "center.toml"
    path.write_text(text.split("[web]")[0] if change == "[web]" else text)
    argv = [sys.executable, "-I", "-m", "sekisho.center.web", "--settings", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert (done.returncode, told in done.stderr, "Traceback" in done.stderr) == (code, True, False)


@pytest.mark.parametrize("path", ["/box/1/enrol", "/box/1/renew"])
@pytest.mark.parametrize("body", [b"[" * 9000, b'{"code":' * 6000])
def test_a_body_deeper_than_anything_is_refused_and_fills_no_log(web: WebService, path: str, body: bytes) -> None:
    before = web.log.read_text().count("Traceback")
    headers = {"content-type": "application/json"}
    answer = requests.post(web.url(path), data=body, headers=headers, verify=str(web.files.ca), timeout=20)
    assert answer.status_code == 400
    assert web.log.read_text().count("Traceback") == before
