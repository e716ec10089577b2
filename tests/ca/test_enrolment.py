"""From a code to a certificate: only for the box it was made for, only once, only to the true centre."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from wrong_clock import WrongClock

from sekisho.appliance.core import settings
from sekisho.center import pki
from sekisho.telemetry.enrolment import code as codes
from sekisho.telemetry.enrolment.wire import CA_PATH, ENROL_PATH

if TYPE_CHECKING:
    from tests.ca.conftest import Box, Centre

pytestmark = pytest.mark.timeout(120)  # more than `Centre.wait`, which says what it waited for

_SOURCES = itertools.count()
"""Each request comes from an address of its own, so that only the test of the pace meets the pace."""

MakeBox = Callable[[str], "Box"]


def _post(centre: Centre, code: str, csr: str, **more: str) -> requests.Response:
    body = {"secret": codes.parse(code).secret.hex(), "csr": csr, **more}
    source = {"x-forwarded-for": f"203.0.113.{next(_SOURCES) % 250}"}
    return requests.post(centre.url + ENROL_PATH, json=body, headers=source, verify=str(centre.ca), timeout=20)


def _csr(key: ec.EllipticCurvePrivateKey | None = None, name: str = "center") -> str:
    """A request that claims to be the centre itself, with names and rights it should not get."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("centre.example")]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


def test_a_code_makes_a_box_a_member(centre: Centre, make_box: MakeBox) -> None:
    box = make_box("whatever")
    done = box.enrol(centre.url, centre.code("tokyo-1", "chamber").lower())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["box"] == "tokyo-1"
    config = settings.load(box.settings)
    assert (config.box, config.tenant, config.telemetry.centre) == ("tokyo-1", "chamber", centre.url)
    assert (config.telemetry.host, config.telemetry.port) == ("127.0.0.1", centre.broker_port)
    modes = {path.name: path.stat().st_mode & 0o777 for path in box.identity.iterdir()}
    assert modes == {"identity.pem": 0o600, "ca.pem": 0o644, "renewal.json": 0o600}
    ssl.create_default_context(cafile=config.telemetry.ca).load_cert_chain(config.telemetry.cert, config.telemetry.key)
    cert = x509.load_pem_x509_certificate(Path(config.telemetry.cert).read_bytes())
    (shown,) = centre.say("certificates", "--box", "tokyo-1")
    assert (shown["serial"], shown["tenant"], shown["state"]) == (f"{cert.serial_number:x}", "chamber", "valid")
    assert Path(config.telemetry.ca).read_bytes() == centre.ca.read_bytes()


def test_a_code_is_good_once_and_the_second_box_is_told(centre: Centre, make_box: MakeBox) -> None:
    code = centre.code("osaka-1")
    assert make_box("one").enrol(centre.url, code).returncode == 0
    late = make_box("two")
    done = late.enrol(centre.url, code)
    assert (done.returncode, "was used before" in done.stderr) == (2, True)
    assert not (late.identity / "identity.pem").exists()
    assert 'box = "two"' in late.settings.read_text()
    assert centre.outcomes()[-2:] == ["granted", "used code"]


@pytest.mark.protocol("P31")
def test_of_many_boxes_at_once_one_gets_the_certificate(centre: Centre) -> None:
    code = centre.code("race-1")
    answers: list[int] = []
    start = threading.Barrier(8)

    def ask() -> None:
        csr = _csr()
        start.wait()
        answers.append(_post(centre, code, csr).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [403] * 7
    assert len(centre.say("certificates", "--box", "race-1")) == 1


def test_an_answer_that_was_lost_is_given_again_to_the_same_key_only(centre: Centre) -> None:
    code, key = centre.code("lost-1"), ec.generate_private_key(ec.SECP256R1())
    first, second = (_post(centre, code, _csr(key)).json() for _ in range(2))
    assert first == second
    assert _post(centre, code, _csr()).status_code == 403


@pytest.mark.protocol("P32")
def test_the_centre_decides_what_the_certificate_says(centre: Centre) -> None:
    grant = _post(centre, centre.code("named-1"), _csr(name="center")).json()
    cert = x509.load_pem_x509_certificate(grant["certificate"].encode())
    assert cert.subject.rfc4514_string() == "CN=named-1"
    kinds = {extension.oid for extension in cert.extensions}
    assert x509.SubjectAlternativeName.oid not in kinds
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_weak_and_broken_requests_are_refused_and_do_not_use_up_the_code(centre: Centre) -> None:
    code = centre.code("weak-1")
    nobody = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    good = _csr()
    body = good.splitlines()
    forged = "\n".join([*body[:-2], "AAAA" + body[-2][4:], body[-1]])
    for csr in (
        nobody.sign(rsa.generate_private_key(65537, 2048), hashes.SHA256()).public_bytes(Encoding.PEM).decode(),
        nobody.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.PEM).decode(),
        nobody.sign(ec.generate_private_key(ec.SECP192R1()), hashes.SHA256()).public_bytes(Encoding.PEM).decode(),
        forged,
        centre.ca.read_text(),
        "",
    ):
        assert _post(centre, code, csr).status_code == 400, csr
    assert _post(centre, code, "x" * 9000).status_code == 400
    assert _post(centre, code, "x" * 90_000).status_code == 413
    assert _post(centre, code, good, box="center").status_code == 400
    assert _post(centre, code, good).status_code == 200


def test_a_code_ends_and_a_new_one_voids_the_old(centre: Centre) -> None:
    assert (
        _post(centre, centre.code("late-1", valid="0m"), _csr()).json()["error"].startswith("This enrolment code has")
    )
    first, second = centre.code("twice-1"), centre.code("twice-1")
    assert _post(centre, first, _csr()).status_code == 403
    assert _post(centre, second, _csr()).status_code == 200
    assert _post(centre, codes.make(bytes(10)).text, _csr()).json() == {"error": "This enrolment code is not known."}
    assert centre.outcomes()[-4:] == ["expired code", "expired code", "granted", "unknown code"]


def test_the_secret_is_kept_nowhere_at_the_centre(centre: Centre, make_box: MakeBox) -> None:
    code = centre.code("secret-1")
    assert make_box("s").enrol(centre.url, code).returncode == 0
    secret = codes.parse(code).secret
    kept = b"".join(path.read_bytes() for path in centre.root.rglob("*") if path.is_file())
    assert b"secret-1" in kept
    for form in (code.encode(), code.replace("-", "").encode(), secret, secret.hex().encode()):
        assert form not in kept


class Impostor:
    """Someone in between with a certificate of another CA, who shows whichever CA certificate is wanted."""

    def __init__(self, root: Path, shown_ca: bytes) -> None:
        pki.create_ca(root, "impostor")
        made = pki.issue(root, "centre", "server", ("127.0.0.1", "localhost"))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(made.cert, made.key)
        self._answer = json.dumps({"ca": shown_ca.decode()}).encode()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.heard: list[bytes] = []
        self.connections = 0
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            raw.settimeout(5)
            try:
                with self._context.wrap_socket(raw, server_side=True) as tls:
                    self.heard.append(tls.recv(65536))
                    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(self._answer)}\r\nconnection: close\r\n\r\n"
                    tls.sendall(head.encode() + self._answer)
            except OSError:
                raw.close()

    def stop(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)


@pytest.mark.protocol("P30")
def test_an_impostor_learns_nothing_and_the_code_stays_good(centre: Centre, make_box: MakeBox, tmp_path: Path) -> None:
    code, box = centre.code("pinned-1"), make_box("p")
    secret = codes.parse(code).secret.hex().encode()
    own = pki.create_ca(tmp_path / "impostor").read_bytes()
    for shown, connections in ((own, 1), (centre.ca.read_bytes(), 2), (b"no certificate", 1)):
        impostor = Impostor(tmp_path / "impostor", shown)
        done = box.enrol(f"https://127.0.0.1:{impostor.port}", code)
        impostor.stop()
        assert done.returncode == 3, done.stderr
        assert impostor.connections == connections
        assert [b"GET " + CA_PATH.encode() in heard for heard in impostor.heard] == [True]
        assert secret not in b"".join(impostor.heard)
    assert "not the centre" in box.enrol(f"https://localhost:{centre.web_port}", codes.make(bytes(10)).text).stderr
    assert box.enrol(centre.url, code).returncode == 0


def test_a_boxs_certificate_is_no_servers(centre: Centre, make_box: MakeBox, tmp_path: Path) -> None:
    """Any box has a certificate of the true CA; with it, nobody can pass for the centre."""
    code, box = centre.code("honest-1"), make_box("honest")
    assert make_box("thief").enrol(centre.url, centre.code("thief-1")).returncode == 0
    impostor = Impostor(tmp_path / "impostor", centre.ca.read_bytes())
    thief = tmp_path / "thief" / "state" / "telemetry" / "identity" / "identity.pem"
    impostor._context.load_cert_chain(thief)
    done = box.enrol(f"https://127.0.0.1:{impostor.port}", code)
    impostor.stop()
    assert (done.returncode, len(impostor.heard)) == (3, 1)
    assert "not the centre this box belongs to" in done.stderr


@pytest.mark.parametrize("at", ["1970-01-01T00:01:00Z", "2099-01-01T00:00:00Z"])
def test_a_box_that_lives_in_1970_or_2099_enrols(centre: Centre, make_box: MakeBox, tmp_path: Path, at: str) -> None:
    clock = WrongClock(tmp_path)
    clock.set(dt.datetime.fromisoformat(at).timestamp())
    box = make_box("clock-1")
    argv = [sys.executable, "-m", "sekisho.appliance.cli", "box", "enrol", "--centre", centre.url]
    argv += ["--code", centre.code("clock-1"), "--settings", str(box.settings)]
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | clock.env)
    assert done.returncode == 0, done.stderr
    assert "clock-1" in done.stdout


def test_a_mistyped_code_is_noticed_without_any_connection(make_box: MakeBox) -> None:
    done = make_box("typo").enrol("https://127.0.0.1:1", "ABCD-EFGH")
    assert (done.returncode, "type it again" in done.stderr) == (2, True)
    done = make_box("plain").enrol("http://127.0.0.1:1", codes.make(bytes(10)).text)
    assert (done.returncode, "https://" in done.stderr) == (2, True)


def test_without_the_ca_daemon_nobody_enrols_and_the_code_stays_good(centre: Centre, make_box: MakeBox) -> None:
    code, box = centre.code("patient-1"), make_box("patient")
    centre.kill("ca")
    done = box.enrol(centre.url, code)
    assert (done.returncode, "try again" in done.stderr) == (3, True)
    asked_for = (box.identity / "next.key").read_bytes()  # on disk before it was sent: an answer may be lost
    centre.start("ca")
    centre.wait(lambda: box.enrol(centre.url, code).returncode == 0)
    assert (box.identity / "identity.pem").read_bytes().endswith(asked_for)
    assert not (box.identity / "next.key").exists()
