"""What the engine wrote to its log is found there, whatever became of the datagram."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sekisho.inspect import eve


def line(number: int) -> bytes:
    info = {"filename": "/a", "state": "CLOSED", "stored": True, "sha256": f"{number:064x}", "size": 3}
    event = {"src_ip": "10.0.0.1", "src_port": 80, "dest_ip": "10.0.0.2", "dest_port": number, "fileinfo": info}
    return msgspec.json.encode(event) + b"\n"


def numbers(follower: eve.Follower) -> list[int]:
    return [int(file.sha256, 16) for file in follower.files()]


def test_only_lines_after_the_start_are_followed(tmp_path: Path) -> None:
    log = tmp_path / "files.json"
    log.write_bytes(line(1))
    follower = eve.Follower(log)
    with log.open("ab") as out:
        out.write(line(2) + line(3)[:20])
    assert numbers(follower) == [2]
    with log.open("ab") as out:
        out.write(line(3)[20:])
    assert numbers(follower) == [3]
    assert numbers(follower) == []


def test_a_log_that_appears_later_or_is_rolled_loses_nothing(tmp_path: Path) -> None:
    log = tmp_path / "files.json"
    follower = eve.Follower(log)
    assert numbers(follower) == []
    log.write_bytes(line(1))
    assert numbers(follower) == [1]
    with log.open("ab") as out:
        out.write(line(2))
    log.rename(tmp_path / "files.json.1")
    log.write_bytes(line(3))
    assert numbers(follower) == [2]
    assert numbers(follower) == [3]


def test_a_line_without_an_end_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "files.json"
    log.write_bytes(b"")
    follower = eve.Follower(log)
    with log.open("ab") as out:
        out.write(b"x" * (3 * eve.MAX_READ) + b"\n" + line(4))
    seen: list[int] = []
    for _ in range(6):
        seen += numbers(follower)
    assert seen == [4]
