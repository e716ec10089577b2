"""Fileinfo lines: any bytes give a file or nothing; after a restart the rolled log counts too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.inspect import eve

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["fileinfo", "src_ip", "http"]), inner),
    max_leaves=12,
)


def line(number: int = 0, **info: object) -> bytes:
    fields = {"filename": "/a/b.exe?x=1", "state": "CLOSED", "stored": True, "sha256": f"{number:064x}", "size": 3}
    event = {"src_ip": "192.0.2.1", "dest_ip": "10.0.0.1", "src_port": 80, "dest_port": 4000, "app_proto": "http"}
    return json.dumps(event | {"fileinfo": fields | info}).encode()


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_file_or_nothing(data: bytes) -> None:
    assert eve.parse(data) is None or isinstance(eve.parse(data), eve.File)


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_any_json_is_a_file_or_nothing(value: object) -> None:
    data = json.dumps(value).encode()
    assert eve.parse(data) is None or isinstance(eve.parse(data), eve.File)


@pytest.mark.parametrize(
    "bad",
    [
        line()[:-5],
        b"\xff" + line(),
        b"[" * 60_000,
        line() + b" " * eve.MAX_LINE,
        line(sha256="../../../etc/passwd"),
        line(sha256="x/" * 32),
        line(size="many"),
    ],
)
def test_a_line_that_is_not_sound_is_passed_over(bad: bytes) -> None:
    assert eve.parse(bad) is None


def alert(**ftp_data: object) -> bytes:
    ends = {"src_ip": "2001:0db8:0:0::1", "src_port": 20, "dest_ip": "fd77::2", "dest_port": 4000}
    return json.dumps({"event_type": "alert", **ends, "ftp_data": ftp_data}).encode()


def test_the_alert_of_a_data_connection_tells_what_it_carries() -> None:
    ends = frozenset({("2001:db8::1", 20), ("fd77::2", 4000)})
    assert eve.parse_name(alert(filename="/pub/a.exe", command="RETR")) == eve.Name(ends, "a.exe")
    other = [
        alert(),
        alert(filename=3),
        alert(filename="pub/"),
        line(filename='"ftp_data"'),
        alert()[:-1],
        b'"ftp_data"',
    ]
    assert [eve.parse_name(each) for each in other] == [None] * len(other)
    assert eve.parse(alert(filename="/pub/a.exe")) is None, "it is no file"


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps({"ftp_data": value}).encode()))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_name_or_nothing(data: bytes) -> None:
    assert eve.parse_name(data) is None or isinstance(eve.parse_name(data), eve.Name)


def test_a_sound_line_tells_the_file() -> None:
    file = eve.parse(line(7))
    assert file is not None
    assert (file.state, file.stored, file.size, file.sha256) == ("CLOSED", True, 3, f"{7:064x}")
    assert (file.meta.file_name, file.meta.src_port, file.meta.app) == ("b.exe", 80, "http")


def test_missed_reads_the_rolled_log_before_the_current_one(tmp_path: Path) -> None:
    log = tmp_path / "files.json"
    log.with_name("files.json.1").write_bytes(line(1) + b"\n" + line(2) + b"\n")
    log.write_bytes(line(3) + b"\n" + line(4)[:20])
    told = {(f"{2:064x}", "192.0.2.1", 80, "10.0.0.1", 4000)}
    found = [int(file.sha256, 16) for file in eve.missed(log, told, cap_bytes=1 << 20)]
    assert found == [1, 3]
    log.unlink()
    assert [int(f.sha256, 16) for f in eve.missed(log, told, cap_bytes=1 << 20)] == [1]


def test_missed_reads_no_more_than_its_cap(tmp_path: Path) -> None:
    log = tmp_path / "files.json"
    size = len(line(0)) + 1
    log.with_name("files.json.1").write_bytes(b"".join(line(n) + b"\n" for n in range(50)))
    log.write_bytes(b"".join(line(n) + b"\n" for n in range(50, 100)))
    found = [int(file.sha256, 16) for file in eve.missed(log, set(), cap_bytes=60 * size)]
    assert found == list(range(40, 100))


def test_no_log_means_nothing_was_missed(tmp_path: Path) -> None:
    assert eve.missed(tmp_path / "files.json", set(), cap_bytes=1000) == []
