"""How often each rule speaks: counted as events are read, before repeats are folded, and published (core.fired).

Signatures and the rules of file verdicts only. What a policy decided (a blocked site, a firewall rule) is the office's
own will and no rule of a set. Counting costs a look-up per alert and nothing per other event.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Iterable
from typing import Final

from sekisho.appliance.core import fired
from sekisho.appliance.core.fired import EVERY_S, RULES_CAP, Fired
from sekisho.appliance.core.settings import Settings
from sekisho.telemetry.events import Alert, Event, FileVerdict

BEAT_S: Final = 20.0
"""Published again after this though nothing is new: a reader sees that somebody counts."""
NAME_CAP: Final = 100
"""Characters of a YARA rule's name; all names together stay within the file's cap."""

log = logging.getLogger(__name__)


class Heard:
    """Counts of this run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._since = secrets.token_hex(8)
        self._sids: dict[int, int] = {}
        self._yara: dict[str, int] = {}
        self._rest = 0
        self._changed = True
        self._written = -math.inf
        self._trouble = ""

    def take(self, made: Iterable[Event]) -> None:
        """Count these events; each is to be given once."""
        for event in made:
            if isinstance(event, Alert):
                if not event.function and event.sid:
                    self._count(self._sids, event.sid, event.count)
            elif isinstance(event, FileVerdict) and event.rules:
                for name in set(event.rules):
                    self._count(self._yara, name, 1)

    def turn(self, now: float) -> None:
        """Publish what has changed, every `EVERY_S`; a full tmpfs is told once and tried again. `now`: monotonic."""
        if now - self._written < (EVERY_S if self._changed else BEAT_S):
            return
        self._written = now
        found = Fired(since=self._since, at=now, sids=self._sids, yara=self._yara, rest=self._rest)
        path = fired.path_of(self._settings)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fired.write(self._settings, found)
        except OSError as err:
            if str(err) != self._trouble:
                self._trouble = str(err)
                log.error("How often rules speak cannot be written to %s: %s", path, err.strerror)
            return
        self._trouble, self._changed = "", False

    def _count(self, counts: dict[int, int] | dict[str, int], rule: int | str, more: int) -> None:
        known: dict[int | str, int] = counts  # type: ignore[assignment]  # each is only asked for its own kind
        self._changed = True
        if rule in known:
            known[rule] += more
        elif len(self._sids) + len(self._yara) < RULES_CAP and (isinstance(rule, int) or len(rule) <= NAME_CAP):
            known[rule] = more
        else:
            self._rest += more
