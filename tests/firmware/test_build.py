"""A release is the same bytes from the same commit, holds what a box needs and no more, and is signed by two people."""

from __future__ import annotations

import base64
import datetime as dt
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import msgspec
import pytest
from releases import EPOCH, HERE, Centre, release

from sekisho.appliance.cli import main
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.center.jobs.commands import load_key
from sekisho.firmware.build import bundle, engine, lock, press, publishing, wheels
from sekisho.firmware.build.bundle import Terms
from sekisho.firmware.build.press import Order
from sekisho.firmware.content import Content, Machine, zstd
from sekisho.firmware.published import BLOCK, Release
from sekisho.signatures.depot.keys import KeysMissing, Ring

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = (ROOT / "pyproject.toml").read_text()


def entries(path: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(zstd.decompress(path.read_bytes()))) as archive:
        return archive.getmembers()


def test_a_bundle_is_the_same_bytes_wherever_and_whenever_its_parts_lie(tmp_path: Path) -> None:
    made = []
    for name, umask in (("one", 0o022), ("another", 0o077)):
        before = os.umask(umask)
        try:
            made.append(release_in(tmp_path / name))
        finally:
            os.umask(before)
    assert made[0] == made[1]
    assert (tmp_path / "one/1.tar.zst").read_bytes() == (tmp_path / "another/1.tar.zst").read_bytes()
    found = entries(tmp_path / "one/1.tar.zst")
    assert [one.name for one in found] == [
        "content.json",
        "engine/etc/a.config",
        "engine/lib/libz.so.1",
        "requirements.txt",
        "wheels/tiny-1.0-py3-none-any.whl",
    ]
    assert {(one.mtime, one.uid, one.uname, one.mode, one.type) for one in found} == {
        (EPOCH, 0, "", 0o644, tarfile.REGTYPE)
    }


def release_in(folder: Path) -> Release:
    folder.mkdir()
    return release(folder, 1, extra={"engine/lib/libz.so.1": b"z" * 9000, "engine/etc/a.config": b"a"})


def test_a_release_describes_its_bundle_block_by_block(tmp_path: Path) -> None:
    noise = os.urandom(2 * BLOCK + 5)
    made = release(tmp_path, 3, extra={"engine/lib/noise": noise}, terms=Terms(urgent=True, notes_ja="穴をふさぐ"))
    assert (made.path, made.tier, made.urgent, made.notes_ja) == (f"fw/{HERE}/3.tar.zst", 1, True, "穴をふさぐ")
    assert len(made.blocks) == 3 and made.length > 2 * BLOCK and made.unpacked > len(noise)
    assert msgspec.json.decode((tmp_path / "release.json").read_bytes(), type=Release) == made
    publishing.judge(made, tmp_path / "3.tar.zst")


@pytest.mark.parametrize("name", ["../x", "venv/x", "content.json", "wheels/x.tar", "engine/../x", "/engine/x", "x"])
def test_what_has_no_place_in_a_release_is_not_packed(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(b"")
    content = Content(counter=1, version="1", hardware=HERE, machine=HERE, python="3.11")
    with pytest.raises(RejectedInput, match="no place"):
        bundle.pack(content, {name: tmp_path / "x"}, EPOCH, tmp_path / "bundle")


@pytest.mark.parametrize("machine", ["amd64", "arm64"])
@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_what_a_box_needs_is_locked_and_nothing_of_the_centre_is_among_it(machine: Machine, python: str) -> None:
    found = {pin.name: pin for pin in lock.needed(LOCK, PROJECT, machine, python)}
    assert {"msgspec", "tuf", "cryptography", "yara-python", "litestar", "urllib3", "pycparser", "cffi"} <= set(found)
    of_the_centre = {"psycopg", "sqlalchemy", "weasyprint", "suricata-update", "nats-py"}
    assert not (of_the_centre | {"pytest", "mypy", "playwright", "scapy", "colorama"}) & set(found)
    assert all(pin.hashes for pin in found.values())
    assert "backports-zstd" in {pin.name for pin in lock.needed(LOCK, PROJECT, machine, "3.13")}
    assert "backports-zstd" not in {pin.name for pin in lock.needed(LOCK, PROJECT, machine, "3.14")}


def test_every_requirement_of_what_a_box_needs_is_among_it() -> None:
    """By what the installed packages say of themselves, not by the lock's notes."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    found = {pin.name for pin in lock.needed(LOCK, PROJECT, HERE, f"3.{sys.version_info.minor}")}
    extras = {"securesystemslib": "crypto"}
    for name in sorted(found):
        for line in requires(name) or ():
            wanted = Requirement(line)
            marker = wanted.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", extras.get(name, ""))):
                assert lock.canonical(wanted.name) in found, f"{name} needs {wanted.name}"


def test_a_dependency_that_is_not_locked_makes_no_release() -> None:
    with pytest.raises(RejectedInput, match="nowhere"):
        lock.needed(LOCK, '[project]\ndependencies = ["nowhere>=1"]\n', HERE, "3.11")


def test_a_wheel_without_a_locked_hash_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    [pin] = [pin for pin in lock.read(LOCK) if pin.name == "hpack"]
    false = tmp_path / f"hpack-{pin.version}-py3-none-any.whl"
    false.write_bytes(b"not that wheel")
    assert wheels._held(tmp_path, pin) is None
    mine = msgspec.structs.replace(pin, hashes=frozenset([wheels.digest(false)]))
    assert wheels.gather([mine], HERE, "3.11", tmp_path) == [false], "nothing is fetched that is here"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with this tree as its one commit, for machines where it is no checkout."""
    place = tmp_path_factory.mktemp("source")
    if (ROOT / ".git").exists():
        return ROOT
    shutil.copytree(ROOT, place / "tree", ignore=shutil.ignore_patterns(".venv", "artifacts"))
    for argv in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "a"]):
        subprocess.run(["git", "-C", str(place / "tree"), *argv], check=True)
    return place / "tree"


def own(source: Path, machine: Machine, into: Path) -> Path:
    made = wheels.own(wheels.export(source, into / "source"), machine, into / "own")
    assert made.name == f"sekisho-0.1.0-py3-none-linux_{lock.PROCESSOR[machine]}.whl"
    return made


@pytest.mark.timeout(180)
def test_our_wheel_holds_the_gate_and_not_where_it_was_built(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(own(source, HERE, tmp_path)) as wheel:
        gate = wheel.read("sekisho/inspect/_gate.so")
        assert gate[:4] == b"\x7fELF" and str(tmp_path).encode() not in gate
        assert "sekisho/firmware/stage.py" in wheel.namelist()


@pytest.mark.full
@pytest.mark.timeout(600)
def test_our_wheel_for_arm64_holds_a_gate_for_arm64_and_is_the_same_bytes_twice(source: Path, tmp_path: Path) -> None:
    if HERE != "arm64" and not shutil.which("aarch64-linux-gnu-gcc"):
        pytest.skip("no compiler for arm64")
    made = []
    for name in ("one", "a-longer-path/another"):
        (tmp_path / name).mkdir(parents=True)
        made.append(own(source, "arm64", tmp_path / name))
    assert made[0].read_bytes() == made[1].read_bytes()
    with zipfile.ZipFile(made[0]) as wheel:
        gate = Path(wheel.extract("sekisho/inspect/_gate.so", tmp_path))
    told = subprocess.run(["readelf", "-hd", str(gate)], capture_output=True, text=True, check=True).stdout
    assert "AArch64" in told and "[libnetfilter_queue.so.1]" in told and "[libmnl.so.0]" in told


def test_without_a_compiler_for_the_machine_the_package_to_install_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other: Machine = "arm64" if HERE == "amd64" else "amd64"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    commit = wheels.Commit(tmp_path, "0" * 40, EPOCH)
    with pytest.raises(DeviceFault, match="gcc-aarch64-linux-gnu" if other == "arm64" else "gcc-x86-64-linux-gnu"):
        wheels.own(commit, other, tmp_path / "own")


def test_what_is_no_commit_cannot_be_built(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with pytest.raises(RejectedInput, match="no git repository"):
        press.build(tmp_path / "tree", Order(machine=HERE, counter=1, version="1"), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("machine", ["amd64", "arm64"])
def test_a_whole_release_is_the_same_bytes_twice_and_its_wheels_fit_the_machine(
    source: Path, tmp_path: Path, machine: Machine
) -> None:
    if machine != HERE and not shutil.which("aarch64-linux-gnu-gcc"):
        pytest.skip("no compiler for arm64")
    order = Order(machine=machine, counter=4, version="0.1.0")
    made = [press.build(source, order, tmp_path / name, tmp_path / "cache") for name in ("one", "two")]
    assert made[0] == made[1]
    assert (tmp_path / "one/4.tar.zst").read_bytes() == (tmp_path / "two/4.tar.zst").read_bytes()
    names = {one.name for one in entries(tmp_path / "one/4.tar.zst")}
    pins = lock.needed(LOCK, PROJECT, machine, "3.11")
    packed = {wheels.named(Path(name))[0]: name for name in names if name.endswith(".whl")}
    assert set(packed) == {pin.name for pin in pins} | {"sekisho"}
    processor = lock.PROCESSOR[machine]
    assert all(name.endswith("-any.whl") or processor in name for name in packed.values())


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("machine", ["amd64", "arm64"])
def test_the_engine_comes_with_every_library_that_it_asks_for(tmp_path: Path, machine: Machine) -> None:
    version, found = engine.gather(machine, tmp_path / "unpacked", tmp_path / "cache")
    assert version.startswith("1:7.") or version.startswith("1:8.")
    assert {"bin/suricata", "lib/libhtp.so.2", "lib/libjansson.so.4"} <= set(found)
    assert not [name for name in found if name.startswith("lib/libc.so") or "/ld-" in name], "the box's own"
    for name, path in found.items():
        target = tmp_path / "engine" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    if machine == HERE:
        binary = tmp_path / "engine/bin/suricata"
        binary.chmod(0o755)
        env = {"LD_LIBRARY_PATH": str(tmp_path / "engine/lib"), "PATH": "/usr/bin:/bin"}
        listed = subprocess.run(["ldd", str(binary)], env=env, capture_output=True, text=True, check=True).stdout
        assert f"libhtp.so.2 => {tmp_path}" in listed and "not found" not in listed
        told = subprocess.run([binary, "-V"], env=env, capture_output=True, text=True, check=True).stdout
        assert version.partition(":")[2].partition("-")[0] in told


# Publishing


def test_a_release_is_published_from_the_locked_room_with_two_sticks(centre: Centre, tmp_path: Path) -> None:
    depot, copy, out, built = centre.depot, tmp_path / "copy", tmp_path / "out", tmp_path / "built"
    built.mkdir()
    made = release(built, 1)
    shutil.copytree(depot.tree.directory, copy)
    sticks = [word for number in (1, 3) for word in ("--keys", str(depot.keys / f"fw-{number}"))]
    assert main(["firmware", "publish", str(built), "--dir", str(copy), *sticks[:2], "--out", str(out)]) == 2
    assert main(["firmware", "publish", str(built), "--dir", str(copy), *sticks, "--out", str(out)]) == 0
    assert len(list(out.iterdir())) == 3, "the list, the release, the bundle"
    centre_keys = ["--dir", str(depot.tree.directory), "--keys", str(depot.keys / "online")]
    assert main(["signatures", "repository", "adopt", str(out / "2.fw.json"), *centre_keys]) == 0
    assert publishing.published(depot.tree, HERE) == made


def test_counters_only_grow_and_what_was_changed_after_the_build_is_not_signed(centre: Centre, tmp_path: Path) -> None:
    centre.publish(5)
    for counter in (4, 5):
        folder = tmp_path / str(counter)
        folder.mkdir()
        release(folder, counter)
        with pytest.raises(RejectedInput, match="only grow"):
            publishing.release(centre.depot.tree, centre.depot.ring, folder, centre.depot.now)
    folder = tmp_path / "6"
    folder.mkdir()
    release(folder, 6)
    (folder / "6.tar.zst").write_bytes((folder / "6.tar.zst").read_bytes() + b"x")
    with pytest.raises(RejectedInput, match="Build it again"):
        publishing.release(centre.depot.tree, centre.depot.ring, folder, centre.depot.now)


def test_releases_for_other_hardware_stay_when_one_is_published(centre: Centre) -> None:
    centre.publish(1)
    centre.publish(2, hardware="skg-a1")
    centre.publish(3)
    found = {path for path in centre.depot.tree.chain().delegated["fw"].signed.targets}
    assert found == {f"fw/{HERE}/release.json", f"fw/{HERE}/3.tar.zst", "fw/skg-a1/release.json", "fw/skg-a1/2.tar.zst"}


def test_operators_are_added_to_a_list_and_the_list_is_published(
    centre: Centre, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--dir", str(centre.depot.tree.directory)]
    listed, printed = tmp_path / "operators.json", tmp_path / "printed"
    add = ["firmware", "operators", "add", "--list", str(listed), "--key", str(printed), *where]
    public = {}
    for person, kinds, ok in (("tanaka", "fw.stage,fw.activate", 0), ("suzuki", "all", 0), ("mallet", "shell.run", 2)):
        secret = tmp_path / f"{person}.key"
        new = ["center", "jobs", "key", "new", "--out", str(secret), "--name", f"{person}-1", "--person", person]
        capsys.readouterr()
        assert main(new) == 0
        printed.write_text(capsys.readouterr().out)
        assert main([*add, "--kinds", kinds, "--days", "30"]) == ok
        public[person] = load_key(secret).public
    printed.write_text("no key")
    assert main([*add, "--kinds", "all"]) == 2
    keys = ["--keys", str(centre.depot.keys)]
    assert main(["firmware", "operators", "publish", str(listed), *where, *keys]) == 0
    capsys.readouterr()
    assert main(["firmware", "operators", "list", "--json", *where]) == 0
    found = json.loads(capsys.readouterr().out)["operators"]
    assert [(one["name"], one["kinds"][:2]) for one in found] == [
        ("tanaka-1", ["fw.stage", "fw.activate"]),
        ("suzuki-1", ["fw.stage", "fw.activate"]),
    ]
    assert found[1]["until"] < dt.datetime.now(dt.UTC).timestamp() + 31 * 86_400
    assert base64.b64encode(publishing.operators(centre.depot.tree).operators[0].key).decode() == public["tanaka"]


def test_operators_need_two_keyholders(centre: Centre) -> None:
    known = publishing.operators(centre.depot.tree)
    ring = Ring([centre.depot.keys / "operators-1", centre.depot.keys / "online"])
    with pytest.raises(KeysMissing):
        publishing.publish_operators(centre.depot.tree, ring, known, centre.depot.now, centre.adopt)
