"""The archive of a set is had by the least that is right: at hand, by the delta, whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from played_box import settings_of
from repository import Depot, content

from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.signatures import archive
from sekisho.signatures.keeper import download
from sekisho.signatures.keeper.effects import Effects
from sekisho.signatures.keeper.stage import Stage
from sekisho.signatures.published import Manifest


class Server:
    """What a build left, handed out by the repository's paths."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.given: list[tuple[str, int]] = []
        self.spoil: Callable[[str, bytes], bytes] = lambda path, data: data

    def __call__(self, path: str, cap: int) -> Path:
        source = self.folder / path.removeprefix("sig/")
        if not source.exists():
            raise PeerError("The server answers 404.")
        data = self.spoil(path, source.read_bytes())
        self.given.append((path, len(data)))
        target = self.folder / "given"
        target.write_bytes(data)
        return target


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    (tmp_path / "depot").mkdir()
    return Depot(tmp_path / "depot")


def built(depot: Depot, number: int) -> tuple[Manifest, Server]:
    folder = depot.build(number, content(number, 3000))
    return msgspec.json.decode((folder / "set.json").read_bytes(), type=Manifest), Server(folder)


def test_the_first_set_comes_whole_and_the_next_by_a_small_delta(tmp_path: Path, depot: Depot) -> None:
    stage = Stage(tmp_path / "channel")
    first, server = built(depot, 1)
    (tmp_path / "channel").mkdir()
    stage.obtain(first, server)
    assert [path for path, _ in server.given] == ["sig/1.tar.zst"]
    second, server = built(depot, 2)
    stage.obtain(second, server)
    ((path, size),) = server.given
    assert path == "sig/1-2.zst"
    assert size < 2_000 < second.packed
    assert hashlib.sha256(stage.archive(2).read_bytes()).hexdigest() == second.sha256
    stage.obtain(second, server)
    assert len(server.given) == 1, "it is at hand"


@pytest.mark.parametrize("spoilt", ["wrong", "cut", "gone", "of another set"])
def test_a_delta_that_is_of_no_use_costs_only_itself(tmp_path: Path, depot: Depot, spoilt: str) -> None:
    (tmp_path / "channel").mkdir()
    stage = Stage(tmp_path / "channel")
    stage.obtain(*built(depot, 1))
    second, server = built(depot, 2)
    if spoilt == "gone":
        (server.folder / "1-2.zst").unlink()
    elif spoilt == "of another set":
        stage.archive(1).write_bytes(b"damaged on the disk")
    else:
        server.spoil = lambda path, data: (b"\0" * 40 if spoilt == "wrong" else data[:-9]) if "-" in path else data
    stage.obtain(second, server)
    assert server.given[-1][0] == "sig/2.tar.zst"
    stage.unpack(second)
    assert (stage.sources(2) / "rules" / "throwaway.rules").read_bytes() == archive.read(depot.sets[2])[
        "rules/throwaway.rules"
    ]


def test_a_whole_set_that_is_another_one_is_not_taken(tmp_path: Path, depot: Depot) -> None:
    (tmp_path / "channel").mkdir()
    stage = Stage(tmp_path / "channel")
    first, server = built(depot, 1)
    other, _ = built(depot, 2)
    with pytest.raises(PeerError, match=r"not the one its manifest names|cannot be unpacked"):
        stage.obtain(msgspec.structs.replace(first, sha256=other.sha256), server)
    assert not stage.archive(1).exists()


def test_an_archive_that_is_no_set_is_refused_and_leaves_nothing(tmp_path: Path, depot: Depot) -> None:
    (tmp_path / "channel").mkdir()
    stage = Stage(tmp_path / "channel")
    first, server = built(depot, 1)
    stage.obtain(first, server)
    evil = b"not a tar" * 1000
    stage.archive(1).write_bytes(evil)
    with pytest.raises(DeviceFault, match="damaged"):
        stage.unpack(first)
    with pytest.raises(RejectedInput):
        stage.unpack(msgspec.structs.replace(first, sha256=hashlib.sha256(evil).hexdigest()))
    assert not stage.sources(1).exists()


def test_without_room_nothing_is_begun(tmp_path: Path, depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "channel").mkdir()
    first, server = built(depot, 1)
    monkeypatch.setattr(download, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(DeviceFault, match="what is in force stays"):
        Stage(tmp_path / "channel").obtain(first, server)
    assert server.given == []


def test_what_power_cuts_left_half_written_is_removed_at_the_next_start(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, b"{}", "https://channel.example")
    (settings.channel / "archives").mkdir(parents=True)
    left = [settings.channel / "archives" / ".7.tar.311.tmp", settings.channel / ".news.json.311.tmp"]
    for path in (*left, settings.channel / "archives" / "7.tar"):
        path.write_bytes(b"x")
    Effects(settings, lambda: False)
    assert [path for path in settings.channel.rglob("*") if path.is_file()] == [settings.channel / "archives" / "7.tar"]
