"""SMB 3 with Samba and smbclient: what is read and what is written, in clear text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4
from sekisho.lab.samples import EICAR, SIZES, clean, malicious
from sekisho.telemetry.events import FileVerdict

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

SMBD = """\
[global]
  server role = standalone server
  map to guest = Bad User
  guest account = root
  smb ports = 445
  disable netbios = yes
  load printers = no
  server min protocol = SMB2
  log file = {at}/smbd.log
  lock directory = {at}
  state directory = {at}
  cache directory = {at}
  pid directory = {at}
  private dir = {at}/private
  ncalrpc dir = {at}/ncalrpc
[files]
  path = {at}/files
  guest ok = yes
  read only = no
"""
EACH = ["1k", "300k", pytest.param("20m", marks=pytest.mark.full)]
Serve = Callable[[list[str], int], None]


@pytest.fixture(scope="module")
def share(lab: Lab, serve: Serve) -> Path:
    at = lab.lay.wan / "smb"
    for folder in ("private", "ncalrpc", "files"):
        (at / folder).mkdir(parents=True)
    for name, size in SIZES.items():
        (at / "files" / f"clean-{name}.bin").write_bytes(clean(size))
        (at / "files" / f"bad-{name}.bin").write_bytes(malicious(size))
    (at / "smb.conf").write_text(SMBD.format(at=at))
    serve(["smbd", "-F", "-s", f"{at}/smb.conf"], 445)
    return at / "files"


def smb(lab: Lab, *commands: str) -> int:
    argv = ["smbclient", f"//{SERVER4}/files", "-N", "-t", "120", "-c", "; ".join(commands)]
    return lab.run("lan", argv, timeout_s=150).returncode


def told(lab: Lab, outcome: str) -> list[FileVerdict]:
    events = (row.event for row in lab.events())
    return [e for e in events if isinstance(e, FileVerdict) and e.app == "smb" and e.outcome == outcome]


def content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


@pytest.mark.parametrize("size", EACH)
def test_of_what_is_read_the_clean_arrives_and_the_malicious_never(
    lab: Lab, share: Path, tmp_path: Path, size: str
) -> None:
    before = len(told(lab, "blocked"))
    assert smb(lab, f"lcd {tmp_path}", f"get clean-{size}.bin") == 0
    assert content(tmp_path / f"clean-{size}.bin") == clean(SIZES[size])
    smb(lab, f"lcd {tmp_path}", f"get bad-{size}.bin")
    got = content(tmp_path / f"bad-{size}.bin")
    assert EICAR not in got and got != malicious(SIZES[size])
    lab.wait(lambda: len(told(lab, "blocked")) == before + 1, "the centre was not told once", 20)
    assert told(lab, "blocked")[-1].file_name == f"bad-{size}.bin"
    whole = hashlib.sha256(clean(SIZES[size])).hexdigest()
    lab.wait(lambda: whole in {event.sha256 for event in told(lab, "clean")}, "the clean one was not told", 20)


@pytest.mark.parametrize("size", EACH)
def test_of_what_is_written_the_clean_arrives_and_the_malicious_never(
    lab: Lab, share: Path, tmp_path: Path, size: str
) -> None:
    before = len(told(lab, "blocked"))
    for kind, data in (("clean", clean(SIZES[size])), ("bad", malicious(SIZES[size]))):
        (tmp_path / f"{kind}.up").write_bytes(data)
        code = smb(lab, f"lcd {tmp_path}", f"put {kind}.up up-{kind}-{size}.bin")
        assert (code == 0) == (kind == "clean"), (kind, code)
    assert content(share / f"up-clean-{size}.bin") == clean(SIZES[size])
    assert EICAR not in content(share / f"up-bad-{size}.bin")
    lab.wait(lambda: len(told(lab, "blocked")) == before + 1, "the centre was not told once", 20)
    assert told(lab, "blocked")[-1].file_name == f"up-bad-{size}.bin"


def test_the_third_file_of_a_session_is_looked_at_too(lab: Lab, share: Path, tmp_path: Path) -> None:
    files = ["clean-1k.bin", "clean-300k.bin", "bad-300k.bin", "clean-1m.bin"]
    smb(lab, f"lcd {tmp_path}", "ls", *(f"get {name}" for name in files))
    assert content(tmp_path / files[0]) == clean(1000) and content(tmp_path / files[1]) == clean(300_000)
    assert EICAR not in content(tmp_path / files[2])
