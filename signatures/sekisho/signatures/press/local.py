"""Files of a source on this machine: one file, a directory, or an archive, read under the caps a box has."""

from __future__ import annotations

import bz2
import fnmatch
import gzip
import hashlib
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.signatures.model import MAX_FILE_BYTES, MAX_FILES, MAX_HASH_BYTES, MAX_TOTAL_BYTES, Source

ENTRIES_CAP = 200_000
"""Entries of an archive or below a directory, wanted or not."""
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_TAR = re.compile(r"\.(tar|tgz|txz|tbz2)(\.(gz|xz|bz2))?$")
_ODD = re.compile(r"[^A-Za-z0-9_.+-]")
_FAULTS = (OSError, EOFError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, RuntimeError, NotImplementedError)


def files(path: Path, suffixes: Sequence[str], leave_out: Sequence[str] = ()) -> list[Source]:
    """Every file with one of `suffixes`, by name. Names are those of the files alone, without directories.

    Links are not followed, and in archives only plain files are looked at.

    Raises:
        DeviceFault: it is not there or cannot be read.
        RejectedInput: nothing of that kind in it, damaged, or past a cap.

    """
    found: dict[str, bytes] = {}
    left = max(MAX_TOTAL_BYTES, MAX_HASH_BYTES if ".sha256" in suffixes else 0)
    try:
        for name, source in _entries(path, suffixes):
            plain = PurePosixPath(name).name
            if any(fnmatch.fnmatchcase(plain, pattern) for pattern in leave_out):
                continue
            data = source.read(min(left, max(MAX_FILE_BYTES, left if ".sha256" in suffixes else 0)) + 1)
            left -= len(data)
            if left < 0 or (len(data) > MAX_FILE_BYTES and ".sha256" not in suffixes):
                raise RejectedInput(f"{path}: {name} is too large, or the files are together.")
            found[_free(plain, name, found)] = data
            if len(found) > MAX_FILES:
                raise RejectedInput(f"{path} holds more than {MAX_FILES} files.")
    except FileNotFoundError as err:
        raise DeviceFault(f"{path} is not there.") from err
    except PermissionError as err:
        raise DeviceFault(f"{path}: {err.strerror}.") from err
    except _FAULTS as err:
        raise RejectedInput(f"{path} is damaged: {err}.") from err
    if not found:
        raise RejectedInput(f"{path} holds no {' or '.join(suffixes)} file.")
    return [Source(name, found[name]) for name in sorted(found)]


def safe_stem(name: str, room: int) -> str:
    """The name without its ending, in the letters a set's files may have, and at most `room` (>= 20) of them."""
    stem = _ODD.sub("_", PurePosixPath(name).stem)
    if len(stem) > room or stem != PurePosixPath(name).stem:
        stem = f"{stem[: room - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return stem


def _entries(path: Path, suffixes: Sequence[str]) -> Iterator[tuple[str, IO[bytes]]]:
    if path.is_dir():
        yield from _below(path, suffixes)
    elif _TAR.search(path.name):
        yield from _in_tar(path, suffixes)
    elif path.suffix == ".zip":
        yield from _in_zip(path, suffixes)
    elif path.suffix in _OPENERS:
        with _OPENERS[path.suffix](path, "rb") as source:
            yield path.stem if PurePosixPath(path.stem).suffix in suffixes else path.stem + suffixes[0], source
    else:
        with path.open("rb") as source:
            yield path.name if path.suffix in suffixes else path.name + suffixes[0], source


def _below(path: Path, suffixes: Sequence[str]) -> Iterator[tuple[str, IO[bytes]]]:
    for number, entry in enumerate(sorted(path.rglob("*"))):
        _counted(path, number)
        if entry.suffix in suffixes and entry.is_file() and not entry.is_symlink():
            with entry.open("rb") as source:
                yield str(entry.relative_to(path)), source


def _in_tar(path: Path, suffixes: Sequence[str]) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path, "r|*") as archive:
        for number, member in enumerate(archive):
            _counted(path, number)
            if member.type == tarfile.REGTYPE and PurePosixPath(member.name).suffix in suffixes:
                source = archive.extractfile(member)
                if source is not None:
                    yield member.name, source


def _in_zip(path: Path, suffixes: Sequence[str]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for number, info in enumerate(archive.infolist()):
            _counted(path, number)
            if not info.is_dir() and PurePosixPath(info.filename).suffix in suffixes:
                with archive.open(info) as source:
                    yield info.filename, source


def _counted(path: Path, number: int) -> None:
    if number >= ENTRIES_CAP:
        raise RejectedInput(f"{path} holds more than {ENTRIES_CAP} files and directories.")


def _free(plain: str, name: str, taken: dict[str, bytes]) -> str:
    if plain not in taken:
        return plain
    path = PurePosixPath(plain)
    return f"{path.stem}-{hashlib.sha256(name.encode()).hexdigest()[:8]}{path.suffix}"
