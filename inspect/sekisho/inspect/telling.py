"""Says what the scan workers work with (core.standing), every few seconds and when something changes."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core import standing
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.core.standing import Standing
from sekisho.inspect.scan import Pool

EVERY_S: Final = 2.0

log = logging.getLogger(__name__)


class Telling:
    """The pool's, written by the loop; a write to memory, never to a disk."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        self._settings = settings
        self._pool = pool
        self._said = Standing(at=0.0)

    def turn(self) -> None:
        """Say it again where it is due; call about ten times a second."""
        now = time.monotonic()
        fresh = self.standing(now)
        last = self._said
        same = msgspec.structs.replace(fresh, at=last.at, canary_at=last.canary_at) == last
        if same and now - last.at < EVERY_S:
            return
        self._said = fresh
        try:
            standing.write(self._settings, "scanner", fresh)
        except OSError as err:
            log.warning("what the scanner works with cannot be said: %s", err)

    def standing(self, now: float) -> Standing:
        """What is so now. Rules are what every worker has; one that is not there yet takes nothing from that."""
        pool, good = self._pool, self._pool.good
        trials = [(trial, at) for trial, at in pool.trials() if trial is not None]
        told = {"at": now, "loads": pool.loads, "why": pool.why, "refused": _set_of(pool.refused)}
        told["keeps"] = _writable(self._settings.quarantine_dir)
        if good is None or not trials:
            last = self._said if good is not None else Standing(at=now)
            return msgspec.structs.replace(last, **told)
        muted = max(trial.muted for trial, _ in trials)
        loaded = min(trial.loaded for trial, _ in trials)
        caught = all(trial.caught for trial, _ in trials)
        return Standing(
            set_id=good.info.id or _set_of(good.path),
            rules=max(0, loaded - muted),
            expected=max(0, (good.info.yara_rules or loaded) - muted),
            canary="caught" if caught else "missed",
            canary_at=min(at for _, at in trials),
            muted=muted,
            **told,  # type: ignore[arg-type]  # each of its own field's type
        )


def _writable(folder: Path) -> bool:
    """Whether there is room, on a disk that may be written to."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail > 0 and not found.f_flag & os.ST_RDONLY and os.access(folder, os.W_OK)


def _set_of(path: str) -> str:
    """The set's identifier: it names the directory its files are in."""
    return path.rsplit("/", 2)[-2] if path.count("/") > 1 else ""
