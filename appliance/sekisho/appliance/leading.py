"""Which engine's queues the packets are led to: the one place that loads the packet rules while the daemon runs.

The watchdog's thread leads packets around an inspector and puts back what was swept away, the engine's thread leads
them from one engine to another; each is one transaction, under one lock. What is in force is read from the kernel after
a restart of the daemon: of two engines the one that has the packets is the engine.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sekisho.appliance import berth, netfilter, suricata
from sekisho.appliance.berth import Berth
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.netfilter import Mode

log = logging.getLogger(__name__)


class Lead:
    """The packet rules of one box."""

    def __init__(self, settings: Settings, mode: Mode = netfilter.NORMAL) -> None:
        self.berths = berth.both(settings)
        self._queues = suricata.queue_count(settings)
        self._closed = settings.inspection.fail_mode == "closed"
        self._mode = mode
        self._settings = settings
        self._lock = threading.Lock()
        self._now = self.berths[0]
        self._beside = False
        """Another engine runs, or ran since this daemon began: there are rules for it as well."""
        self.unsure = False
        """A change was refused: one family may be led elsewhere than `now`, until `install` or a change succeeds."""

    @property
    def now(self) -> Berth:
        """Where the packets are led to."""
        return self._now

    @property
    def other(self) -> Berth:
        return self.berths[self._now is self.berths[0]]

    def find(self) -> None:
        """Go on where a predecessor of this daemon led the packets."""
        leads = netfilter.leads_to()
        here = berth.led(self._settings)
        for each in self.berths:
            if leads == each.first if leads is not None else here == each.name:
                self._now = each

    def install(self) -> None:
        """Load the rules and make sure that the kernel's chains lead into them.

        Raises:
            DeviceFault: the kernel or the tools refused it; so for `set_mode`, `make_room` and `move`.

        """
        with self._lock:
            self._put(netfilter.install, self._now)

    def set_mode(self, mode: Mode) -> None:
        """Lead the packets around an inspector, or to it again."""
        with self._lock:
            self._mode = mode
            self._put(netfilter.apply, self._now)

    def make_room(self) -> None:
        """Have canaries reach the other engine's queues; the customer's packets go where they went."""
        with self._lock:
            self._beside = True
            self._put(netfilter.apply, self._now)

    def move(self, to: Berth) -> None:
        """Lead the packets to that engine at one stroke; where one family refuses, both are led back."""
        with self._lock:
            self._beside = True
            try:
                self._put(netfilter.apply, to)
            except DeviceFault:
                self._put(netfilter.apply, self._now)
                raise
            self._now = to

    def _put(self, load: Callable[[str], None], to: Berth) -> None:
        try:
            load(self._plan(to))
        except DeviceFault:
            self.unsure = True
            raise
        self.unsure = False

    def _plan(self, to: Berth) -> str:
        berths = 2 if self._beside or to is not self.berths[0] else 1
        return netfilter.plan(self._queues, self._closed, self._mode, to.first, berths)
