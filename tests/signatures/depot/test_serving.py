"""A real nginx with the printed configuration: our boxes get what is published, whole and in pieces; nobody more."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path

import pytest
from repository import Depot

from sekisho.appliance.cli import main
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.settings import Paths, Settings, Signatures, Telemetry
from sekisho.center.pki import Credentials, create_ca, issue
from sekisho.signatures.depot import serve
from sekisho.signatures.keeper.effects import Effects
from sekisho.telemetry import authority


@dataclass
class Web:
    port: int
    box: Credentials
    stranger: Credentials

    def tls(self, who: Credentials | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.box.ca))
        if who:
            context.load_cert_chain(who.cert, who.key)
        return context

    def ask(self, path: str, method: str = "GET", who: Credentials | None = None, **headers: str) -> HTTPResponse:
        link = HTTPSConnection("localhost", self.port, context=self.tls(who or self.box), timeout=10)
        link.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = link.getresponse()
        answer.body = answer.read()  # type: ignore[attr-defined]  # read while the connection is there
        return answer


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Depot:
    depot = Depot(tmp_path_factory.mktemp("served"))
    depot.publish(1)
    depot.publish(2)
    (depot.tree.targets / "secret.txt").write_text("no")
    (depot.tree.targets / "sig" / ("0" * 64 + ".away")).symlink_to("/etc/hostname")
    return depot


@pytest.fixture(scope="module")
def web(published: Depot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    work = tmp_path_factory.mktemp("nginx")
    create_ca(work / "ca", "boxes")
    create_ca(work / "others", "others")
    server = issue(work / "ca", "updates", "server", ("localhost",))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    box = issue(work / "ca", "box1", "client", ())
    text = serve.config(
        published.tree.directory, server.cert, server.key, client_ca=server.ca, listen=f"127.0.0.1:{port}"
    )
    (work / "nginx.conf").write_text(serve.alone(text, work, "root"))
    argv = ["nginx", "-c", str(work / "nginx.conf"), "-e", str(work / "error.log")]
    daemon = subprocess.Popen(argv, stderr=subprocess.PIPE)
    try:
        while True:
            assert daemon.poll() is None, daemon.stderr and daemon.stderr.read()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        yield Web(port, box, issue(work / "others", "box1", "client", ()))
    finally:
        daemon.terminate()
        daemon.wait(10)


def test_a_box_gets_everything_that_is_published(web: Web, published: Depot) -> None:
    for path in [*published.tree.metadata.iterdir(), *(published.tree.targets / "sig").iterdir()]:
        if path.is_symlink():
            continue
        answer = web.ask("/" + str(path.relative_to(published.tree.directory)))
        assert (answer.status, answer.body) == (200, path.read_bytes())  # type: ignore[attr-defined]
        fixed = path.name != "timestamp.json"
        assert ("immutable" if fixed else "no-cache") in answer.headers["Cache-Control"]
        kind = "application/octet-stream" if "targets" in path.parts else "application/json"
        assert (answer.headers["Content-Type"], answer.headers["Content-Encoding"]) == (kind, None)


def test_a_download_goes_on_where_it_stopped(web: Web, published: Depot) -> None:
    path = next((published.tree.targets / "sig").glob("*.2.tar.zst"))
    place = "/" + str(path.relative_to(published.tree.directory))
    data = path.read_bytes()
    whole = web.ask(place)
    rest = web.ask(place, Range="bytes=100-", If_Range=whole.headers["ETag"])
    assert (rest.status, rest.body) == (206, data[100:])  # type: ignore[attr-defined]
    assert rest.headers["Content-Range"] == f"bytes 100-{len(data) - 1}/{len(data)}"
    other = web.ask(place, Range="bytes=100-", If_Range='"other"')
    assert (other.status, other.body) == (200, data)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metadata/",
        "/targets/sig/",
        "/published.json",
        "/.lock",
        "/metadata/root.json",
        "/metadata/2.root.json",
        "/metadata/../published.json",
        "/metadata/%2e%2e/published.json",
        "/targets/secret.txt",
        "/targets/sig/" + "0" * 64 + ".away",
    ],
)
def test_nothing_else_is_shown(web: Web, path: str) -> None:
    answer = web.ask(path)
    assert (answer.status, answer.body) == (404, b"\n")  # type: ignore[attr-defined]


def test_nobody_can_put_anything(web: Web) -> None:
    assert {web.ask("/metadata/timestamp.json", method).status for method in ("PUT", "POST", "DELETE")} == {405}


def test_only_boxes_of_the_centre_are_answered(web: Web) -> None:
    assert web.ask("/metadata/timestamp.json").status == 200
    assert web.ask("/metadata/timestamp.json", who=web.stranger).status == 400
    link = HTTPSConnection("localhost", web.port, context=web.tls(None), timeout=10)
    link.request("GET", "/metadata/timestamp.json")
    assert link.getresponse().status == 400


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of asking for it at all
def test_old_tls_is_not_spoken(web: Web) -> None:
    context = web.tls(web.box)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", web.port)) as plain,
        pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_the_command_prints_what_was_tried(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["signatures", "repository", "nginx-config", "--certificate", "/a.crt", "--key", "/a.key"]
    assert main([*argv, "--client-ca", "/ca.crt", "--listen", "8444", "--dir", "/srv/r"]) == 0
    expected = serve.config(Path("/srv/r"), Path("/a.crt"), Path("/a.key"), client_ca=Path("/ca.crt"), listen="8444")
    assert capsys.readouterr().out == expected


def test_a_name_that_would_end_its_line_is_refused() -> None:
    with pytest.raises(RejectedInput):
        serve.config(Path("/srv/r;"), Path("/a.crt"), Path("/a.key"))


def test_a_boxs_keeper_refreshes_by_it_though_it_may_not_look_beside_the_boxs_key(
    web: Web, published: Depot, tmp_path: Path
) -> None:
    root = tmp_path / "root.json"
    root.write_bytes(published.trusted)
    (tmp_path / "state" / "channel").mkdir(parents=True)
    hidden = tmp_path / "identity" / "ca.pem"
    settings = Settings(
        box="b",
        paths=Paths(run=str(tmp_path / "run"), state=str(tmp_path / "state")),
        telemetry=Telemetry(ca=str(hidden), cert=str(web.box.cert), key=str(web.box.key)),
        signatures=Signatures(channel=f"https://localhost:{web.port}", root=str(root)),
    )
    with pytest.raises(RejectedInput, match="certificates cannot be used"):
        Effects(settings, lambda: False).refresh(again=False)
    authority.show(web.box.ca, settings.authority)
    assert Effects(settings, lambda: False).refresh(again=False).manifest.number == 2
