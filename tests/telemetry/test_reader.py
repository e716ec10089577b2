"""Lines are neither lost nor repeated, however the file grows, rolls or is cut."""

from __future__ import annotations

import random
from pathlib import Path

from sekisho.appliance.core.journal import JournalWriter
from sekisho.telemetry.reader import CHUNK_BYTES, Position, Tail

CAP = 64 << 10


class Reader:
    """A tail whose position survives it, as the spool's does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[bytes] = []
        self.too_long = 0
        self.saved: Position | None = None
        self.tail = Tail(path, None, CAP)

    def drain(self) -> list[bytes]:
        """Everything there is now; returns the new lines."""
        before = len(self.lines)
        while chunk := self.tail.read():
            self.lines += chunk.lines
            self.too_long += chunk.too_long
            self.saved = chunk.position
            self.tail.step(chunk)
            if chunk.remove:
                self.tail.remove_rolled()
        return self.lines[before:]

    def restart(self) -> None:
        self.tail.close()
        self.tail = Tail(self.path, self.saved, CAP)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as out:
        out.write(data)


def test_a_line_without_its_newline_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    reader = Reader(path)
    assert reader.drain() == []
    append(path, b"one\ntw")
    assert reader.drain() == [b"one"]
    append(path, b"o\n")
    assert reader.drain() == [b"two"]


def test_byte_by_byte_is_the_same_as_whole(tmp_path: Path) -> None:
    data = b"a\n\nbb\n" + b"L" * (CAP + 5) + b"\nccc\n" + b"x" * CAP + b"\nend\n"
    whole, slow = Reader(tmp_path / "whole"), Reader(tmp_path / "slow")
    append(whole.path, data)
    whole.drain()
    dice = random.Random(1)
    at = 0
    while at < len(data):
        step = dice.choice([1, 2, 3, 4000])
        append(slow.path, data[at : at + step])
        at += step
        slow.drain()
        if dice.random() < 0.2:
            slow.restart()
    assert whole.lines == slow.lines == [b"a", b"bb", b"ccc", b"x" * CAP, b"end"]
    assert whole.too_long == 1 and slow.too_long >= 1


def test_a_line_far_beyond_the_cap_is_passed_over_and_counted_once(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "eve.json")
    append(reader.path, b"ok\n" + b"x" * (3 * CHUNK_BYTES))
    assert reader.drain() == [b"ok"]
    append(reader.path, b"x" * CHUNK_BYTES + b"\nafter\n")
    assert reader.drain() == [b"after"]
    assert reader.too_long == 1


def test_a_restart_goes_on_where_the_last_durable_position_was(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "eve.json")
    append(reader.path, b"one\ntwo\n")
    reader.drain()
    append(reader.path, b"three\n")
    chunk = reader.tail.read()
    assert chunk and chunk.lines == [b"three"]
    reader.restart()
    assert reader.drain() == [b"three"]


def test_a_renamed_file_is_read_to_its_end_then_removed(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    rolled = tmp_path / "eve.json.1"
    reader = Reader(path)
    append(path, b"one\n")
    reader.drain()
    path.rename(rolled)
    append(rolled, b"two\n")
    assert reader.drain() == [b"two"]
    assert rolled.exists(), "the writer may still have it open: the new file does not exist yet"
    append(rolled, b"three\n")
    append(path, b"four\n")
    assert reader.drain() == [b"three", b"four"]
    assert not rolled.exists()


def test_a_roll_while_nobody_reads_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    reader = Reader(path)
    append(path, b"one\n")
    reader.drain()
    append(path, b"two\n")
    path.rename(tmp_path / "eve.json.1")
    append(path, b"three\n")
    reader.restart()
    assert reader.drain() == [b"two", b"three"]
    assert not (tmp_path / "eve.json.1").exists()


def test_a_rolled_file_found_at_the_very_first_start_is_read_first(tmp_path: Path) -> None:
    append(tmp_path / "eve.json.1", b"one\n")
    append(tmp_path / "eve.json", b"two\n")
    reader = Reader(tmp_path / "eve.json")
    assert reader.drain() == [b"one", b"two"]


def test_a_kill_between_commit_and_removal_does_not_read_the_rolled_file_again(tmp_path: Path) -> None:
    path, rolled = tmp_path / "eve.json", tmp_path / "eve.json.1"
    append(rolled, b"one\n")
    append(path, b"two\n")
    reader = Reader(path)
    lines = []
    while chunk := reader.tail.read():
        lines += chunk.lines
        reader.saved = chunk.position
        if chunk.remove:
            break
        reader.tail.step(chunk)
    reader.restart()
    assert lines + reader.drain() == [b"one", b"two"]
    assert not rolled.exists()


def test_a_truncated_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "eve.json")
    append(reader.path, b"a long first line\n")
    reader.drain()
    reader.path.write_bytes(b"new\n")
    assert reader.drain() == [b"new"]


def test_the_same_inode_with_other_content_is_not_taken_for_the_old_file(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "eve.json")
    append(reader.path, b"before the reboot\n")
    reader.drain()
    reader.tail.close()
    reader.path.write_bytes(b"after the reboot, and longer than it was before\n")
    reader.restart()
    assert reader.drain() == [b"after the reboot, and longer than it was before"]


def test_a_replaced_file_without_a_rolled_one_is_followed(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "eve.json")
    append(reader.path, b"one\n")
    reader.drain()
    append(tmp_path / "other", b"two\n")
    (tmp_path / "other").rename(reader.path)
    assert reader.drain() == [b"two"]


def test_a_link_or_a_directory_is_not_followed(tmp_path: Path) -> None:
    append(tmp_path / "secret", b"secret\n")
    (tmp_path / "eve.json").symlink_to(tmp_path / "secret")
    (tmp_path / "dir.json").mkdir()
    assert Reader(tmp_path / "eve.json").drain() == []
    assert Reader(tmp_path / "dir.json").drain() == []


def test_a_rolling_journal_is_read_whole_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "inspect.jsonl"
    writer = JournalWriter(path, roll_bytes=500)
    reader = Reader(path)
    dice = random.Random(3)
    expected = [b"line %d" % number for number in range(2000)]
    for line in expected:
        writer.append(line)
        if dice.random() < 0.1:
            reader.drain()
        if dice.random() < 0.02:
            reader.restart()
    reader.drain()
    writer.close()
    assert reader.lines == expected


def test_a_rolled_file_stays_until_what_it_held_is_durable(tmp_path: Path) -> None:
    path, rolled = tmp_path / "eve.json", tmp_path / "eve.json.1"
    append(rolled, b"one\n")
    append(path, b"two\n")
    tail = Tail(path, None, CAP)
    lines = []
    while chunk := tail.read():
        lines += chunk.lines
        tail.step(chunk)
    assert lines == [b"one", b"two"]
    assert rolled.exists()
    tail.remove_rolled()
    assert not rolled.exists()
