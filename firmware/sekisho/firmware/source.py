"""What the signed channel offers this box: the newest release for its hardware, and who may sign jobs.

The same chain as the rule sets' (`signatures.trust`), with floors and metadata of its own, because another daemon has
the sets'. A release is believed when two keyholders of `fw` signed it, it is for this hardware, it is none that this
box has seen a later one than, and the bundle it names is the one the same list names.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core import jobs, told_time
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput, SekishoError
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.firmware import blocks, proof
from sekisho.firmware.published import BLOCK, FW, OPERATORS, OPERATORS_CAP, RELEASE_CAP, Release, release_path
from sekisho.signatures import trust
from sekisho.signatures.reaching import believe, reach
from sekisho.signatures.trust import ChannelRefused, Limits, Trust

log = logging.getLogger(__name__)

_OPERATORS: Final = OPERATORS.partition("/")[0]
_PROCESSORS: Final = {"x86_64": "amd64", "aarch64": "arm64"}


class Source:
    """The channel, as the firmware daemon asks it. `refresh` and `fetch` may go on at the same time."""

    def __init__(self, settings: Settings, limits: Limits = blocks.LIMITS, way: trust.Source | None = None) -> None:
        """Nothing is asked yet.

        Args:
            settings: the channel, the hardware, and where its own files are.
            limits: how long a download may stall, and how slow it may be.
            way: another way to the channel's files than the server (a copy on a stick).

        """
        self._settings, self._limits, self._way = settings, limits, way
        self._root = settings.firmware_state
        self._trust: Trust | None = None
        self._asking, self._loading = threading.Lock(), threading.Lock()

    def refresh(self) -> Release:
        """The newest release for this hardware; its counter is a floor; its proof for root and `operators.json` are in
        place at return.

        Raises:
            PeerError: the channel does not answer, or has no release for this hardware yet.
            RejectedInput: what it says is not believed (`signatures.trust.faults`), or is for other hardware.
            DeviceFault: this box cannot judge or keep it.

        """
        with self._asking:
            try:
                return self._refresh()
            except SekishoError:
                if self._trust is not None:
                    self._trust.close()
                self._trust = None
                raise

    def fetch(
        self,
        release: Release,
        progress: blocks.Progress = lambda _here, _all: None,
        cancelled: Callable[[], bool] = lambda: False,
        max_bytes: int = 0,
    ) -> Path:
        """The bundle of a release that `refresh` once gave, verified (`blocks.fetch`, which says what is raised)."""
        with self._loading:
            way = self._way or reach(self._settings, self._limits)
            return blocks.fetch(way, release, self._root / "download", progress, cancelled, max_bytes)

    def discard(self, needed: Callable[[], str] = lambda: "") -> None:
        """Remove what was downloaded: it is staged, or no longer wanted. Spared is the bundle whose SHA-256 `needed`
        gives, asked when nothing is being fetched.
        """
        with self._loading:
            spared = needed()
            for path in (self._root / "download").glob("*"):
                if blocks.bundle_of(path) != spared:
                    path.unlink(missing_ok=True)

    def _refresh(self) -> Release:
        if self._trust is None:
            try:
                self._root.mkdir(mode=0o750, parents=True, exist_ok=True)
            except OSError as err:
                raise DeviceFault(f"{self._root}: {err.strerror}.") from err
            self._trust = believe(self._settings, self._root / "trust", self._way or reach(self._settings))
        found = self._trust
        found.refresh(time.time(), told_time.try_read(self._settings))
        try:
            self._take_operators(found)
        except SekishoError as err:  # programs are renewed whoever may sign jobs
            log.warning("who may sign jobs is not known anew: %s", err)
        return self._newest(found)

    def _newest(self, found: Trust) -> Release:
        hardware = hardware_of(self._settings)
        try:
            data = found.fetch(found.target(release_path(hardware)), RELEASE_CAP)
        except ChannelRefused as err:
            if err.code == "missing":
                raise PeerError(f"The channel has no release for {hardware} yet.") from err
            raise
        try:
            release = msgspec.json.decode(data, type=Release)
        except (msgspec.MsgspecError, RecursionError) as err:
            raise ChannelRefused("malformed", f"The release cannot be read: {err}.") from err
        if release.hardware != hardware:
            raise RejectedInput(f"The channel offers a release for {release.hardware}; this box is {hardware}.")
        if len(release.blocks) != -(-release.length // BLOCK) or not release.path.startswith(
            f"{FW}/{hardware}/{release.counter}."
        ):
            raise ChannelRefused("malformed", "The release does not agree with itself.")
        bundle = found.target(release.path)
        if (bundle.length, bundle.hashes.get("sha256")) != (release.length, release.sha256):
            raise ChannelRefused("forged", "The channel's list and its release name different bundles.")
        found.counted(FW, release.counter)
        proof.keep(self._settings, release, data, found.evidence(FW))
        return release

    def _take_operators(self, found: Trust) -> None:
        path = self._settings.operators
        try:
            data = found.fetch(found.target(OPERATORS), OPERATORS_CAP)
            listed = msgspec.json.decode(data, type=jobs.Operators)
            believed = jobs.Believed(operators=listed.operators, expires=found.ends(_OPERATORS), at=found.time)
            data = msgspec.json.encode(believed)
            if not path.is_file() or path.read_bytes() != data:
                write_atomic(path, data, 0o640)
        except ChannelRefused as err:
            if err.code != "missing":
                raise
        except (msgspec.MsgspecError, RecursionError) as err:
            raise ChannelRefused("malformed", f"The list of operators cannot be read: {err}.") from err
        except OSError as err:
            raise DeviceFault(f"Cannot write {path}: {err.strerror}.", "Free space on the data partition.") from err


def hardware_of(settings: Settings) -> str:
    """The name under which releases for this machine are published."""
    machine = os.uname().machine
    return settings.firmware.hardware or _PROCESSORS.get(machine, machine.replace("_", "-"))
