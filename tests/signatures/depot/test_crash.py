"""The real commands, killed or cut from power between any two of their file operations: a box finds old or new, whole.

Everything a command does to the repository is recorded as it runs. For every point in that record the files are
as a kill leaves them, and as a power cut may; then a box that knows the repository refreshes.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from crash_disk import Disk, File, Op, read_log
from repository import Depot, client_of, digest
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from sekisho.signatures import delta
from sekisho.signatures.depot import repository
from sekisho.signatures.depot.keys import Ring
from sekisho.signatures.depot.publishing import publish
from sekisho.signatures.depot.status import status
from sekisho.signatures.published import MANIFEST, Manifest

SHIM = Path(__file__).parents[2] / "telemetry" / "crash" / "crash_shim.c"
Files = dict[str, bytes]


class Disks:
    """A disk with directories: each is synced for itself."""

    def __init__(self, files: Files) -> None:
        self._parts: dict[str, Disk] = {}
        for path, data in files.items():
            part = self._part(str(Path(path).parent))
            part.names[path] = part.safe_names[path] = File(bytearray(data), data)

    def apply(self, op: Op) -> None:
        self._part(op.path if op.kind == "D" else str(Path(op.path).parent)).apply(op)

    def killed(self) -> Files:
        return {path: data for part in self._parts.values() for path, data in part.killed().items()}

    def power_cut(self, dice: random.Random) -> Files:
        return {path: data for part in self._parts.values() for path, data in part.power_cut(dice).items()}

    def _part(self, directory: str) -> Disk:
        return self._parts.setdefault(directory, Disk())


class Memory(FetcherInterface):
    """Answers r://repository/PATH from these files."""

    def __init__(self, root: Path, files: Files) -> None:
        self._root, self._files = root, files

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = str(self._root / url.removeprefix("r://repository/"))
        if path not in self._files:
            raise DownloadHTTPError("not there", 404)
        yield self._files[path]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("shim") / "crash_shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", built, SHIM, "-ldl"], check=True)
    return built


def record(shim: Path, depot: Depot, *argv: str) -> list[Op]:
    """Run the command and return all it did to the repository."""
    log = depot.root / "ops.log"
    env = {**os.environ, "LD_PRELOAD": str(shim), "CRASH_DIR": str(depot.tree.directory), "CRASH_LOG": str(log)}
    place = ["--dir", str(depot.tree.directory), "--keys", str(depot.keys)]
    command = [sys.executable, "-I", "-m", "sekisho.appliance.cli", "signatures", *argv, *place]
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    return list(read_log(log.read_bytes()))


def held(depot: Depot) -> Files:
    return {str(path): path.read_bytes() for path in depot.tree.directory.rglob("*") if path.is_file()}


def found_by(depot: Depot, files: Files, cache: Path) -> int:
    """The set a box takes from such a repository, whole and verified; its state is in `cache`."""
    client = client_of(Memory(depot.tree.directory, files), cache, depot.trusted)
    client.refresh()
    info = client.get_targetinfo(MANIFEST)
    assert info
    told = msgspec.json.decode(Path(client.download_target(info)).read_bytes(), type=Manifest)
    archive = client.get_targetinfo(told.path)
    assert archive
    content = delta.decompress(Path(client.download_target(archive)).read_bytes(), told.length)
    assert digest(content) == told.sha256 and content == depot.sets[told.number]
    return told.number


class Box:
    """A box that knows the repository as it was before, and refreshes from what a crash left of it."""

    def __init__(self, depot: Depot, before: Files, cache: Path) -> None:
        self._depot, self._cache = depot, cache
        self._answers: dict[frozenset[tuple[str, bytes]], int] = {}
        self.first = found_by(depot, before, cache)

    def finds(self, files: Files) -> int:
        """`found_by`; the same served files are asked about once."""
        served = frozenset((path, data) for path, data in files.items() if not Path(path).name.startswith("."))
        if served not in self._answers:
            again = self._cache.with_name("again")
            shutil.rmtree(again, ignore_errors=True)
            shutil.copytree(self._cache, again)
            self._answers[served] = found_by(self._depot, files, again)
        return self._answers[served]


def states(before: Files, ops: list[Op], cuts: int) -> Iterator[tuple[int, bool, Files]]:
    """Everything a crash may leave: after which operation, whether by a power cut, and the files."""
    disk, dice = Disks(before), random.Random(7)
    for place in range(len(ops) + 1):
        yield place, False, disk.killed()
        for _ in range(cuts):
            yield place, True, disk.power_cut(dice)
        if place < len(ops):
            disk.apply(ops[place])


@pytest.mark.parametrize("cuts", [2, pytest.param(20, marks=pytest.mark.full)])
def test_a_crash_anywhere_in_publishing_leaves_the_set_before_or_the_new_one(
    shim: Path, tmp_path: Path, cuts: int
) -> None:
    depot = Depot(tmp_path)
    depot.publish(1)
    depot.publish(2)
    before = held(depot)
    box = Box(depot, before, tmp_path / "box")
    assert box.first == 2
    directory = depot.build(3)
    ops = record(shim, depot, "publish", str(directory))
    done = next(place for place, op in enumerate(ops) if op.kind == "R" and op.data.endswith(b"/timestamp.json"))
    assert 30 < len(ops) < 120
    seen = set()
    for place, cut, files in states(before, ops, cuts):
        number = box.finds(files)
        seen.add((number, cut))
        if not cut:
            assert number == (3 if place > done else 2)
        elif place > done + 1:
            assert number == 3  # it was on the disk before the command went on
        assert number in (2, 3)
    assert seen == {(2, False), (3, False), (2, True), (3, True)}
    assert found_by(depot, held(depot), tmp_path / "new box") == 3


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.full)])
def test_publishing_again_after_a_crash_completes_it(shim: Path, tmp_path: Path, every: bool) -> None:
    depot = Depot(tmp_path)
    depot.publish(1)
    before = held(depot)
    directory = depot.build(2)
    ops = record(shim, depot, "publish", str(directory))
    for _, _, files in list(states(before, ops, 1))[:: 1 if every else 5]:
        lay_out(depot, files)
        publish(depot.tree, depot.ring, directory, dt.datetime.now(dt.UTC))
        after = held(depot)
        assert b'"number":2,' in after[str(depot.tree.directory / "published.json")]
        shutil.rmtree(tmp_path / "box", ignore_errors=True)
        assert found_by(depot, after, tmp_path / "box") == 2
        assert not status(depot.tree, dt.datetime.now(dt.UTC)).in_trouble


@pytest.mark.parametrize("act", ["renew", "root", "targets", "sig", "snapshot", "timestamp"])
def test_a_crash_anywhere_in_renewal_or_rotation_shuts_no_box_out(shim: Path, tmp_path: Path, act: str) -> None:
    depot = Depot(tmp_path, now=dt.datetime.now(dt.UTC) - dt.timedelta(hours=7))
    depot.publish(1)
    before = held(depot)
    box = Box(depot, before, tmp_path / "box")
    assert box.first == 1
    argv = ["renew"] if act == "renew" else ["rotate", act, "--new-keys", str(depot.keys / "new")]
    ops = record(shim, depot, "repository", *argv)
    assert len(ops) >= 5
    for _, _, files in states(before, ops, 2):
        assert box.finds(files) == 1
    lay_out(depot, held(depot))
    now = dt.datetime.now(dt.UTC)
    repository.renew(depot.tree, Ring([depot.keys]), now)
    assert not status(depot.tree, now).todo


def lay_out(depot: Depot, files: Files) -> None:
    for path in held(depot):
        Path(path).unlink()
    for path, data in files.items():
        Path(path).write_bytes(data)
