"""The content of a published set as one uncompressed tar, made the same way every time (`published`).

There is exactly one archive for one content: every header is what `pack` would have written for that name and size,
the names ascend, the padding is zero. So `read` compares instead of interpreting: links, devices, "..", extensions,
sparse files, repeated names and anything behind the end are all simply not that one archive, and are refused.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import sync_directory
from sekisho.signatures.published import ARCHIVE_CAP, FILES_CAP

BASELINE: Final = "baseline.json"
_NAME: Final = re.compile(
    r"(?:rules/{0}\.rules|yara/{0}\.(?:yar|sha256)|baseline\.json)".format(r"[A-Za-z0-9_][\w.+-]{0,84}"), re.ASCII
)
_BLOCK: Final = tarfile.BLOCKSIZE
_RECORD: Final = tarfile.RECORDSIZE


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive of `files`, named as `published` says; the same bytes for the same content, wherever it is made.

    Raises:
        RejectedInput: a name that is not of the form, no file at all, too many, or too large together.

    """
    out = bytearray()
    for name in sorted(files):
        if not allowed(name):
            raise RejectedInput(f"{name[:100]!r} has no place in a set of signatures.")
        data = files[name]
        if len(out) + len(data) + 2 * _RECORD > ARCHIVE_CAP:
            raise RejectedInput(f"The signatures together are larger than the {ARCHIVE_CAP >> 20} MB that are allowed.")
        out += _header(name, len(data)) + data + bytes(-len(data) % _BLOCK)
    if not files or len(files) > FILES_CAP:
        raise RejectedInput(f"A set of signatures has 1 to {FILES_CAP} files; this one has {len(files)}.")
    out += _end(len(out))
    return bytes(out)


def read(archive: bytes) -> dict[str, bytes]:
    """The files in it, by name.

    Raises:
        RejectedInput: it is not the one archive `pack` makes of its content.

    """
    if len(archive) > ARCHIVE_CAP:
        raise RejectedInput(f"The archive is larger than the {ARCHIVE_CAP >> 20} MB that are allowed.")
    files: dict[str, bytes] = {}
    last, at = "", 0
    while archive[at : at + 1] not in (b"", b"\0"):
        header = archive[at : at + _BLOCK]
        name, size = _told(header)
        if not allowed(name) or name <= last or header != _header(name, size) or len(files) == FILES_CAP:
            raise RejectedInput(f"The archive is not of the form of a set (at byte {at}: {name[:100]!r}).")
        begin, end = at + _BLOCK, at + _BLOCK + size
        at = end + -end % _BLOCK
        if at > len(archive) or any(archive[end:at]):
            raise RejectedInput(f"The archive is damaged in {name!r}.")
        files[name], last = archive[begin:end], name
    if not files or archive[at:] != _end(at):
        raise RejectedInput("The archive is empty, cut off, or has something behind its end.")
    return files


def unpack(archive: bytes | Path, directory: Path) -> None:
    """Write the archive's files below `directory`, which must not be there yet; all is on the disk at return.

    Nothing is written before the whole archive was found sound. On a fault nothing of `directory` is left; a power
    cut may leave it in any state, so unpack beside and rename.

    Raises:
        RejectedInput: the archive is not of the form (`read`).
        DeviceFault: the disk refuses it, or `directory` is there.

    """
    files = read(_content(archive) if isinstance(archive, Path) else archive)
    try:
        directory.mkdir(mode=0o755)
    except OSError as err:
        raise _unwritten(directory, err) from err
    try:
        _write(files, directory)
    except OSError as err:
        shutil.rmtree(directory, ignore_errors=True)
        raise _unwritten(directory, err) from err


def allowed(name: str) -> bool:
    """Whether a set may hold a file of this name."""
    return _NAME.fullmatch(name) is not None


def _write(files: Mapping[str, bytes], directory: Path) -> None:
    for folder in ("rules", "yara"):
        (directory / folder).mkdir(mode=0o755)
    for name, data in files.items():
        with (directory / name).open("xb") as out:
            out.write(data)
    for name in files:  # after all were written: the disk then has them in few large writes
        fd = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    for written in (directory / "rules", directory / "yara", directory, directory.parent):
        sync_directory(written)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as source:
            return source.read(ARCHIVE_CAP + 1)
    except OSError as err:
        raise DeviceFault(f"Cannot read {path}: {err.strerror}.") from err


def _unwritten(directory: Path, err: OSError) -> DeviceFault:
    return DeviceFault(
        f"Cannot write the signatures to {directory}: {err.strerror}.", "Free space on the data partition."
    )


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry.tobuf(tarfile.USTAR_FORMAT, "ascii")


def _told(header: bytes) -> tuple[str, int]:
    """Name and size a header claims; nothing else in it is believed. Size 0 and no name where they make no sense."""
    digits = header[124:135]
    if len(header) < _BLOCK or not re.fullmatch(rb"[0-7]{11}", digits):
        return "", 0
    return header[:100].rstrip(b"\0").decode("ascii", "replace"), int(digits, 8)


def _end(length: int) -> bytes:
    """Two empty blocks, and up to whole records, as every tar ends."""
    return bytes(2 * _BLOCK + -(length + 2 * _BLOCK) % _RECORD)
