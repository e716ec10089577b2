"""From the sources to the spool: follows EVE and the journals, decodes, commits in groups.

A chunk with a verdict or an alert is committed at once; metadata waits up to `GROUP_S` for company,
which spares the flash. What waits is still in its file: positions move in the same transaction, so a
kill re-reads it. After a failed commit (full disk) what was read is kept and reading pauses at
`PENDING_ROWS`; the sources wait in their files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.settings import Settings
from sekisho.telemetry.aliases import Aliases
from sekisho.telemetry.decode import LINE_CAP, decode_eve, decode_journal, with_mac
from sekisho.telemetry.events import LANES, Event, Flow, lane_of
from sekisho.telemetry.heard import Heard
from sekisho.telemetry.inventory import Inventory, Networks
from sekisho.telemetry.masking import Masker
from sekisho.telemetry.reader import Chunk, Tail
from sekisho.telemetry.spool import Spool

GROUP_S: Final = 0.2
PENDING_ROWS: Final = 5000
MAX_JOURNALS: Final = 32
LOOK_FOR_JOURNALS_S: Final = 0.25
LOOK_FOR_FOLDS_S: Final = 1.0
NEWCOMER_S: Final = 0.6
"""A device's first packet may be an event before the inventory knows it: it waits this long, once per address."""
MAX_MET: Final = 8192

log = logging.getLogger(__name__)


class Newcomers:
    """Office addresses met in events before the inventory had their device."""

    def __init__(self, home_networks: Iterable[str]) -> None:
        self._home = Networks(home_networks)
        self._met: set[str] = set()
        self.waited_for: set[str] = set()
        self._until = 0.0

    def meet(self, made: list[Event], now: float) -> None:
        """Note the new addresses of events that have no device yet."""
        for event in made:
            flow: Flow | None = getattr(event, "flow", None)
            if flow is None or flow.mac:
                continue
            new = {text for text in (flow.src_ip, flow.dst_ip) if text not in self._met and text in self._home}
            if new:
                if len(self._met) >= MAX_MET:
                    self._met.clear()
                self._met |= new
                self.waited_for |= new
                self._until = now + NEWCOMER_S

    def pending(self, inventory: Inventory, now: float) -> bool:
        """Whether some are still worth waiting for."""
        self.waited_for = {text for text in self.waited_for if not inventory.mac(text, "")}
        if now >= self._until:
            self.waited_for.clear()
        return bool(self.waited_for)


class Intake:
    """The sources of one box. `turn` never blocks on them."""

    def __init__(self, config: Settings, spool: Spool) -> None:
        self.spool = spool
        """Replaced by the daemon when the database had to be; what is pending then goes into the new one."""
        self._eve = config.eve
        self._journals = config.journals
        self._inventory = Inventory(config.inventory, config.device_kinds, config.inspection.home_networks)
        self._masker = _masker(config, self._inventory)
        self._tails: dict[Path, Tail] = {}
        self._look_again_at = 0.0
        self._folds_at = 0.0
        self._events: list[Event] = []
        self._chunks: list[tuple[Tail, Chunk]] = []
        self._commit_at = 0.0
        self._newcomers = Newcomers(config.inspection.home_networks)
        self._heard = Heard(config)
        self._refused = 0

    def turn(self, now: float) -> None:
        """Read what is new, commit what is due.

        Raises:
            DeviceFault: the spool refused it; nothing is lost, call again.

        """
        self._inventory.refresh()
        self._heard.turn(now)
        self._find_sources(now)
        for tail in self._tails.values():
            if len(self._events) >= PENDING_ROWS:
                break
            self._read(tail, now)
        if self._newcomers.waited_for:
            self._events = [with_mac(event, self._inventory) for event in self._events]
        if self._chunks and now >= self._commit_at and not self._newcomers.pending(self._inventory, now):
            self._commit()
        if now >= self._folds_at:
            self._folds_at = now + LOOK_FOR_FOLDS_S
            self.spool.close_folds()

    def tell(self, event: Event) -> None:
        """Store an event of telemetry's own.

        Raises:
            DeviceFault: the spool refused it.

        """
        self.spool.add(self._masked([event]))

    def close(self) -> None:
        """Commit what waits and let go of the files.

        Raises:
            DeviceFault: the spool refused it; it will be read again.

        """
        if self._chunks:
            self._commit()
        for tail in self._tails.values():
            tail.close()

    def _find_sources(self, now: float) -> None:
        """EVE, and every journal there is by now (rooms may be started later)."""
        if now < self._look_again_at:
            return
        self._look_again_at = now + LOOK_FOR_JOURNALS_S
        for path in (self._eve, *sorted(self._journals.glob("*.jsonl"))[:MAX_JOURNALS]):
            if path not in self._tails:
                self._tails[path] = Tail(path, self.spool.position(path.name), LINE_CAP)

    def _read(self, tail: Tail, now: float) -> None:
        trouble = tail.trouble
        chunk = tail.read()
        if tail.trouble not in ("", trouble):
            log.error("%s", tail.trouble)
        if chunk is None:
            return
        made = self._decode(chunk)
        self._heard.take(made)
        self._newcomers.meet(made, now)
        if not self._chunks:
            self._commit_at = now + GROUP_S
        if chunk.remove or len(self._events) + len(made) >= PENDING_ROWS or min(map(lane_of, made), default=LANES) < 2:
            self._commit_at = now
        self._events += made
        self._chunks.append((tail, chunk))
        tail.step(chunk)

    def _decode(self, chunk: Chunk) -> list[Event]:
        decode = decode_eve if chunk.source == self._eve.name else decode_journal
        made: list[Event] = []
        refused = chunk.too_long
        for line in chunk.lines:
            try:
                event = decode(line, self._inventory)
            except RejectedInput:
                refused += 1
                continue
            if event:
                made.append(event)
        if refused:
            self._refused += refused
            log.warning("%s: %d lines refused, %d in all", chunk.source, refused, self._refused)
        return made

    def _commit(self) -> None:
        self.spool.add(self._masked(self._events), *(chunk for _, chunk in self._chunks))
        used_up = [tail for tail, chunk in self._chunks if chunk.remove]
        self._events, self._chunks = [], []
        for tail in used_up:
            try:
                tail.remove_rolled()
            except OSError as err:
                raise DeviceFault(f"Cannot remove {tail.source}.1: {err.strerror}.") from err

    def _masked(self, made: list[Event]) -> list[Event]:
        return [self._masker.mask(event) for event in made] if self._masker else made


def _masker(config: Settings, inventory: Inventory) -> Masker | None:
    if not config.telemetry.mask_internal:
        return None
    return Masker(Aliases.open(config.aliases), config.inspection.home_networks, inventory)
