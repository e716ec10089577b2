"""The spool loses nothing to kill, power cut or a full disk, and says so when its cap makes it drop rows."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sekisho.appliance.core.errors import DeviceFault
from sekisho.telemetry import events
from sekisho.telemetry.batches import Row
from sekisho.telemetry.events import Alert, Dns, Event, Gap, Health
from sekisho.telemetry.reader import Chunk, Position, Tail
from sekisho.telemetry.spool import Spool
from sekisho.telemetry.spool_view import SpoolView

MB = 1 << 20
NOW = "2026-01-02T03:04:05.000006Z"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool.open(tmp_path / "spool.db", 64 * MB, NOW)
    yield made
    made.close()


def alert(number: int) -> Alert:
    return Alert(at=NOW, sid=number)


def dns(number: int, pad: int = 0) -> Dns:
    return Dns(at=NOW, name=f"n{number}" + "x" * pad)


def rows(spool: Spool) -> list[Row]:
    with closing(SpoolView(spool.path)) as view:
        return [Row(row.seq, row.lane, bytes(row.event)) for row in view.pending()]


def decoded(spool: Spool) -> list[Event]:
    return [events.decode(row.body) for row in rows(spool)]


def chunk(offset: int) -> Chunk:
    return Chunk("eve.json", Position(1, 2, offset, b"h"))


def test_events_and_their_position_survive_together(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool.db", MB, NOW)
    spool.add([alert(1), dns(2)], chunk(77))
    epoch = spool.epoch
    spool.close()
    again = Spool.open(tmp_path / "spool.db", MB, NOW)
    assert decoded(again) == [alert(1), dns(2)]
    assert again.position("eve.json") == Position(1, 2, 77, b"h")
    assert again.position("other") is None
    assert again.epoch == epoch and again.next_seq() == 3
    again.close()


@pytest.mark.protocol("P7")
def test_numbers_are_never_used_again(spool: Spool) -> None:
    spool.add([alert(1), alert(2)])
    assert spool.acknowledge(2, []) == 2
    spool.add([alert(3)])
    assert [row.seq for row in rows(spool)] == [3]


def test_an_acknowledgement_takes_exactly_what_it_names(spool: Spool) -> None:
    spool.add([alert(1), dns(2), alert(3), dns(4), alert(5)])
    assert spool.acknowledge(1, [(1, 3, 5)]) == 3
    assert [row.seq for row in rows(spool)] == [2, 4]
    assert spool.holds(2, 1, 5) and not spool.holds(1, 1, 5)


def sent(spool: Spool, limit: int | None = None, since_s: int = 0) -> list[int]:
    with closing(SpoolView(spool.path)) as view:
        return [row.seq for row in view.sent(limit, since_s)]


def test_what_was_sent_can_be_seen_packed_or_not_by_number_and_by_time(spool: Spool) -> None:
    for hour in range(5):
        at = f"2026-01-02T0{hour}:00:00.000000Z"
        spool.add([Dns(at=at, name=f"n{number}") for number in range(1000)] + [Alert(at=at, sid=hour)])
    spool.acknowledge(4000, [(1, 4001, 5005), (2, 4500, 4600)])
    for _ in range(5):
        spool.tidy([0, 0, 0], 0.0)
    everything = [*range(1, 4001), 4004, *range(4500, 4601), 5005]
    assert sent(spool) == everything
    assert sent(spool, 10) == everything[-10:] and sent(spool, 0) == []
    assert sent(spool, since_s=int(time.time()) - 60) == everything and sent(spool, since_s=int(time.time()) + 1) == []
    with closing(SpoolView(spool.path)) as view:
        assert events.decode(next(view.sent(1)).event) == Alert(at="2026-01-02T04:00:00.000000Z", sid=4)


def test_history_goes_after_its_time_and_none_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    for keep_hours, kept in ((1, [3]), (0, [])):
        path = tmp_path / f"{keep_hours}.db"
        spool = Spool.open(path, 64 * MB, NOW, keep_hours=keep_hours)
        spool.add([dns(number) for number in range(1, 4)])
        spool.acknowledge(2, [])
        with spool._db:
            spool._db.execute("UPDATE kept SET had_at = had_at - 3601 * (seq % 2) + 3601 * (1 - seq % 2)")
        spool.acknowledge(3, [])
        spool.tidy([0, 0, 0], 0.0)
        assert sent(spool) == ([1, 2, 3] if keep_hours else []), "nobody has said what time it is"
        spool.clocks.confirm(time.time(), time.monotonic())
        spool.tidy([0, 0, 0], 1e6)
        assert sent(spool) == kept
        spool.close()


@pytest.mark.protocol("P20")
def test_at_the_cap_the_oldest_metadata_goes_first_and_is_declared(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool.db", MB, NOW)
    for number in range(0, 1600, 2):
        spool.add([alert(number), dns(number, 1000)])
    kept = decoded(spool)
    assert [event.sid for event in kept if isinstance(event, Alert)] == list(range(0, 1600, 2))
    names = [int(event.name[1:].rstrip("x")) for event in kept if isinstance(event, Dns)]
    assert names == list(range(names[0], 1600, 2)) and names[0] > 0
    assert accounted(spool) == set(range(1, spool.next_seq()))
    spool.close()


def test_far_beyond_the_cap_alerts_and_old_gaps_go_too_and_stay_declared(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool.db", MB, NOW)
    most = 0
    for number in range(200):
        pad = "x" * 400
        events_of_all_lanes = (Alert(at=NOW, sid=number, signature=pad), dns(number, 400), Health(at=NOW, detail=pad))
        for event in events_of_all_lanes:
            spool.add([event] * 10)
        spool.tidy([0, 0, 0], 0.0)
        most = max(most, on_disk(tmp_path))
    assert MB * 3 // 4 < most <= MB
    assert accounted(spool) == set(range(1, spool.next_seq()))
    assert isinstance(decoded(spool)[-1], Health | Gap)
    spool.close()


def on_disk(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir() if path.suffix != ".db-shm")


def accounted(spool: Spool) -> set[int]:
    """Numbers that are in the spool or declared dropped: what the centre would count as not missing."""
    known = set()
    for row in rows(spool):
        known.add(row.seq)
        event = events.decode(row.body)
        if isinstance(event, Gap):
            known.update(number for first, last in event.dropped() for number in range(first, last + 1))
    return known


def test_a_gap_never_covers_a_row_that_is_still_to_be_sent(tmp_path: Path) -> None:
    dice = random.Random(5)
    spool = Spool.open(tmp_path / "spool.db", 300_000, NOW)
    for number in range(400):
        spool.add([alert(number) if dice.random() < 0.5 else dns(number, 900) for _ in range(dice.randrange(1, 9))])
        spool.tidy([0, 0, 0], 0.0)
        if dice.random() < 0.1:
            spool.acknowledge(0, [(1, 1, dice.randrange(1, spool.next_seq()))])
        waiting = {row.seq for row in rows(spool)}
        for row in rows(spool):
            event = events.decode(row.body)
            if isinstance(event, Gap):
                assert not any(waiting & set(range(first, last + 1)) for first, last in event.dropped())
    spool.close()


@pytest.mark.parametrize("damage", ["not a database", "torn page", "empty header"])
def test_a_damaged_spool_is_set_aside_and_a_new_epoch_says_so(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "spool.db"
    spool = Spool.open(path, MB, NOW)
    spool.add([dns(number, 100) for number in range(500)])
    old = spool.epoch
    spool.close()
    data = bytearray(path.read_bytes())
    if damage == "not a database":
        data = bytearray(b"hello" * 1000)
    elif damage == "torn page":
        data[8192:16384] = bytes(8192)
    else:
        data[:100] = bytes(100)
    path.write_bytes(data)
    again = Spool.open(path, MB, NOW)
    assert again.epoch != old
    assert decoded(again) == [
        Health(
            at=NOW,
            stars=2,
            why_stars="findings_lost",
            part="telemetry",
            state="spool_replaced",
            detail="set aside as spool.db.bad-1",
        )
    ]
    assert (tmp_path / "spool.db.bad-1").exists()
    again.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_moves_nothing_and_loses_nothing(small_disk: Path) -> None:
    spool = Spool.open(small_disk / "spool.db", 64 * MB, NOW)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(4 << 20))
    stored = 0
    with pytest.raises(DeviceFault, match="Free space"):
        for stored in range(10_000):
            spool.add([dns(stored, 200)] * 50, chunk(stored + 1))
    assert len(rows(spool)) == stored * 50
    assert spool.position("eve.json") == Position(1, 2, stored, b"h")
    filler.unlink()
    spool.add([dns(stored, 200)] * 50, chunk(stored + 1))
    assert len(rows(spool)) == stored * 50 + 50
    spool.close()


def test_a_disk_filled_by_the_spool_itself_empties_when_the_centre_acknowledges(small_disk: Path) -> None:
    spool = Spool.open(small_disk / "spool.db", 64 * MB, NOW)
    stored = 0
    with pytest.raises(DeviceFault):
        for stored in range(10_000):
            spool.add([dns(stored, 200)] * 100)
    assert spool.acknowledge(stored * 100, []) == stored * 100
    assert rows(spool) == []
    spool.add([dns(1)])
    spool.close()


def test_whatever_part_of_the_last_writes_a_power_cut_takes_commits_stay_whole(tmp_path: Path) -> None:
    path, wal = tmp_path / "spool.db", tmp_path / "spool.db-wal"
    spool = Spool.open(path, MB, NOW)
    durable = [wal.stat().st_size]
    for number in range(1, 13):
        spool.add([alert(number), dns(number)], chunk(number))
        durable.append(wal.stat().st_size)
    cut_dir = tmp_path / "cut"
    for cut in range(durable[0], durable[-1] + 1, 512):
        cut_dir.mkdir()
        shutil.copy(path, cut_dir / "spool.db")
        (cut_dir / "spool.db-wal").write_bytes(wal.read_bytes()[:cut])
        after = Spool.open(cut_dir / "spool.db", MB, NOW)
        position = after.position("eve.json")
        commits = position.offset if position else 0
        assert commits >= max(n for n, size in enumerate(durable) if size <= cut), "a commit that had returned is gone"
        assert len(rows(after)) == 2 * commits, "events and position came apart"
        assert after.epoch == spool.epoch
        after.close()
        shutil.rmtree(cut_dir)
    spool.close()


FEEDER = """
import sys
from pathlib import Path
from sekisho.telemetry.decode import LINE_CAP, decode_journal
from sekisho.telemetry.inventory import Inventory
from sekisho.telemetry.reader import Tail
from sekisho.telemetry.spool import Spool
root = Path(sys.argv[1])
spool = Spool.open(root / "spool.db", 64 << 20, "t")
tail = Tail(root / "a.jsonl", spool.position("a.jsonl"), LINE_CAP)
nobody = Inventory(root / "none")
print("ready", flush=True)
while True:
    if chunk := tail.read():
        spool.add([decode_journal(line, nobody) for line in chunk.lines], chunk)
        tail.step(chunk)
"""


def test_killed_at_any_moment_it_neither_loses_nor_repeats_a_line(tmp_path: Path) -> None:
    dice = random.Random(11)
    source = tmp_path / "a.jsonl"
    number = 0
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-I", "-c", FEEDER, str(tmp_path)], stdout=subprocess.PIPE)
        assert child.stdout and child.stdout.readline() == b"ready\n"
        for _ in range(dice.randrange(1, 120)):
            with source.open("ab") as out:
                for _ in range(dice.randrange(1, 40)):
                    number += 1
                    out.write(events.encode(alert(number)) + b"\n")
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    spool = Spool.open(tmp_path / "spool.db", 64 * MB, NOW)
    tail = Tail(source, spool.position("a.jsonl"), 1 << 18)
    while found := tail.read():
        spool.add([events.decode(line) for line in found.lines], found)
        tail.step(found)
    sids = [event.sid for event in decoded(spool) if isinstance(event, Alert)]
    assert sids == list(range(1, number + 1))
    assert [row.seq for row in rows(spool)] == list(range(1, number + 1))
    spool.close()


def test_the_spool_is_written_through_to_the_disk_and_private(spool: Spool) -> None:
    assert spool._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert spool._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert spool.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.protocol("P22")
def test_a_birth_number_grows_even_when_the_clock_is_wrong(spool: Spool) -> None:
    assert spool.next_birth(1000) == 1000
    assert spool.next_birth(5) == 1001
