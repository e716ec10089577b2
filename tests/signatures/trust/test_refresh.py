"""What a box finds in an honest repository, from a server, a directory, and after a long time."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from forge import Forge, Memory
from repository import Depot

from sekisho.signatures.depot.rotate import rotate
from sekisho.signatures.trust import ChannelDown, ChannelRefused, ChannelUnfit, Folder, Trust
from sekisho.signatures.trust.floors import COPIES


def box(forge: Forge, directory: Path) -> Trust:
    return Trust(directory, forge.trusted, Memory(forge))


def test_a_refresh_tells_versions_time_and_end_and_leads_to_the_newest_manifest(forge: Forge, tmp_path: Path) -> None:
    forge.put_set(7)
    forge.release("sig")
    trust = box(forge, tmp_path / "box")
    seen = trust.refresh(forge.now.timestamp() + 60)
    assert (seen.root, seen.timestamp, seen.snapshot, seen.targets, seen.sig) == (1, 2, 2, 1, 2)
    assert seen.issued == forge.now.timestamp()
    assert seen.expires == (forge.now + dt.timedelta(hours=24)).timestamp()
    assert seen.clock_behind_s == 0.0
    assert trust.manifest().number == 7
    assert trust.floors.number == 7
    assert trust.floors.roles == {"targets": 1, "sig": 2}


def test_a_second_refresh_asks_only_for_what_may_have_changed_and_writes_nothing(forge: Forge, tmp_path: Path) -> None:
    trust = box(forge, tmp_path / "box")
    trust.refresh(forge.now.timestamp())
    trust.manifest()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "box").rglob("*")}
    source = Memory(forge)
    again = Trust(tmp_path / "box", forge.trusted, source)
    again.refresh(forge.now.timestamp())
    assert source.asked == ["metadata/2.root.json", "metadata/timestamp.json"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "box").rglob("*")} == before


def test_a_box_that_was_off_for_three_rotations_follows_the_roots(forge: Forge, tmp_path: Path) -> None:
    trust = box(forge, tmp_path / "box")
    trust.refresh(forge.now.timestamp())
    for _ in range(3):
        forge.replace_keys("root")
        forge.release("root", "targets", "sig")
        forge.now += dt.timedelta(days=30)
    forge.release("root", "targets", "sig")
    assert trust.refresh(forge.now.timestamp()).root == 5
    assert trust.floors.root == 5


def test_the_real_repository_is_believed_from_a_directory_through_rotations(tmp_path: Path) -> None:
    depot = Depot(tmp_path / "depot")
    depot.publish(1)
    trust = Trust(tmp_path / "box", depot.trusted, Folder(depot.tree.directory))
    trust.refresh(depot.now.timestamp())
    manifest = trust.manifest()
    target = trust.target(manifest.path)
    assert target.length == manifest.packed
    assert trust.fetch(target, 1 << 20) == (depot.root / "sets" / "1" / "1.tar.zst").read_bytes()
    rotate(depot.tree, depot.ring, "timestamp", tmp_path / "new", depot.now)
    assert [reset.role for reset in trust.refresh(depot.now.timestamp()).resets] == ["timestamp"]


def test_a_repository_without_a_set_is_no_error_of_the_refresh(tmp_path: Path) -> None:
    depot = Depot(tmp_path / "depot")
    trust = Trust(tmp_path / "box", depot.trusted, Folder(depot.tree.directory))
    trust.refresh(depot.now.timestamp())
    with pytest.raises(ChannelRefused) as refused:
        trust.manifest()
    assert refused.value.code == "missing"


def test_a_path_out_of_the_directory_is_not_read(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "stick")
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(ChannelDown), folder.read(f"{folder.targets}../../secret", 100):
        pass


def test_what_is_no_root_is_a_fault_of_the_box(forge: Forge, tmp_path: Path) -> None:
    for root in (b"", b"{}", forge.files["metadata/timestamp.json"]):
        with pytest.raises(ChannelUnfit) as unfit:
            Trust(tmp_path / "box", root, Memory(forge)).refresh(forge.now.timestamp())
        assert unfit.value.code == "bad_root"


def test_one_damaged_copy_of_the_floors_is_made_up_for_by_the_other(forge: Forge, tmp_path: Path) -> None:
    for name in COPIES:
        forge.release("sig")
        box(forge, tmp_path / "box").refresh(forge.now.timestamp())
        (tmp_path / "box" / name).write_bytes(b"")
        assert box(forge, tmp_path / "box").floors.timestamp == forge.timestamp.version


def test_floors_that_are_all_damaged_are_never_taken_for_none(forge: Forge, tmp_path: Path) -> None:
    box(forge, tmp_path / "box").refresh(forge.now.timestamp())
    for name in COPIES:
        path = tmp_path / "box" / name
        path.write_bytes(path.read_bytes().replace(b'"timestamp":1', b'"timestamp":0'))
    with pytest.raises(ChannelUnfit) as unfit:
        box(forge, tmp_path / "box")
    assert unfit.value.code == "floors_lost"
