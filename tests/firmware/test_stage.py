"""A bundle becomes a release that can be switched to, whole and at once, and nothing else of the box is touched."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from releases import HERE, release, wheel

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.firmware import stage as staging
from sekisho.firmware.build import bundle as building
from sekisho.firmware.build.bundle import Terms
from sekisho.firmware.content import Content, zstd
from sekisho.firmware.published import Release
from sekisho.firmware.stage import path_of, remove, stage, staged, sweep
from sekisho.signatures.keeper import download


def made(folder: Path, counter: int = 1, **how: Any) -> tuple[Path, Release]:
    folder.mkdir(exist_ok=True)
    found = release(folder, counter, **how)
    return folder / Path(found.path).name, found


def test_a_release_is_complete_under_its_name_and_the_next_beside_it(tmp_path: Path) -> None:
    root, extra = tmp_path / "releases", {"engine/bin/suricata": b"#!/bin/sh\n", "engine/lib/libhtp.so.2": b"lib"}
    bundle, first = made(tmp_path / "built", extra=extra, engine="7.0.10")
    path = stage(bundle, first, root)
    assert path == path_of(first, root) == root / f"1-{first.sha256[:16]}"
    told = subprocess.run([path / "venv/bin/tiny"], capture_output=True, text=True, check=True, cwd="/")
    assert told.stdout == "1.0\n", "its commands run from where it lies now"
    assert (path / "engine/lib/libhtp.so.2").read_bytes() == b"lib"
    assert sorted(one.name for one in path.iterdir()) == ["engine", "release.json", "venv"]
    assert not list(path.glob("venv/lib/python3*/site-packages/pip")), "what fetches programs does not stay"
    assert [one.release for one in staged(root)] == [first]
    before = (path / "release.json").stat()
    bundle.unlink()
    assert stage(bundle, first, root) == path and (path / "release.json").stat() == before, "again costs nothing"
    remove(first, root)
    remove(first, root)
    assert staged(root) == [] and not list(root.iterdir())


def test_attack_extraneous_dependencies_a_wheel_that_nobody_listed_is_not_installed(tmp_path: Path) -> None:
    """Only what `requirements.txt` names with its hash; a newer one beside it tempts nobody."""
    tempting = wheel(tmp_path / "more", version="9.9").read_bytes()
    other = wheel(tmp_path / "more", name="other").read_bytes()
    extra = {"wheels/tiny-9.9-py3-none-any.whl": tempting, "wheels/other-1.0-py3-none-any.whl": other}
    path = stage(*made(tmp_path / "built", extra=extra), tmp_path / "releases")
    told = subprocess.run([path / "venv/bin/tiny"], capture_output=True, text=True, check=True, cwd="/")
    assert told.stdout == "1.0\n"
    assert not list(path.glob("venv/lib/python3*/site-packages/other*"))


@pytest.mark.full
def test_programs_that_do_not_fit_together_are_refused_and_the_release_before_stays(tmp_path: Path) -> None:
    root = tmp_path / "releases"
    first = made(tmp_path / "built")
    stage(*first, root)
    with pytest.raises(RejectedInput, match="something-else"):
        stage(*made(tmp_path / "built2", 2, needs="something-else>=2"), root)
    assert [one.release for one in staged(root)] == [first[1]]
    assert [path.name for path in root.iterdir()] == [path_of(first[1], root).name]


def repacked(folder: Path, *entries: tuple[tarfile.TarInfo, bytes], unpacked: int = 1 << 20) -> tuple[Path, Release]:
    """A bundle with these entries and no others, described as it is."""
    folder.mkdir(parents=True)
    path = folder / "1.tar.zst"
    with path.open("wb") as out, zstd.ZstdFile(out, "w") as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
        for entry, data in entries:
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    content = Content(counter=1, version="1.1", hardware=HERE, machine=HERE, python="3.11")
    found = building.describe(content, {}, 0, path, Terms())
    return path, msgspec.structs.replace(found, unpacked=unpacked)


def entry(name: str, **how: Any) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    for key, value in how.items():
        setattr(found, key, value)
    return found


@pytest.mark.parametrize(
    "bad",
    [
        entry("../outside"), entry("/etc/passwd"), entry("wheels/../../outside.whl"), entry("engine/./x"),
        entry("engine/link", type=tarfile.SYMTYPE, linkname="/etc/shadow"),
        entry("engine/link", type=tarfile.SYMTYPE, linkname="bin"),
        entry("engine/hard", type=tarfile.LNKTYPE, linkname="content.json"),
        entry("engine/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        entry("engine/pipe", type=tarfile.FIFOTYPE), entry("engine", type=tarfile.DIRTYPE),
        entry("venv/bin/python"), entry("release.json"), entry("engine/" + "x/" * 20 + "y"), entry("wheels/a b.whl"),
    ],
    ids=lambda bad: f"{bad.name[:24]}-{bad.type.decode()}",
)  # fmt: skip
def test_attack_a_bundle_that_reaches_outside_or_holds_what_has_no_place(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    root = tmp_path / "root" / "releases"
    bundle, found = repacked(tmp_path / "built", (entry("requirements.txt"), b""), (bad, b""))
    with pytest.raises(RejectedInput, match="no place"):
        stage(bundle, found, root)
    assert not list(root.iterdir()) and [one.name for one in root.parent.iterdir()] == ["releases"]


def test_attack_a_bundle_that_unpacks_to_more_than_it_says(tmp_path: Path) -> None:
    bundle, found = repacked(tmp_path / "built", (entry("engine/big"), bytes(50 << 20)), unpacked=1 << 20)
    assert bundle.stat().st_size < 100_000
    with pytest.raises(RejectedInput, match="larger than it says"):
        stage(bundle, found, tmp_path / "releases")
    assert not list((tmp_path / "releases").iterdir())


def test_attack_a_name_twice(tmp_path: Path) -> None:
    bundle, found = repacked(tmp_path / "built", (entry("engine/one"), b"a"), (entry("engine/one"), b"b"))
    with pytest.raises(RejectedInput, match="twice"):
        stage(bundle, found, tmp_path / "releases")


def test_attack_partial_bundle_and_one_that_was_changed_on_the_disk(tmp_path: Path) -> None:
    bundle, found = made(tmp_path / "built")
    whole = bundle.read_bytes()
    for data in (whole[:-1], whole + b"x", whole[:100] + b"X" + whole[101:], b""):
        bundle.write_bytes(data)
        with pytest.raises(RejectedInput, match="not that of release"):
            stage(bundle, found, tmp_path / "releases")
    assert not list((tmp_path / "releases").iterdir())


@pytest.mark.parametrize("data", [b"", b"no zstd at all", zstd.compress(b"no tar"), zstd.compress(b"x" * 5000)[:-4]])
def test_a_signed_bundle_that_is_no_bundle_is_refused(tmp_path: Path, data: bytes) -> None:
    bundle, found = repacked(tmp_path / "built")
    bundle.write_bytes(data or zstd.compress(b""))
    content = Content(counter=1, version="1.1", hardware=HERE, machine=HERE, python="3.11")
    with pytest.raises(RejectedInput, match="cannot be unpacked"):
        stage(bundle, building.describe(content, {}, 0, bundle, Terms()), tmp_path / "releases")
    assert found


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"machine": "arm64" if HERE == "amd64" else "amd64"}, "processors"),
        ({"python": "3.99"}, "needs a new system image"),
    ],
    ids=["machine", "python"],
)
def test_attack_wrong_software_for_another_machine(tmp_path: Path, how: dict[str, Any], why: str) -> None:
    bundle, found = made(tmp_path / "built", **how)
    with pytest.raises(RejectedInput, match=why):
        stage(bundle, found, tmp_path / "releases")


@pytest.mark.parametrize("how", [{"counter": 2}, {"version": "9"}, {"hardware": "skg-a1"}, {"engine": "8.0.0"}])
def test_attack_wrong_software_under_another_release_s_name(tmp_path: Path, how: dict[str, Any]) -> None:
    bundle, found = made(tmp_path / "built")
    with pytest.raises(RejectedInput, match="not this one"):
        stage(bundle, msgspec.structs.replace(found, **how), tmp_path / "releases")


def test_a_system_image_is_not_unpacked(tmp_path: Path) -> None:
    bundle, found = made(tmp_path / "built")
    with pytest.raises(RejectedInput, match="system image"):
        stage(bundle, msgspec.structs.replace(found, tier=3), tmp_path / "releases")


def test_what_a_power_cut_left_is_no_release_and_goes_away(tmp_path: Path) -> None:
    root = tmp_path / "releases"
    bundle, found = made(tmp_path / "built")
    half = root / f".making-{path_of(found, root).name}"
    (half / "venv").mkdir(parents=True)
    (half / "release.json").write_bytes(msgspec.json.encode(found))
    for name, data in (("7-" + "a" * 16, b""), ("8-" + "b" * 16, b"{"), ("9-" + "c" * 16, msgspec.json.encode(found))):
        (root / name).mkdir()
        (root / name / "release.json").write_bytes(data)
    (root / ("6-" + "d" * 16)).mkdir()
    assert staged(root) == [] == staged(tmp_path / "none")
    sweep(root)
    assert not half.exists()
    half.mkdir()
    with pytest.raises(RejectedInput):
        stage(bundle, msgspec.structs.replace(found, version="x"), root)
    assert not half.exists()


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, found = made(tmp_path / "built")
    monkeypatch.setattr(download, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(DeviceFault, match="a new release needs"):
        stage(bundle, found, tmp_path / "releases")
    assert not list((tmp_path / "releases").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted")
def test_a_disk_that_fills_up_in_the_middle_leaves_the_last_good_release_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "releases"
    root.mkdir()
    bundle, found = made(tmp_path / "built")
    monkeypatch.setattr(staging, "room", lambda folder, length, what: None)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(root)], check=True)
    try:
        good = root / ("1-" + "a" * 16)
        good.mkdir()
        (good / "release.json").write_bytes(b"{}")
        with pytest.raises(DeviceFault, match="Free space"):
            stage(bundle, found, root)
        assert [path.name for path in root.iterdir()] == [good.name]
        assert (good / "release.json").read_bytes() == b"{}"
        assert shutil.disk_usage(root).free > 3 << 20, "what did not fit is gone"
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_a_failing_disk_is_a_fault_of_the_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, found = made(tmp_path / "built")

    def broken(*_args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(staging, "write_atomic", broken)
    monkeypatch.setattr(staging, "_install", lambda *_args: None)
    with pytest.raises(DeviceFault, match="looked at"):
        stage(bundle, found, tmp_path / "releases")
    assert staged(tmp_path / "releases") == []


def test_attack_a_bundle_that_changes_between_its_judgement_and_its_unpacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write the download must not get a program past the hash."""
    bundle, found = made(tmp_path / "built", extra={"engine/bin/suricata": b"good"})
    other, evil = made(tmp_path / "evil", extra={"engine/bin/suricata": b"evil"})
    assert evil.length == found.length, "as sound as the other but for its hash"
    judge = staging._judge

    def judged(path: Path, release: Release) -> None:
        judge(path, release)
        path.write_bytes(other.read_bytes())

    monkeypatch.setattr(staging, "_judge", judged)
    monkeypatch.setattr(staging, "_install", lambda *_args: None)
    with pytest.raises(RejectedInput, match="changed while"):
        stage(bundle, found, tmp_path / "releases")
    assert not list((tmp_path / "releases").iterdir())
