"""The page's process as its unit runs it: nobody special, no powers; and the commands of whoever stands before it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from pagebox import PASSWORD, Box, Browser

from sekisho.portal_agent.certificate import Note, ensure, fingerprint, make, note_file
from sekisho.portal_agent.password import Password
from sekisho.portal_agent.record import ROLL_BYTES, Record
from sekisho.portal_agent.shown import attachment, shown

NOBODY = 65534


def command(box: Box, *argv: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-I", "-m", "sekisho.appliance.cli", "local-page", *argv]
    return subprocess.run(
        [*program, "--settings", str(box.settings_file)], input=typed, capture_output=True, text=True, check=False
    )


@pytest.fixture
def nobodys(desks: Box) -> Iterator[Box]:
    """The page run by a user who is nobody and may nothing; its certificate was made before, because a virtual
    environment under a private home starts no children as another user.
    """
    box = desks
    box.page.close()
    box.office.password.change(PASSWORD)
    for folder in (box.settings.page_state, box.settings.page_run):
        for path in (folder, *folder.iterdir()):
            os.chown(path, NOBODY, NOBODY)
    for path in (box.settings.run, *box.settings.run.rglob("*.sock")):
        path.chmod(0o777)
    for parent in (box.folder, *list(box.folder.parents)[:2]):
        parent.chmod(parent.stat().st_mode | 0o055)
    argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
    argv += ["--bounding-set=-all", "--no-new-privs", sys.executable, "-I", "-m", "sekisho.portal_agent.daemon"]
    log = (box.folder / "log").open("wb")
    page = subprocess.Popen([*argv, "--settings", str(box.settings_file)], stderr=log)
    try:
        assert box.wait(box.listens, 30), (box.folder / "log").read_text()
        yield box
        page.send_signal(signal.SIGTERM)
        assert page.wait(15) == 0
    finally:
        page.kill()
        page.wait()
        log.close()


def test_nobody_with_no_powers_serves_every_page(nobodys: Box) -> None:
    nobodys.inspecting()
    visitor = Browser(nobodys)
    with visitor.client:
        assert visitor.sign_in().status_code == 303
        for path in ("/", "/devices", "/care"):
            assert visitor.get(path).status_code == 200, path
        # The counters serve the page's own user, root and their daemon: nobody is none of them.
        assert visitor.get("/quarantine").status_code == 503 and visitor.get("/sent").status_code == 503
    for kept in nobodys.settings.page_state.iterdir():
        assert kept.stat().st_mode & 0o077 == 0, kept


def test_a_box_without_an_address_has_no_page_and_the_daemon_waits(tmp_path: Path) -> None:
    path = tmp_path / "box.toml"
    path.write_text(f'box = "b"\n[paths]\nrun = "{tmp_path}/run"\nstate = "{tmp_path}/state"\n')
    argv = [sys.executable, "-I", "-m", "sekisho.portal_agent.daemon", "--settings", str(path)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        daemon = subprocess.Popen(argv, stderr=subprocess.PIPE, env=environment)
        told = manager.recv(100)
    try:
        assert told == b"READY=1"
        daemon.send_signal(signal.SIGTERM)
        _, said = daemon.communicate(timeout=15)
        assert daemon.returncode == 0 and b"no page" in said
    finally:
        daemon.kill()
        daemon.communicate()


def test_the_label_tells_the_first_password_until_it_is_changed(box: Box) -> None:
    told = json.loads(command(box, "label", "--json").stdout)
    assert told["addresses"] == [f"{box.origin}/"] and told["fingerprint"] == box.office.fingerprint
    assert box.office.password.is_right(told["password"]) and len(told["password"]) == 14
    assert (box.settings.page_state / "label").stat().st_mode & 0o077 == 0
    assert command(box, "password", typed="short\n").returncode == 2
    assert box.office.password.is_right(told["password"])
    assert command(box, "password", typed="a better password\n").returncode == 0
    assert box.office.password.is_right("a better password") and not box.office.password.is_right(told["password"])
    assert json.loads(command(box, "label", "--json").stdout)["password"] == ""


def test_what_root_wrote_belongs_to_the_pages_user(box: Box) -> None:
    for path in (box.settings.page_state, *box.settings.page_state.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    assert command(box, "password", typed="a better password\n").returncode == 0
    assert {path.stat().st_uid for path in box.settings.page_state.iterdir()} == {NOBODY}


def test_a_password_that_cannot_be_read_opens_nothing(box: Box) -> None:
    file = box.settings.page_state / "password.json"
    for content in (b"", b"{", b'{"hash": ""}', b'{"hash": "$argon2id$v=19$m=1,t=1,p=1$AA$AA"}', b"\xff"):
        file.write_bytes(content)
        assert not box.office.password.is_right("") and not box.office.password.is_right("x")
    file.unlink()
    assert not box.office.password.is_right("")


def test_a_first_password_is_made_once_and_never_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    labels = []
    for folder in (first, second, first):
        folder.mkdir(exist_ok=True)
        password = Password(folder)
        password.ensure()
        labels.append(password.label())
    assert labels[0] == labels[2] != labels[1]


def test_the_certificate_is_kept_until_addresses_change_or_its_end_nears_and_the_key_stays(tmp_path: Path) -> None:
    path = tmp_path / "page.pem"
    make(path, ["192.168.1.2"], 0.0)
    first = fingerprint(path)
    assert len(first) == 32 * 3 - 1 and path.stat().st_mode & 0o077 == 0
    ensure(path, ["192.168.1.2"])
    assert fingerprint(path) == first
    ensure(path, ["192.168.1.2", "fd00::2"])
    second = fingerprint(path)
    assert second != first
    note_file(path).write_bytes(msgspec.json.encode(Note(["192.168.1.2", "fd00::2"], 1.0)))
    ensure(path, ["192.168.1.2", "fd00::2"])
    assert fingerprint(path) != second
    from cryptography import x509

    made = x509.load_pem_x509_certificate(path.read_bytes())
    assert (made.not_valid_after_utc - made.not_valid_before_utc).days <= 825
    assert fingerprint(tmp_path / "none") == ""


def test_a_clock_that_was_never_set_makes_a_certificate_that_is_good_today(tmp_path: Path) -> None:
    from cryptography import x509

    make(tmp_path / "page.pem", ["192.168.1.2"], 0.0)
    made = x509.load_pem_x509_certificate((tmp_path / "page.pem").read_bytes())
    assert made.not_valid_before_utc.year == 2025 and made.not_valid_after_utc.year == 2028


def test_the_record_is_bounded_and_survives_what_is_damaged(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    for _ in range(2 * ROLL_BYTES // 300):
        record.note("released", "10.0.0.1", "x" * 1000)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size < 2 * ROLL_BYTES + 1000 and len(list(tmp_path.iterdir())) == 2
    (tmp_path / "record.jsonl").write_bytes(b"\xff{\n")
    record.note("signed_in", "10.0.0.2")
    assert (record.newest()[0].deed, record.newest()[1].deed) == ("signed_in", "released")
    assert (tmp_path / "record.jsonl").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a.exe", "a.exe"), ("../../etc/passwd", "passwd"), ("C:\\x\\y.exe", "y.exe"), ("", "ID"), ("...", "ID"),
        ('a";b\r\nX: y', "a__b__X_ y"), ("御見積書.exe", "____.exe"), ("\u202egpj.exe", "_gpj.exe"), ("/", "ID"),
    ],
)  # fmt: skip
def test_a_file_is_saved_under_a_harmless_name(name: str, plain: str) -> None:
    assert attachment(name, "ID").startswith(f'attachment; filename="{plain}.quarantined"; ')


@pytest.mark.parametrize("char", ["\u202e", "\u2066", "\u200b", "\x00", "\x1b", "\n", "\u2028", "\ue000", "\ufeff"])
def test_what_cannot_be_seen_is_shown(char: str) -> None:
    assert shown(f"a{char}b") == "a\ufffdb"


def test_what_is_long_is_cut() -> None:
    assert shown("x" * 65536, 10) == "x" * 9 + "…" and shown("x" * 10, 10) == "x" * 10
