"""A download comes whole or not at all, whatever the line or the server does, and costs the line little."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hostile_http import Hostile

from sekisho.appliance.core.errors import DeviceFault, PeerError, SekishoError
from sekisho.signatures.keeper import download
from sekisho.signatures.keeper.download import Downloader, Target
from sekisho.signatures.trust import Limits, Web

DATA = random.Random(1).randbytes(1_400_000)
SHA256 = hashlib.sha256(DATA).hexdigest()

Make = Callable[..., Hostile]


@pytest.fixture
def serve() -> Iterator[Make]:
    made: list[Hostile] = []

    def start(data: bytes = DATA, **how: Any) -> Hostile:
        made.append(Hostile(data, **how))
        return made[-1]

    yield start
    for server in made:
        server.close()


def fetch(server: Hostile, folder: Path, **limits: float) -> Path:
    source = Web(server.url, limits=Limits(**limits))  # type: ignore[arg-type]
    return Downloader(folder).fetch(source, Target(f"{server.url}/file", len(DATA), SHA256))


def test_a_file_comes_whole_and_is_not_asked_for_twice(tmp_path: Path, serve: Make) -> None:
    server = serve()
    path = fetch(server, tmp_path)
    assert path.read_bytes() == DATA
    assert fetch(server, tmp_path) == path
    assert (server.asked, sorted(one.name for one in tmp_path.iterdir())) == (1, [SHA256])


def test_a_line_that_is_cut_again_and_again_costs_two_percent_at_most(tmp_path: Path, serve: Make) -> None:
    server = serve(cut_after=60_000)
    cuts = 0
    while not (tmp_path / SHA256).exists():
        try:
            fetch(server, tmp_path)
        except PeerError:
            cuts += 1
    assert cuts >= 20
    assert (tmp_path / SHA256).read_bytes() == DATA
    assert server.sent <= 1.02 * len(DATA)


def test_a_killed_download_goes_on_where_it_was(tmp_path: Path, serve: Make) -> None:
    server = serve(stall_after=600_000)
    code = (
        "import sys; from pathlib import Path; from sekisho.signatures.trust import Web;"
        "from sekisho.signatures.keeper.download import Downloader, Target;"
        "u, f, n, s = sys.argv[1:]; Downloader(Path(f)).fetch(Web(u), Target(u + '/file', int(n), s))"
    )
    argv = [sys.executable, "-I", "-c", code, server.url, str(tmp_path), str(len(DATA)), SHA256]
    child = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    part = tmp_path / f"{SHA256}.part"
    while not part.exists() or part.stat().st_size < 600_000 - 8192:
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    server.stall_after = -1
    server.stalled.set()
    assert fetch(server, tmp_path).read_bytes() == DATA
    assert server.sent <= 1.02 * len(DATA)


def test_after_a_power_cut_only_what_was_surely_on_the_disk_counts(tmp_path: Path, serve: Make) -> None:
    server = serve(cut_after=700_000)
    with pytest.raises(PeerError):
        fetch(server, tmp_path)
    noted, part = tmp_path / f"{SHA256}.note", tmp_path / f"{SHA256}.part"
    note = msgspec.json.decode(noted.read_bytes())
    synced = note["synced"]
    assert synced == 700_000
    noted.write_bytes(msgspec.json.encode(note | {"boot": "the boot before"}))
    part.write_bytes(part.read_bytes() + bytes(50_000))  # a tail that was never written
    server.cut_after = 0
    assert fetch(server, tmp_path).read_bytes() == DATA
    assert server.sent == len(DATA)


def test_a_part_that_the_power_cut_emptied_is_begun_anew(tmp_path: Path, serve: Make) -> None:
    server = serve(cut_after=700_000)
    with pytest.raises(PeerError):
        fetch(server, tmp_path)
    noted, part = tmp_path / f"{SHA256}.note", tmp_path / f"{SHA256}.part"
    noted.write_bytes(msgspec.json.encode(msgspec.json.decode(noted.read_bytes()) | {"boot": "the boot before"}))
    part.write_bytes(bytes(part.stat().st_size))
    server.cut_after = 0
    assert fetch(server, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize(
    "how",
    [
        {"lie": "gzip"}, {"lie": "longer"}, {"status": 404}, {"status": 500}, {"status": 302},
        {"data": bytes(1_400_000)}, {"data": DATA[:-1]}, {"data": DATA + b"x"},
    ],
    ids=["gzip", "longer", "404", "500", "redirect", "other", "shorter", "one more"],
)  # fmt: skip
def test_a_server_that_gives_something_else_is_given_up(tmp_path: Path, serve: Make, how: dict[str, Any]) -> None:
    server = serve(**how)
    with pytest.raises(SekishoError) as caught:
        fetch(server, tmp_path)
    assert not isinstance(caught.value, DeviceFault)
    assert not (tmp_path / SHA256).exists()
    assert server.sent <= download.SPENT * len(DATA) + download.SPENT_MORE + (1 << 20)


def test_another_part_than_was_asked_for_is_not_taken(tmp_path: Path, serve: Make) -> None:
    server = serve(cut_after=400_000, lie="range")
    for _ in range(3):
        with pytest.raises(PeerError):
            fetch(server, tmp_path)
    server.lie, server.cut_after = "", 0
    assert fetch(server, tmp_path).read_bytes() == DATA


def test_a_file_that_changed_between_two_attempts_is_begun_anew(tmp_path: Path, serve: Make) -> None:
    server = serve(data=bytes(len(DATA)), cut_after=400_000)
    with pytest.raises(PeerError):
        fetch(server, tmp_path)
    server.data, server.etag, server.cut_after = DATA, '"two"', 0
    assert fetch(server, tmp_path).read_bytes() == DATA


def test_a_server_that_holds_the_line_is_left(tmp_path: Path, serve: Make) -> None:
    server = serve(stall_after=100_000)
    with pytest.raises(PeerError):
        fetch(server, tmp_path, gap_s=0.3)


def test_a_file_that_costs_too_much_is_left_alone(tmp_path: Path, serve: Make) -> None:
    server = serve(data=bytes(len(DATA)))
    for _ in range(5):
        with pytest.raises(PeerError):
            fetch(server, tmp_path)
    assert server.asked <= 3


def test_a_full_disk_is_said_before_anything_is_asked(
    tmp_path: Path, serve: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setattr(download, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(DeviceFault, match="Free space"):
        fetch(server, tmp_path)
    assert server.asked == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of a few pages is mounted")
def test_a_disk_that_fills_up_in_the_middle_is_said_and_room_lets_it_go_on(
    tmp_path: Path, serve: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    small = tmp_path / "small"
    small.mkdir()
    monkeypatch.setattr(download, "room", lambda folder, length: None)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=800k", "none", str(small)], check=True)
    try:
        with pytest.raises(DeviceFault, match="No space"):
            fetch(server, small)
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        assert fetch(server, small).read_bytes() == DATA
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_sets_that_are_refused_one_after_the_other_do_not_fill_the_disk(tmp_path: Path, serve: Make) -> None:
    for number in range(12):
        data = bytes([number]) * 1000
        server = serve(data)
        target = Target(f"{server.url}/file", len(data), hashlib.sha256(data).hexdigest())
        last = Downloader(tmp_path).fetch(Web(server.url), target)
    assert last.exists()
    assert len(list(tmp_path.iterdir())) == download.OTHERS + 1
