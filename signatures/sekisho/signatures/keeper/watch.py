"""Listens how loud the young set in force is, and how much of the traffic it stops. Pure: counts in, verdicts out."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from sekisho.appliance.core.fired import Fired
from sekisho.appliance.core.muting import Muting
from sekisho.appliance.core.standing import Standing
from sekisho.signatures import soak
from sekisho.signatures.keeper.news import Heading
from sekisho.signatures.soak import Verdict

BLOCKED_SHARE: Final = 0.05
"""Of all packets: a set that stops more, where the one before stopped less, is at fault."""
PACKETS_LEAST: Final = 2000
"""Packets below which a share says nothing."""
SAMPLE_S: Final = 60.0
FIRED_OLD_S: Final = 60.0


class Watch:
    """Over one set; begun anew for another."""

    def __init__(self) -> None:
        self.heading = Heading(id="")
        self._fine_before = True
        self._packets: tuple[int, int] | None = None
        self._until = 0.0
        self._noted: tuple[float, Fired] | None = None
        self._samples: deque[tuple[float, Fired]] = deque(maxlen=int(soak.WINDOW_S / SAMPLE_S) + 1)

    def note(self, now: float, fired: Fired | None) -> None:
        """A set is about to come into force: what was counted until now is none of it."""
        self._noted = (now, fired) if fired is not None else None

    def begin(self, heading: Heading, engine: Standing | None, until: float) -> None:
        """From now on the set of `heading` is listened to; what came before tells what was usual.

        After `until` (monotonic) no share of blocked packets drives it out: then that is an attack, not the set.
        """
        self._until = until
        if heading.id != self.heading.id:
            self._fine_before = not _loud(self._packets, engine)
            self.heading = heading
            self._samples.clear()
            self._packets = None
            if self._noted is not None and self._noted[0] - self._noted[1].at <= FIRED_OLD_S:
                self._samples.append(self._noted)
        self._noted = None

    def hear(
        self, now: float, fired: Fired | None, engine: Standing | None, mine: Muting, held: tuple[int, ...]
    ) -> Verdict:
        """What the set deserves by all that was heard within the last hour."""
        so_far = Verdict(muted=mine.sids, held=held, yara=mine.yara)
        if engine is not None and engine.set_id == self.heading.id:
            if self._packets is None or self._packets[0] + self._packets[1] > engine.accepted + engine.blocked:
                self._packets = (engine.accepted, engine.blocked)
            if self._fine_before and now < self._until and _loud(self._packets, engine):
                stopped = engine.blocked - self._packets[1]
                return msgspec.structs.replace(so_far, roll_back=True, why=f"it stops too much: {stopped} packets")
        if fired is None or now - fired.at > FIRED_OLD_S:
            return so_far
        if not self._samples or now - self._samples[-1][0] >= SAMPLE_S:
            self._samples.append((now, fired))
        began, before = self._samples[0]
        rates = soak.heard(before, fired, now - began)
        return soak.judge(self.heading.baseline, rates, self.heading.news, so_far)


def _loud(since: tuple[int, int] | None, engine: Standing | None) -> bool:
    if since is None or engine is None:
        return False
    accepted, blocked = engine.accepted - since[0], engine.blocked - since[1]
    return accepted + blocked >= PACKETS_LEAST and blocked > BLOCKED_SHARE * (accepted + blocked)
