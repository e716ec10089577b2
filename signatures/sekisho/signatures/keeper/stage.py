"""Has the archive of a set here: from what the box already has, by the delta, or whole; whichever is right and least.

Archives lie uncompressed in `channel/archives/NUMBER.tar`: they are what the next delta is applied to, and what a set
is made of again. An archive counts only with the signed hash.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.appliance.core.fsio import sync_directory, write_atomic
from sekisho.signatures import archive, delta
from sekisho.signatures.keeper.download import room
from sekisho.signatures.published import ARCHIVE_CAP, Delta, Manifest

log = logging.getLogger(__name__)

Fetch = Callable[[str, int], Path]
"""From a path in the repository and its greatest length in bytes to a verified file."""


class Stage:
    """The channel's archives and unpacked sources below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._archives, self._sources = root / "archives", root / "sources"

    def archive(self, number: int) -> Path:
        return self._archives / f"{number}.tar"

    def sources(self, number: int) -> Path:
        return self._sources / str(number)

    def obtain(self, manifest: Manifest, fetch: Fetch) -> None:
        """The archive of `manifest` is on the disk at return.

        Raises:
            PeerError: the server does not give it, or gives something else.
            DeviceFault: no room on the disk.

        """
        if _matches(self.archive(manifest.number), manifest.sha256):
            return
        self._archives.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Compressed, uncompressed, unpacked and compiled.
        room(self._root, manifest.packed + 4 * manifest.length)
        data = self._by_delta(manifest, fetch)
        if data is None:
            data = self._whole(manifest, fetch)
        try:
            write_atomic(self.archive(manifest.number), data)
        except OSError as err:
            raise _unwritten(self._archives, err) from err

    def unpack(self, manifest: Manifest) -> Path:
        """The sources of the set, complete, in a directory of their own.

        Raises:
            RejectedInput: the archive is not of the form of a set; it was signed, so no other download helps.
            DeviceFault: the archive is damaged, or no room on the disk.

        """
        if not _matches(self.archive(manifest.number), manifest.sha256):
            raise DeviceFault(f"The archive of set {manifest.number} is damaged on the disk.")
        final = self.sources(manifest.number)
        fresh = final.with_name(f".{final.name}.new")
        try:
            self._sources.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(fresh, ignore_errors=True)
            archive.unpack(self.archive(manifest.number), fresh)
            shutil.rmtree(final, ignore_errors=True)
            fresh.rename(final)
            sync_directory(self._sources)
        except OSError as err:
            raise _unwritten(self._sources, err) from err
        return final

    def sweep(self) -> None:
        """Remove what a cut left of files that were being written. Only where nobody writes: at the beginning."""
        for folder in (self._root, self._archives):
            for path in folder.glob(".*.tmp"):
                with suppress(OSError):
                    path.unlink()

    def discard(self, number: int) -> None:
        """Remove what was made for this number."""
        self.archive(number).unlink(missing_ok=True)
        shutil.rmtree(self.sources(number), ignore_errors=True)

    def tidy(self, numbers: tuple[int, ...]) -> None:
        """Keep the archives of `numbers`, no unpacked sources and no download."""
        shutil.rmtree(self._sources, ignore_errors=True)
        shutil.rmtree(self._root / "download", ignore_errors=True)
        for path in self._archives.glob("*.tar"):
            if path.stem not in map(str, numbers):
                path.unlink(missing_ok=True)

    def _by_delta(self, manifest: Manifest, fetch: Fetch) -> bytes | None:
        """None where there is none from here, or it does not lead to the signed archive: then the whole is fetched."""
        for step in manifest.deltas:
            base = self._base(step)
            if base is None or step.length >= manifest.packed:
                continue
            try:
                data = delta.apply(base, fetch(step.path, step.length).read_bytes(), manifest.length)
            except (RejectedInput, PeerError) as err:
                log.warning("the delta from set %d is of no use: %s", step.base, err)
                continue
            if hashlib.sha256(data).hexdigest() == manifest.sha256:
                return data
            log.warning("the delta from set %d leads elsewhere", step.base)
        return None

    def _base(self, step: Delta) -> bytes | None:
        path = self.archive(step.base)
        try:
            data = path.read_bytes() if path.stat().st_size <= ARCHIVE_CAP else b""
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == step.base_sha256 else None

    def _whole(self, manifest: Manifest, fetch: Fetch) -> bytes:
        packed = fetch(manifest.path, manifest.packed)
        try:
            data = delta.decompress(packed.read_bytes(), manifest.length)
        except RejectedInput as err:
            raise PeerError(f"The set cannot be unpacked: {err}") from err
        if hashlib.sha256(data).hexdigest() != manifest.sha256:
            raise PeerError("The set is not the one its manifest names.")
        return data


def _matches(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as source:
            return hashlib.file_digest(source, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _unwritten(folder: Path, err: OSError) -> DeviceFault:
    return DeviceFault(f"Cannot write to {folder}: {err.strerror}.", "Free space on the data partition.")
