"""One bundle of tier 1 and the release that describes it: the same bytes from the same commit and lock, wherever.

Order, times, owners and modes in the tar are fixed, the compression is one thread at one level; what may differ is the
version of the compressing library, which the lock holds.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.firmware.content import CONTENT, FILES_CAP, UNPACKED_CAP, WINDOW_LOG, Content, allowed, zstd
from sekisho.firmware.published import BLOCK, BUNDLE_CAP, Release

RELEASE: Final = "release.json"
_LEVEL: Final = 12
_COMPILED: Final = 2
"""An installed package takes its own size and its compiled form's."""
_VENV_BYTES: Final = 24 << 20


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What people say of a release (`Release`)."""

    from_counter: int = 0
    urgent: bool = False
    notes_ja: str = ""
    notes_en: str = ""


def pack(content: Content, files: Mapping[str, Path], epoch: int, path: Path) -> None:
    """Write the bundle of `files` (by their names in it; executable where the file is) to `path`.

    Raises:
        RejectedInput: a name that is not of the form, too many files, or too large together.
        DeviceFault: the disk refuses it.

    """
    if wrong := next((name for name in files if not allowed(name) or name == CONTENT), None):
        raise RejectedInput(f"{wrong!r} has no place in a release.")
    if len(files) >= FILES_CAP:
        raise RejectedInput(f"A release has {FILES_CAP} files at most; this one has {len(files)}.")
    parameter = zstd.CompressionParameter
    options: dict[int, int] = {
        parameter.compression_level: _LEVEL,
        parameter.window_log: WINDOW_LOG,
        parameter.checksum_flag: 1,
        parameter.nb_workers: 0,
    }
    try:
        with (
            path.open("wb") as out,
            zstd.ZstdFile(out, "w", options=options) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
        ):
            said = msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
            archive.addfile(_entry(CONTENT, len(said), epoch), io.BytesIO(said))
            for name in sorted(files):
                stat = files[name].stat()
                with files[name].open("rb") as source:
                    archive.addfile(_entry(name, stat.st_size, epoch, bool(stat.st_mode & 0o100)), source)
    except OSError as err:
        raise DeviceFault(f"Cannot write {path}: {err.strerror or err}.") from err
    if path.stat().st_size > BUNDLE_CAP:
        raise RejectedInput(f"The bundle has {path.stat().st_size >> 20} MB; {BUNDLE_CAP >> 20} are allowed.")


def describe(content: Content, files: Mapping[str, Path], epoch: int, bundle: Path, terms: Terms) -> Release:
    """The release of a bundle.

    Raises:
        RejectedInput: it takes more on a box's disk than may be.

    """
    blocks, whole = [], hashlib.sha256()
    with bundle.open("rb") as source:
        while block := source.read(BLOCK):
            whole.update(block)
            blocks.append(hashlib.sha256(block).hexdigest())
    unpacked = _VENV_BYTES + sum(_unpacked(path) for path in files.values())
    if unpacked > UNPACKED_CAP:
        raise RejectedInput(f"The release takes {unpacked >> 20} MB on a box; {UNPACKED_CAP >> 20} are allowed.")
    return Release(
        counter=content.counter,
        version=content.version,
        hardware=content.hardware,
        tier=1,
        built=utc.of_unix(epoch),
        path=f"fw/{content.hardware}/{content.counter}.tar.zst",
        sha256=whole.hexdigest(),
        length=bundle.stat().st_size,
        blocks=blocks,
        unpacked=unpacked,
        engine=content.engine,
        from_counter=terms.from_counter,
        urgent=terms.urgent,
        notes_ja=terms.notes_ja,
        notes_en=terms.notes_en,
    )


def write(release: Release, folder: Path) -> Path:
    """Put `release.json` beside its bundle.

    Raises:
        DeviceFault: the disk refuses it.

    """
    path = folder / RELEASE
    try:
        write_atomic(path, msgspec.json.format(msgspec.json.encode(release), indent=1) + b"\n", 0o644)
    except OSError as err:
        raise DeviceFault(f"Cannot write {path}: {err.strerror}.") from err
    return path


def _entry(name: str, size: int, epoch: int, executable: bool = False) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, epoch, 0o755 if executable else 0o644
    return entry


def _unpacked(path: Path) -> int:
    if path.suffix != ".whl":
        return path.stat().st_size
    with zipfile.ZipFile(path) as wheel:
        return _COMPILED * sum(entry.file_size for entry in wheel.infolist())
