"""What is published is what was built, in order of number, small, and found by a plain client; all else is refused."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from repository import Depot, content, digest

from sekisho.appliance.cli import main
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.signatures import archive, delta
from sekisho.signatures.depot import pruning
from sekisho.signatures.depot.publishing import publish
from sekisho.signatures.depot.tree import Published
from sekisho.signatures.published import MANIFEST, MANIFEST_CAP, Manifest


def fetch(depot: Depot, cache: Path) -> tuple[Manifest, dict[str, bytes]]:
    """Everything a client finds of the newest set."""
    client = depot.client(cache)
    client.refresh()
    found = {}
    info = client.get_targetinfo(MANIFEST)
    assert info
    manifest = msgspec.json.decode(Path(client.download_target(info)).read_bytes(), type=Manifest)
    for path in (manifest.path, *(way.path for way in manifest.deltas)):
        info = client.get_targetinfo(path)
        if info:
            found[path] = Path(client.download_target(info)).read_bytes()
    return manifest, found


def test_a_client_gets_the_set_whole_and_by_every_delta(depot: Depot, tmp_path: Path) -> None:
    for number in (3, 4, 9):
        depot.publish(number)
    manifest, found = fetch(depot, tmp_path / "box")
    assert manifest.number == 9 and len(found) == 3
    assert delta.decompress(found["sig/9.tar.zst"], manifest.length) == depot.sets[9]
    for base in (3, 4):
        assert delta.apply(depot.sets[base], found[f"sig/{base}-9.zst"], manifest.length) == depot.sets[9]


def test_before_the_first_set_a_client_finds_none(depot: Depot, tmp_path: Path) -> None:
    client = depot.client(tmp_path / "box")
    client.refresh()
    assert client.get_targetinfo(MANIFEST) is None
    assert hint(depot) == 0


def test_the_metadata_of_a_day_is_small(depot: Depot, tmp_path: Path) -> None:
    for number in range(1, 12):
        outcome = publish(depot.tree, depot.ring, depot.build(number, deltas=8), depot.now)
    sizes = {name: size for name, size in outcome.sizes.items() if name != "targets.json" and not name.endswith(".zst")}
    assert sizes["timestamp.json"] < 600 and sizes["snapshot.json"] < 650 and sizes["sig.json"] < 1800
    assert sum(sizes.values()) < 4500  # set.json with eight ways included


@pytest.mark.parametrize("number", [1, 4, 5])
def test_numbers_only_grow(depot: Depot, number: int) -> None:
    depot.publish(5)
    with pytest.raises(RejectedInput, match="numbers only grow"):
        depot.publish(number, {**content(1), "yara/other.yar": b"rule x { condition: false }"})
    assert hint(depot) == 5


def test_publishing_the_same_set_again_changes_nothing(depot: Depot) -> None:
    directory = depot.build(5)
    publish(depot.tree, depot.ring, directory, depot.now)
    before = served(depot)
    assert publish(depot.tree, depot.ring, directory, depot.now).repeated
    assert served(depot) == before


def change(path: str, data: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        (directory / path).write_bytes(data((directory / path).read_bytes()))

    return apply


def manifest(**fields: object) -> Callable[[Path], None]:
    """The manifest with these fields instead."""

    def edit(data: bytes) -> bytes:
        return msgspec.json.encode(msgspec.json.decode(data) | fields)

    return change("set.json", edit)


def repacked(
    files: dict[str, bytes], pack: Callable[[dict[str, bytes]], bytes] = archive.pack
) -> Callable[[Path], None]:
    """Another content, told truly by the manifest."""

    def apply(directory: Path) -> None:
        data = pack(files)
        packed = delta.compress(data)
        (directory / "2.tar.zst").write_bytes(packed)
        manifest(sha256=digest(data), length=len(data), packed=len(packed), deltas=[])(directory)

    return apply


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


BROKEN: dict[str, Callable[[Path], None]] = {
    "no manifest": lambda directory: (directory / "set.json").unlink(),
    "manifest too long": change("set.json", lambda data: data + b" " * MANIFEST_CAP),
    "manifest no json": change("set.json", lambda data: data[:-1]),
    "manifest of another form": manifest(number="2"),
    "number too large": manifest(number=1 << 60),
    "built in the future": manifest(built="2999-01-01T00:00:00Z"),
    "built when": manifest(built="yesterday"),
    "archive of another name": manifest(path="sig/3.tar.zst"),
    "archive outside": manifest(path="fw/2.tar.zst"),
    "no archive": lambda directory: (directory / "2.tar.zst").unlink(),
    "a pipe": lambda directory: pipe(directory / "2.tar.zst"),
    "archive cut": change("2.tar.zst", lambda data: data[:-9]),
    "archive longer": change("2.tar.zst", lambda data: data + b"x"),
    "archive changed": change("2.tar.zst", lambda data: data[:60] + b"?" + data[61:]),
    "content of another hash": manifest(sha256="0" * 64),
    "content of another length": manifest(length=1 << 20),
    "no delta": lambda directory: (directory / "1-2.zst").unlink(),
    "delta changed": change("1-2.zst", lambda data: data[:-1] + b"?"),
    "delta to something else": change("1-2.zst", lambda data: delta.compress(b"other")),
    "no yara": repacked({"rules/a.rules": b"alert"}),
    "no rules": repacked({"yara/a.yar": b"rule"}),
    "empty rules": repacked({"rules/a.rules": b"\n", "yara/a.yar": b"rule"}),
    "not a tar": repacked({}, lambda _: hashlib.sha256(b"noise").digest() * 999),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_set_that_is_not_sound_is_refused_and_changes_nothing(depot: Depot, name: str) -> None:
    depot.publish(1)
    before = served(depot)
    directory = depot.build(2)
    BROKEN[name](directory)
    with pytest.raises(RejectedInput):
        publish(depot.tree, depot.ring, directory, depot.now)
    assert served(depot) == before


def test_a_delta_from_another_set_of_that_number_is_refused(depot: Depot) -> None:
    depot.publish(1)
    depot.sets[1] = archive.pack(content(77))
    with pytest.raises(RejectedInput, match="another set 1"):
        depot.publish(2)


def test_a_delta_from_a_set_that_was_never_published_stays_behind(depot: Depot, tmp_path: Path) -> None:
    depot.publish(1)
    depot.build(2)
    assert depot.publish(3).left_out == [2]
    told, found = fetch(depot, tmp_path / "box")
    assert {way.base for way in told.deltas} == {1, 2} and set(found) == {"sig/3.tar.zst", "sig/1-3.zst"}


def test_a_missing_key_publishes_nothing(depot: Depot) -> None:
    depot.publish(1)
    shutil.move(next((depot.keys / "online").glob("timestamp-*.pem")), depot.root)
    depot.ring._held.clear()
    with pytest.raises(RejectedInput, match="timestamp takes 1 of its 1 keys"):
        depot.publish(2)
    assert depot.tree.manifest(depot.tree.chain()) == msgspec.json.decode(
        (depot.root / "sets" / "1" / "set.json").read_bytes(), type=Manifest
    )


@pytest.mark.parametrize("days", [-1, 20])
def test_a_clock_that_is_not_to_be_believed_signs_nothing(depot: Depot, days: int) -> None:
    depot.publish(1)
    directory = depot.build(2)
    wrong = depot.now + dt.timedelta(days=days)
    with pytest.raises(DeviceFault, match="clock"):
        publish(depot.tree, depot.ring, directory, wrong)
    if days > 0:
        assert publish(depot.tree, depot.ring, directory, wrong, clock_is_right=True).number == 2


@pytest.mark.parametrize("room", [200, 450, 600])
def test_a_disk_without_room_leaves_what_is_in_force(
    depot: Depot, tmp_path: Path, room: int, capsys: pytest.CaptureFixture[str]
) -> None:
    depot.publish(1)
    directory = depot.build(2)
    argv = ["signatures", "publish", str(directory), "--dir", str(depot.tree.directory), "--keys", str(depot.keys)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        assert main(argv) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Free space" in capsys.readouterr().err
    assert fetch(depot, tmp_path / "box")[0].number == 1 and hint(depot) == 1
    assert not [path for path in depot.tree.directory.rglob("*.tmp")]
    assert main(argv) == 0
    assert fetch(depot, tmp_path / "box")[0].number == 2


def test_old_files_go_after_the_grace_and_the_newest_archives_stay(
    depot: Depot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "ARCHIVES", 3)
    early = depot.client(tmp_path / "slow")
    for number in range(1, 8):
        depot.publish(number)
        if number == 2:
            early.refresh()
    kept = early.get_targetinfo("sig/2.tar.zst")
    assert kept and early.download_target(kept)  # a day-long download is not cut off by newer sets
    depot.renew(pruning.GRACE + dt.timedelta(hours=1))
    names = sorted(path.name[65:] for path in (depot.tree.targets / "sig").iterdir())
    assert names == ["4-7.zst", "5-7.zst", "5.tar.zst", "6-7.zst", "6.tar.zst", "7.tar.zst", "set.json"]
    assert len(depot.tree.versions("snapshot")) <= 2 and depot.tree.versions("root") == [1]
    assert depot.publish(8).left_out == []


def hint(depot: Depot) -> int:
    return msgspec.json.decode((depot.tree.directory / "published.json").read_bytes(), type=Published).number


def served(depot: Depot) -> dict[str, bytes]:
    """Every file in the repository."""
    return {str(path): path.read_bytes() for path in depot.tree.directory.rglob("*") if path.is_file()}
