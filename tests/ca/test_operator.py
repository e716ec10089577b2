"""The operator's commands, as people see them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from sekisho.appliance import cli

if TYPE_CHECKING:
    from tests.ca.conftest import Centre


@pytest.fixture
def centre(tmp_path: Path, make_centre: Callable[[Path], Centre]) -> Centre:
    """Not running: these commands need the database and the CA's directory only."""
    return make_centre(tmp_path)


@pytest.fixture
def say(centre: Centre, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*argv: str) -> tuple[int, str]:
        code = cli.main(["center", *argv, "--settings", str(centre.settings)])
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


Say = Callable[..., tuple[int, str]]


def test_a_code_is_shown_with_what_it_is_for(say: Say) -> None:
    code, told = say("enrol-code", "--box", "tokyo-1", "--tenant", "chamber", "--valid", "12h")
    assert code == 0
    assert [len(part) for part in told.splitlines()[0].split("-")] == [4] * 7 + [5]
    assert told.splitlines()[1].startswith("for tokyo-1 of chamber, once, until 2")


def test_wrong_names_spans_and_owners_are_refused(say: Say) -> None:
    assert say("enrol-code", "--box", "a/b", "--tenant", "t")[0] == 2
    assert say("enrol-code", "--box", "a", "--tenant", "+")[0] == 2
    assert say("enrol-code", "--box", "a", "--tenant", "t1")[0] == 0
    code, told = say("enrol-code", "--box", "a", "--tenant", "t2")
    assert (code, "belongs to t1" in told) == (2, True)
    with pytest.raises(SystemExit):
        say("enrol-code", "--box", "a", "--tenant", "t1", "--valid", "soon")


def test_a_box_cannot_have_the_name_of_a_service_of_the_centre(say: Say, centre: Centre) -> None:
    text = centre.settings.read_text()
    lists = '[immunity]\ncert = "a"\nkey = "b"\nlists_cert = "c"\nlists_key = "d"\nclient = "lists"\n'
    centre.settings.write_text(text.replace("[broker]", '[broker]\nclient = "hub"') + lists)
    for name in ("center", "center-2", "immunity", "broker", "hub", "hub-3", "lists"):
        code, told = say("enrol-code", "--box", name, "--tenant", "t")
        assert (code, "services" in told) == (2, True), name
    assert say("enrol-code", "--box", "center-tokyo", "--tenant", "t")[0] == 0


def test_certificates_of_the_centres_services_come_from_its_authority(say: Say, centre: Centre) -> None:
    before = centre.ca.read_bytes()
    assert say("authority") == (0, f"ca: {centre.ca}\n")
    assert centre.ca.read_bytes() == before
    code, told = say("authority", "--issue", "mq", "--host", "mq.example.jp", "--host", "192.0.2.1")
    files = dict(line.split(": ") for line in told.splitlines())
    cert = x509.load_pem_x509_certificate(Path(files["cert"]).read_bytes())
    cert.verify_directly_issued_by(x509.load_pem_x509_certificate(before))
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert (code, [str(name.value) for name in names]) == (0, ["mq.example.jp", "192.0.2.1"])
    assert Path(files["key"]).stat().st_mode & 0o777 == 0o600


def test_a_node_of_a_cluster_serves_and_calls(say: Say) -> None:
    _code, told = say("authority", "--issue", "n1", "--node", "--host", "n1.example.jp")
    files = dict(line.split(": ") for line in told.splitlines())
    cert = x509.load_pem_x509_certificate(Path(files["cert"]).read_bytes())
    usages = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_without_a_database_there_is_nothing_to_search(say: Say) -> None:
    assert say("certificates")[0] == 3
    assert say("attempts")[0] == 3


def test_revoking_says_how_many_and_whom_nobody_knows(say: Say) -> None:
    say("enrol-code", "--box", "a", "--tenant", "t1")
    assert say("revoke", "--box", "a", "--why", "contract ended") == (0, "a: 0 certificates revoked.\n")
    code, told = say("revoke", "--box", "b", "--why", "stolen")
    assert (code, "No box is called b" in told) == (2, True)
    assert say("certificates", "--box", "a") == (0, "")
