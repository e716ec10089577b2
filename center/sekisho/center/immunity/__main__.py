"""Immunity's process: judges what boxes have found, and keeps the signed words to all boxes at the broker true.

Two words: the list of bad files, and the rules that are switched off (`center.rules`). Both are retained, so a box that
connects finds them; they are published again after every connection, since a broker may have forgotten. Whatever was
decided is in the database before it is said.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from sekisho.appliance.core import fleet, program
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.fleet import All, Away
from sekisho.appliance.core.sealed import load_key
from sekisho.center import settings
from sekisho.center.immunity import listing
from sekisho.center.immunity.judge import judge
from sekisho.center.rules.saying import Speaker
from sekisho.center.sender import Sender
from sekisho.center.settings import CenterSettings, Immunity

POLL_S: Final = 0.2
MOVES_S: Final = 1.0


class ImmunitySender(Sender):
    """Judges always, speaks while the broker is there."""

    def __init__(self, config: CenterSettings, own: Immunity) -> None:
        self._own = own
        self._key = load_key(Path(own.lists_cert), Path(own.lists_key))
        super().__init__(config, own, poll_s=POLL_S)
        self._moved = 0.0
        self._seen = -1
        self._rules = Speaker(self.database, self.client, self._key, own.published)

    def turn(self, *, connected: bool, anew: bool) -> None:
        judge(self.database, self._own.boxes)
        if not connected:
            return
        if anew or listing.due(self.database, self._seen, time.time()):
            self._publish(all_of_it=anew)
        if anew or time.monotonic() - self._moved >= MOVES_S:
            self._moved = time.monotonic()
            self._tell_who_is_away(again=anew)
        self._rules.turn(again=anew)

    def _publish(self, *, all_of_it: bool) -> None:
        lists = listing.current(self.database, time.time())
        for made in lists:
            if made.n > self._seen or all_of_it:
                topic = fleet.TOPIC_ALL if isinstance(made, All) else fleet.TOPIC_CHANGE
                self.client.publish(topic, fleet.seal(made, self._key), qos=1, retain=True)
        if len(lists) == 1:
            self.client.publish(fleet.TOPIC_CHANGE, b"", qos=1, retain=True)
        self._seen = max(made.n for made in lists)

    def _tell_who_is_away(self, *, again: bool) -> None:
        away, said = listing.away(self.database), listing.said_away(self.database)
        for box, tenant in away.items():
            if again or box not in said:
                message = fleet.seal(Away(int(time.time()), box), self._key)
                self.client.publish(f"sk/1/{tenant}/{box}/known", message, qos=1, retain=True)
                listing.note_away(self.database, box, tenant, gone=True)
        for box, tenant in said.items():
            if box not in away:
                self.client.publish(f"sk/1/{tenant}/{box}/known", b"", qos=1, retain=True)
                listing.note_away(self.database, box, tenant, gone=False)


def _make(path: Path) -> ImmunitySender:
    config = settings.load(path)
    if config.immunity is None:
        raise RejectedInput(f"{path}: the section [immunity] is missing.")
    return ImmunitySender(config, config.immunity)


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the database cannot be opened."""
    return program.main("sekisho.center.immunity", _make, argv)


if __name__ == "__main__":
    sys.exit(main())
