"""Makes of a verified bundle a release that can be switched to: unpacked, its programs installed, safe on the disk.

    RELEASES/COUNTER-SHA/release.json    the release; SHA is the begin of its bundle's hash
    RELEASES/COUNTER-SHA/venv            its programs
    RELEASES/COUNTER-SHA/engine          its engine, where it brings one

A release is there under its name when all of it is on the disk, and not before: it is made under a hidden name beside
and renamed. What a power cut left under a hidden name is removed the next time. Nothing here touches the network, nor
any other release.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import open_plain, sync_directory, write_atomic
from sekisho.firmware.content import (
    CONTENT,
    ENGINE,
    FILES_CAP,
    REQUIREMENTS,
    UNPACKED_CAP,
    WHEELS,
    WINDOW_LOG,
    Content,
    allowed,
    zstd,
)
from sekisho.firmware.published import BUNDLE_CAP, RELEASE_CAP, Release
from sekisho.signatures.keeper.download import room

RELEASE: Final = "release.json"
VENV: Final = "venv"
INSTALL_S: Final = 1800.0
"""On the slowest board."""
_HIDDEN: Final = ".making-"
_NAMED: Final = re.compile(r"\d{1,16}-[0-9a-f]{16}")
_COPY_BYTES: Final = 1 << 20
_PROCESSORS: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_FULL: Final = (28, 122)
"""ENOSPC, EDQUOT."""


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


class Staged(msgspec.Struct, frozen=True):
    """A release that can be switched to."""

    release: Release
    path: Path


def path_of(release: Release, root: Path) -> Path:
    """Where it is, once it is staged."""
    return root / release.name


def stage(bundle: Path, release: Release, root: Path) -> Path:
    """`release`, complete below `root`. Takes a minute or more; may be repeated, also after it was cut short.

    Raises:
        RejectedInput: the bundle is not the release's, not of the form, for another machine or Python, or its
            programs cannot be installed; no repetition helps.
        DeviceFault: the disk is full or refuses; all other releases are untouched.

    """
    final = path_of(release, root)
    making = root / f"{_HIDDEN}{final.name}"
    try:
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        sweep(root)
        if _read(final) is not None:
            return final
        if final.exists():  # nothing of ours is there without its release
            shutil.rmtree(final)
        _judge(bundle, release)
        room(root, release.unpacked, "a new release")
        making.mkdir(mode=0o755)
        content = _unpack(bundle, release, making)
        try:
            _install(making, final, content)
        except RejectedInput as err:  # what installs does not always say that the disk was full
            if shutil.disk_usage(root).free + _size(making) < release.unpacked:
                raise OSError(_FULL[0], os.strerror(_FULL[0])) from err
            raise
        write_atomic(making / RELEASE, msgspec.json.encode(release), 0o644)
        os.sync()
        making.rename(final)
        sync_directory(root)
    except OSError as err:
        full = err.errno in _FULL
        raise DeviceFault(
            f"The new release cannot be put into {root}: {err.strerror or err}.",
            "Free space on the data partition; the release in use goes on."
            if full
            else "The box's storage may be failing; have it looked at.",
        ) from err
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return final


def staged(root: Path) -> list[Staged]:
    """What can be switched to, by counter, ascending."""
    found = [(path, _read(path)) for path in root.glob("*-*") if _NAMED.fullmatch(path.name)] if root.is_dir() else []
    whole = [Staged(release, path) for path, release in found if release and path_of(release, root) == path]
    return sorted(whole, key=lambda one: one.release.counter)


def remove(release: Release, root: Path) -> None:
    """Remove a release that is not in use; after a power cut in the middle it is gone or still whole.

    Raises:
        DeviceFault: the disk refuses.

    """
    path = path_of(release, root)
    hidden = root / f"{_HIDDEN}{path.name}"
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        with suppress(FileNotFoundError):
            path.rename(hidden)
            sync_directory(root)
        shutil.rmtree(hidden, ignore_errors=True)
    except OSError as err:
        raise DeviceFault(f"Cannot remove {path}: {err.strerror}.") from err


def sweep(root: Path) -> None:
    """Remove what was being made or removed when the power went."""
    for path in root.glob(f"{_HIDDEN}*"):
        shutil.rmtree(path, ignore_errors=True)


def _read(path: Path) -> Release | None:
    try:
        with open_plain(path / RELEASE, RELEASE_CAP) as source:
            return msgspec.json.decode(source.read(), type=Release)
    except (OSError, msgspec.MsgspecError):
        return None


def _size(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def _judge(bundle: Path, release: Release) -> None:
    if release.tier != 1:
        raise RejectedInput(f"Release {release.counter} is a system image; it is not unpacked but installed.")
    compare(bundle, release)


def compare(bundle: Path, release: Release) -> None:
    """Hold the file against what was signed.

    Raises:
        RejectedInput: it is another.
        OSError: it cannot be read.

    """
    with open_plain(bundle, BUNDLE_CAP) as source:
        right = os.fstat(source.fileno()).st_size == release.length
        right = right and hashlib.file_digest(source, "sha256").hexdigest() == release.sha256
    if not right:
        raise RejectedInput(f"The bundle is not that of release {release.counter}.", "It is fetched again.")


def _unpack(bundle: Path, release: Release, folder: Path) -> Content:
    """Write the bundle's files below `folder`, none of them anywhere else, and no more than was said."""
    cap = min(release.unpacked, UNPACKED_CAP)
    digest = hashlib.sha256()
    total, names = 0, set[str]()
    try:
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
        with (
            open_plain(bundle, release.length) as source,
            zstd.ZstdFile(_Hashed(source, digest), options=options) as plain,
            tarfile.open(fileobj=plain, mode="r|") as archive,
        ):
            for entry in archive:
                if entry.type != tarfile.REGTYPE or entry.sparse is not None or not allowed(entry.name):
                    raise RejectedInput(f"The release holds {entry.name[:100]!r}, which has no place in one.")
                total += entry.size
                if entry.name in names or len(names) >= FILES_CAP or total > cap:
                    raise RejectedInput(f"The release is larger than it says, or has {entry.name!r} twice.")
                names.add(entry.name)
                taken = archive.extractfile(entry)
                if taken is None:
                    raise RejectedInput(f"The release is damaged in {entry.name!r}.")
                path = folder / entry.name
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                with path.open("xb") as out:
                    shutil.copyfileobj(taken, out, _COPY_BYTES)
                path.chmod(0o755 if entry.mode & 0o100 else 0o644)
            while plain.read(_COPY_BYTES):
                pass
        if digest.hexdigest() != release.sha256:  # whoever may write the file changed it since it was judged
            raise RejectedInput("The bundle changed while it was being unpacked.")
        said = (folder / CONTENT).read_bytes() if CONTENT in names else b""
        content = msgspec.json.decode(said, type=Content)
    except (
        tarfile.TarError,
        zstd.ZstdError,
        EOFError,
        msgspec.MsgspecError,
        FileExistsError,
        FileNotFoundError,
    ) as err:
        raise RejectedInput(f"The release cannot be unpacked: {err}.") from err
    _judge_content(content, release)
    return content


class _Hashed(io.RawIOBase):
    """What is read from `source`, as it is hashed on the way."""

    def __init__(self, source: BinaryIO, digest: _Digest) -> None:
        self._source, self._digest = source, digest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._digest.update(data)
        return data


def _judge_content(content: Content, release: Release) -> None:
    told = (content.counter, content.version, content.hardware, content.engine)
    if told != (release.counter, release.version, release.hardware, release.engine):
        raise RejectedInput(f"The bundle says it is release {content.counter} for {content.hardware}, not this one.")
    machine = _PROCESSORS.get(os.uname().machine, os.uname().machine)
    if content.machine != machine:
        raise RejectedInput(f"The bundle is for {content.machine} processors; this one is {machine}.")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if content.python != here:
        raise RejectedInput(
            f"The bundle is for Python {content.python}; this box has {here}.", "It needs a new system image first."
        )


def _install(making: Path, final: Path, content: Content) -> None:
    """Programs into a venv, from the bundle's wheels alone, each with the hash that was signed."""
    venv = making / VENV
    python = venv / "bin" / "python"
    _run([str(Path(sys.executable).resolve()), "-I", "-m", "venv", str(venv)], making)
    argv = [str(python), "-I", "-m", "pip", "--isolated", "--disable-pip-version-check", "--no-cache-dir"]
    install = ["install", "--quiet", "--no-index", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    _run([*argv, *install, "--find-links", str(making / WHEELS), "-r", str(making / REQUIREMENTS)], making)
    _run([*argv, "check"], making)
    _run([*argv, "uninstall", "--quiet", "--yes", "setuptools", "pip"], making)
    for script in (venv / "bin").iterdir():
        _move_shebang(script, making, final)
    shutil.rmtree(making / WHEELS)
    for name in (REQUIREMENTS, CONTENT):
        (making / name).unlink()
    if content.engine and not (making / ENGINE).is_dir():
        raise RejectedInput(f"The release says it brings the engine {content.engine}, and does not.")


def _move_shebang(script: Path, making: Path, final: Path) -> None:
    if script.is_symlink() or not script.is_file():
        return
    data = script.read_bytes()
    moved = data.replace(os.fsencode(making), os.fsencode(final))
    if moved != data:
        script.write_bytes(moved)


def _run(argv: list[str], making: Path) -> None:
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(making), "TMPDIR": str(making)}
    try:
        done = subprocess.run(
            argv, env=env, umask=0o022, capture_output=True, text=True, errors="replace", timeout=INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise DeviceFault("Installing the new release takes too long.", "Is the box's storage failing?") from err
    if done.returncode:
        told = (done.stderr or done.stdout).strip()[-500:]
        raise RejectedInput(f"The programs of the release cannot be installed: {told}.")
