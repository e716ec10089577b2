"""The channel's server over TLS: who it may be, who the box is to it, and the way through a proxy."""

from __future__ import annotations

import datetime as dt
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hostile import Answer, Hostile

from sekisho.center import pki
from sekisho.signatures.trust import ChannelDown, Web


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("authority")
    pki.create_ca(directory)
    pki.issue(directory, "updates", "server", ("127.0.0.1",))
    return directory


@pytest.fixture
def server(authority: Path) -> Iterator[Hostile]:
    with Hostile({"/metadata/a": Answer(b"a" * 1000)}, (authority / "updates.crt", authority / "updates.key")) as made:
        yield made


def read(web: Web) -> bytes:
    with web.read(f"{web.metadata}a", 1 << 20) as reply:
        return b"".join(reply.chunks)


def test_a_server_of_the_right_authority_is_read_and_one_handshake_is_enough(server: Hostile, authority: Path) -> None:
    web = Web(server.url, ca=str(authority / "ca.crt"))
    assert read(web) == read(web) == b"a" * 1000
    assert server.connections == 1
    web.close()


def test_a_server_of_another_authority_or_name_is_not(server: Hostile, authority: Path, tmp_path: Path) -> None:
    pki.create_ca(tmp_path)
    for web in (
        Web(server.url, ca=str(tmp_path / "ca.crt")),
        Web(server.url),
        Web(f"https://localhost:{server.port}", ca=str(authority / "ca.crt")),
    ):
        with pytest.raises(ChannelDown) as down:
            read(web)
        assert down.value.code == "bad_answer"
    assert not server.asked


def test_a_certificate_that_ended_by_the_boxs_clock_is_no_reason_to_stay_without_news(
    authority: Path, tmp_path: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    life = dt.timedelta(seconds=1)
    cert = pki.sign(pki.load_ca(authority), "updates", key.public_key(), life, "server", ("127.0.0.1",))
    (tmp_path / "cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (tmp_path / "key.pem").write_bytes(pem)
    while dt.datetime.now(dt.UTC) <= cert.not_valid_after_utc:
        time.sleep(0.05)
    with Hostile({"/metadata/a": Answer(b"a")}, (tmp_path / "cert.pem", tmp_path / "key.pem")) as ended:
        assert read(Web(ended.url, ca=str(authority / "ca.crt"))) == b"a"


def test_the_way_leads_through_a_proxy_with_a_password_and_past_one_that_is_not_there(
    server: Hostile, authority: Path, tmp_path: Path
) -> None:
    program = shutil.which("tinyproxy")
    if not program:
        pytest.skip("tinyproxy is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    conf, log = tmp_path / "tinyproxy.conf", tmp_path / "tinyproxy.log"
    conf.write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout 60\nLogLevel Connect\nMaxClients 20\nConnectPort {server.port}\n"
        f'BasicAuth taro pass\nLogFile "{log}"\n'
    )
    running = subprocess.Popen([program, "-d", "-c", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert running.poll() is None
        ca = str(authority / "ca.crt")
        web = Web(server.url, ca=ca, proxy=f"http://taro:pass@127.0.0.1:{port}")
        assert read(web) == b"a" * 1000
        web.close()
        assert f"127.0.0.1:{server.port}" in log.read_text()
    finally:
        running.kill()
        running.wait()
    assert read(Web(server.url, ca=ca, proxy=f"http://taro:pass@127.0.0.1:{port}")) == b"a" * 1000
