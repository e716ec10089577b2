"""Carries out the machine's commands on the real box: network, disk, engines in children. Each may be repeated."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sekisho.appliance.core import muting, told_time
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput, SekishoError
from sekisho.appliance.core.settings import Settings
from sekisho.signatures import compiler
from sekisho.signatures.keeper import prove
from sekisho.signatures.keeper.download import Downloader, Target
from sekisho.signatures.keeper.facts import Fetched, Refreshed, Switched, Tested, Unpacked
from sekisho.signatures.keeper.journal import Kept
from sekisho.signatures.keeper.stage import Stage
from sekisho.signatures.published import Manifest
from sekisho.signatures.reaching import believe, reach
from sekisho.signatures.trust import ChannelRefused, Folder, Source, Trust, Web


class Effects:
    """What asks the network may be called from several threads, one of which then waits for the other."""

    def __init__(self, settings: Settings, stopping: Callable[[], bool]) -> None:
        self._settings = settings
        self._root = settings.channel
        self.stage = Stage(self._root)
        self.stage.sweep()
        self._download = Downloader(self._root / "download", stopping)
        self._web: Web | None = None
        self._trust: Trust | None = None
        self._alone = threading.Lock()

    def refresh(self, *, again: bool) -> Refreshed:
        """Ask the channel what is newest.

        Raises:
            PeerError: it does not answer.
            RejectedInput: what it says is not believed.
            DeviceFault: this box cannot judge.

        """
        with self._alone:
            return self._refresh(again=again)

    def _refresh(self, *, again: bool) -> Refreshed:
        source = self._online()
        if self._trust is None:
            self._trust = self._believing(source)
        try:
            self._trust.refresh(time.time(), told_time.try_read(self._settings))
            return self._told(self._trust.manifest(), current=True, again=again)
        except SekishoError as err:
            self._trust.close()
            self._trust = None
            if isinstance(err, ChannelRefused) and err.code == "missing":
                raise PeerError("The channel has no set yet.") from err
            raise

    def imported(self, directory: Path, *, confirm_old: bool) -> Refreshed:
        """The same from a copy of the repository in a directory; the archive is taken from there as well."""
        if not (directory / "metadata").is_dir() or not (directory / "targets").is_dir():
            raise RejectedInput(
                f"{directory} holds no copy of the channel, or it may not be read.",
                "There must be two folders in it, metadata and targets.",
            )
        with self._alone:
            return self._imported(Folder(directory), confirm_old=confirm_old)

    def _imported(self, source: Source, *, confirm_old: bool) -> Refreshed:
        self._trust = None  # one at a time has the floors
        trust = self._believing(source)
        try:
            trust.refresh(time.time(), told_time.try_read(self._settings), accept_old=confirm_old)
            manifest = trust.manifest()
            told = self._told(manifest, current=not confirm_old, again=True)
            if not told.unfit:
                self.stage.obtain(manifest, lambda path, cap: self._file(source, trust, path, cap))
        finally:
            trust.close()
        return told

    def fetch(self, manifest: Manifest) -> Fetched:
        """The archive is here, by what is at hand, the delta, or whole."""
        with self._alone:
            self.stage.obtain(manifest, self._fetch_online)
        return Fetched()

    def unpack(self, manifest: Manifest) -> Unpacked:
        self.stage.unpack(manifest)
        return Unpacked()

    def test(self, manifest: Manifest, active: Kept) -> Tested:
        _give_back()
        kept = prove.build(self._settings, manifest, self.stage)
        return Tested(kept, prove.compare(self._settings, kept, manifest, active, self.stage))

    def switch(self, wanted: str, mine: muting.Muting) -> Switched:
        self.mute(mine)
        compiler.switch(self._settings, wanted)
        return Switched()

    def mute(self, mine: muting.Muting) -> None:
        """Say what is muted, unless that is what the file says already."""
        path = muting.path_of(self._settings, "mine")
        try:
            if mine != muting.Muting() or path.exists():
                muting.write(self._settings, "mine", mine)
        except OSError as err:
            raise DeviceFault(f"Cannot write {path}: {err.strerror}.", "Free space on the data partition.") from err

    def discard(self, number: int, ids: tuple[str, ...], numbers: tuple[int, ...]) -> None:
        """Remove what was made for `number`; of `ids` and `numbers` nothing is touched."""
        if number not in numbers:
            self.stage.discard(number)
        compiler.tidy(self._settings, ids)

    def tidy(self, ids: tuple[str, ...], numbers: tuple[int, ...]) -> None:
        compiler.tidy(self._settings, ids)
        self.stage.tidy(numbers)

    def _told(self, manifest: Manifest, *, current: bool, again: bool) -> Refreshed:
        return Refreshed(manifest, unfit=prove.unfit(manifest), current=current, again=again)

    def _online(self) -> Source:
        if self._web is None:
            self._web = reach(self._settings)
        return self._web

    def _believing(self, source: Source) -> Trust:
        return believe(self._settings, self._root / "trust", source)

    def _fetch_online(self, path: str, cap: int) -> Path:
        source = self._online()
        if self._trust is None:
            self._trust = self._believing(source)
            self._trust.refresh(time.time(), told_time.try_read(self._settings))
        return self._file(source, self._trust, path, cap)

    def _file(self, source: Source, trust: Trust, path: str, cap: int) -> Path:
        found = trust.target(path)
        sha256 = found.hashes.get("sha256", "")
        if len(sha256) != 64 or found.length > cap:
            raise PeerError(f"The channel's {path} is not what its manifest says.")
        return self._download.fetch(source, Target(found.url, found.length, sha256))


def _give_back() -> None:
    """Let the kernel have what unpacking needed: beside the engine and its tester there is not much to spare."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)
