"""FTP with vsftpd and curl: every way to open a data connection, resumed downloads, uploads."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4, SERVER6
from sekisho.lab.samples import EICAR, SIZES, clean, malicious
from sekisho.telemetry.events import FileVerdict

pytestmark = [pytest.mark.lab, pytest.mark.timeout(90)]

WAYS = {
    "epsv": (SERVER4, []), "pasv": (SERVER4, ["--disable-epsv"]), "eprt": (SERVER4, ["-P", "-"]),
    "port": (SERVER4, ["-P", "-", "--disable-eprt"]), "epsv6": (f"[{SERVER6}]", []),
    "eprt6": (f"[{SERVER6}]", ["-P", "-"]),
}  # fmt: skip


FETCH_TWICE = """
import socket, sys, time
host, port, pause, *paths = sys.argv[1:]
control = socket.create_connection((host, 21))
said = control.makefile("rb")
def ask(order=None):
    if order:
        control.sendall(order.encode() + b"\\r\\n")
    while (line := said.readline())[3:4] != b" ":
        pass
    return line
for order in (None, "USER anonymous", "PASS a@b", "TYPE I"):
    ask(order)
own = control.getsockname()[0]
for number, path in enumerate(paths):
    time.sleep(float(pause) * number)
    with socket.create_server((own, int(port)), family=control.family) as listening:
        ask(f"EPRT |{2 if ':' in own else 1}|{own}|{port}|")
        begun = ask(f"RETR {path}")
        data, _ = listening.accept()
    got, whole = b"", 1
    with data:
        try:
            while more := data.recv(65536):
                got += more
        except ConnectionResetError:
            whole = 0
    ask()
    print(whole, len(got), int(b"EICAR" in got))
"""


def curl(lab: Lab, *argv: str) -> subprocess.CompletedProcess[bytes]:
    return lab.run("lan", ["curl", "-gs", "--max-time", "30", *argv], timeout_s=60)


def told(lab: Lab, outcome: str) -> list[FileVerdict]:
    events = (row.event for row in lab.events())
    return [e for e in events if isinstance(e, FileVerdict) and e.app == "ftp-data" and e.outcome == outcome]


def blocked(lab: Lab) -> list[FileVerdict]:
    return told(lab, "blocked")


def content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


@pytest.mark.parametrize("way", WAYS)
def test_whichever_way_the_data_connection_is_made_it_is_looked_at(lab: Lab, tmp_path: Path, way: str) -> None:
    host, how = WAYS[way]
    before, whole = len(blocked(lab)), len(told(lab, "clean"))
    for size in ("1k", "300k"):
        good = curl(lab, *how, "-o", str(tmp_path / "good"), f"ftp://{host}/clean/{size}.bin")
        assert (good.returncode, content(tmp_path / "good")) == (0, clean(SIZES[size])), (size, good.returncode)
        bad = curl(lab, *how, "-o", str(tmp_path / "bad"), f"ftp://{host}/bad/{size}.bin")
        assert bad.returncode != 0 and EICAR not in content(tmp_path / "bad")
        assert len(content(tmp_path / "bad")) < SIZES[size]
    lab.wait(lambda: len(blocked(lab)) == before + 2, "the centre was not told of both", 20)
    both = [(1_000, "1k.bin"), (300_000, "300k.bin")]
    assert sorted((event.size, event.file_name) for event in blocked(lab)[before:]) == both
    lab.wait(lambda: len(told(lab, "clean")) >= whole + 2, "the centre was not told of the clean ones", 20)
    clean_ones = told(lab, "clean")[whole:]
    assert sorted((event.size, event.file_name) for event in clean_ones) == both
    assert [event.reason for event in clean_ones] == ["", ""], "told by what was seen, not by the engine's copy later"


def test_a_download_that_is_resumed_is_looked_at(lab: Lab, tmp_path: Path) -> None:
    for kind, whole in (("clean", clean(SIZES["300k"])), ("bad", malicious(SIZES["300k"]))):
        part = tmp_path / kind
        part.write_bytes(whole[:200_000])
        done = curl(lab, "-C", "-", "-o", str(part), f"ftp://{SERVER4}/{kind}/300k.bin")
        assert (done.returncode == 0) == (kind == "clean")
        assert (content(part) == whole) == (kind == "clean") and EICAR not in content(part)


@pytest.mark.parametrize("host", [SERVER4, f"[{SERVER6}]"])
def test_an_upload_is_looked_at(lab: Lab, tmp_path: Path, host: str) -> None:
    where = "v6" if host.startswith("[") else "v4"
    for kind, data in (("clean", clean(SIZES["300k"])), ("bad", malicious(SIZES["300k"]))):
        (tmp_path / kind).write_bytes(data)
        name = f"up-{where}-{kind}.bin"
        done = curl(lab, "-T", str(tmp_path / kind), f"ftp://{host}/incoming/{name}")
        assert (done.returncode == 0) == (kind == "clean"), done.returncode
        assert EICAR not in content(lab.lay.ftp_incoming / name)
    assert content(lab.lay.ftp_incoming / f"up-{where}-clean.bin") == clean(SIZES["300k"])
    named = f"up-{where}-bad.bin"
    lab.wait(lambda: named in [event.file_name for event in blocked(lab)], "the centre was not told which", 20)


def test_lftp_mirrors_the_clean_files_and_never_gets_the_malicious(lab: Lab, tmp_path: Path) -> None:
    commands = f"set net:max-retries 1; set net:timeout 5; mirror --parallel=3 -x 20m /clean {tmp_path}/clean; quit"
    lab.run("lan", ["lftp", "-e", commands, f"ftp://{SERVER4}"], timeout_s=60)
    for size in ("1k", "300k", "1m"):
        assert content(tmp_path / "clean" / f"{size}.bin") == clean(SIZES[size])
    lab.run("lan", ["lftp", "-e", commands.replace("clean", "bad"), f"ftp://{SERVER4}"], timeout_s=80)
    assert not [path for path in (tmp_path / "bad").rglob("*") if path.is_file() and EICAR in content(path)]


@pytest.mark.parametrize("pause", ["0.2", "1.2"])
def test_the_same_ports_again_carry_another_file_with_a_verdict_of_its_own(lab: Lab, pause: str) -> None:
    """A busy client takes a port again after a second, and then numbers its bytes from close behind the former ones."""
    fetched = {"clean": "1 300000 0", "bad": "0"}
    for number, (host, first, second) in enumerate(itertools.product((SERVER4, SERVER6), fetched, fetched)):
        ends = [host, str(41_000 + number + int(float(pause) * 1000)), pause]
        paths = [f"{kind}/300k.bin" for kind in (first, second)]
        done = lab.run("lan", [sys.executable, "-c", FETCH_TWICE, *ends, *paths])
        lines = done.stdout.decode().splitlines()
        print(host, first, second, lines, done.stderr.decode()[-200:])
        assert len(lines) == 2
        for kind, line in zip((first, second), lines, strict=True):
            assert line.startswith(fetched[kind]) and line.endswith(" 0"), (host, first, second, lines)
