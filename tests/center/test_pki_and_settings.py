"""Certificates that other programs accept, a broker configuration Mosquitto loads, settings that are strict."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import pki, settings

GOOD = '[broker]\nhost = "h"\nca = "a"\ncert = "b"\nkey = "c"\n'


def test_a_certificate_verifies_against_its_ca_and_keys_are_private(tmp_path: Path) -> None:
    pki.create_ca(tmp_path)
    made = pki.issue(tmp_path, "broker", "server", ("127.0.0.1", "fd77::1", "broker.example"))
    ca = x509.load_pem_x509_certificate(made.ca.read_bytes())
    cert = x509.load_pem_x509_certificate(made.cert.read_bytes())
    cert.verify_directly_issued_by(ca)
    assert cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "broker"
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["127.0.0.1", "fd77::1", "broker.example"]
    assert [path.stat().st_mode & 0o777 for path in (made.key, tmp_path / "ca.key")] == [0o600, 0o600]
    ssl.create_default_context(cafile=str(made.ca)).load_cert_chain(made.cert, made.key)


def test_a_ca_that_is_there_is_kept(tmp_path: Path) -> None:
    first = pki.create_ca(tmp_path).read_bytes()
    assert pki.create_ca(tmp_path).read_bytes() == first


@pytest.mark.parametrize("cn", ["", "+", "a/b", "#", "../x", "x" * 65, "a\nb"])
def test_a_name_that_is_no_topic_level_gets_no_certificate(tmp_path: Path, cn: str) -> None:
    pki.create_ca(tmp_path)
    with pytest.raises(RejectedInput):
        pki.issue(tmp_path, cn)


def test_without_a_sound_ca_nothing_is_issued(tmp_path: Path) -> None:
    with pytest.raises(RejectedInput):
        pki.issue(tmp_path, "box")
    (tmp_path / "ca.crt").write_text("x")
    (tmp_path / "ca.key").write_text("y")
    with pytest.raises(RejectedInput):
        pki.issue(tmp_path, "box")


def test_settings_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "center.toml"
    path.write_text(GOOD)
    assert settings.load(path).broker.port == 8883
    for bad in (
        "",
        "x",
        GOOD + 'color = "red"\n',
        GOOD.replace('"h"', "5"),
        GOOD + "port = 0\n",
        GOOD + "# " + "x" * 70_000,
    ):
        path.write_text(bad)
        with pytest.raises(RejectedInput, match=r"center\.toml"):
            settings.load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(RejectedInput):
        settings.load(path)
    with pytest.raises(RejectedInput):
        settings.load(tmp_path / "none.toml")


def test_openssl_accepts_the_chain(tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    pki.create_ca(tmp_path)
    made = pki.issue(tmp_path, "box-1")
    argv = ["openssl", "verify", "-purpose", "sslclient", "-x509_strict", "-CAfile", str(made.ca), str(made.cert)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
