"""Gives rules to the engine: renders a set, writes the configuration, has it read. What came of it is proof.py's."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from typing import Final

from sekisho.appliance import control, rendering, suricata
from sekisho.appliance.berth import Berth
from sekisho.appliance.core import muting
from sekisho.appliance.core.errors import DeviceFault, PeerError
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.rendering import Load, RuleSet
from sekisho.appliance.turning import Turning

RELOAD_S: Final = 120.0
BUSY_S: Final = 0.3
_RULES: Final = re.compile(r'"(?:default-rule-path": "[^"]*"|rule-files": \[[^\]]*\])')
"""What of the configuration the engine reads again when it loads rules."""

log = logging.getLogger(__name__)


class Hangs(PeerError):
    """The engine inspects, and will never do what it was told: it takes no more orders."""


class Loader:
    """The engine's configuration file and the rule files beside it."""

    def __init__(self, settings: Settings, berth: Berth) -> None:
        self._settings = settings
        self._berth = berth
        self._dir = settings.control_socket.parent
        self.config = berth.config
        self._muting: tuple[tuple[int, int], ...] = ()

    def muting_changed(self) -> bool:
        """Whether other rules are muted, or on trial, than when a set was rendered last."""
        return muting.stamps(self._settings) != self._muting

    def prepare(self, wanted: RuleSet) -> Load:
        """The set as it is to be loaded now.

        Raises:
            RejectedInput: the set cannot be read, or is not what it says.
            DeviceFault: its file cannot be written.

        """
        self._muting = muting.stamps(self._settings)
        detect = self._settings.inspection.mode == "detect"
        return rendering.prepare(wanted, muting.both(self._settings), self._dir, detect=detect)

    def write(self, load: Load) -> None:
        """Make `load` what the engine reads at its next start or reload.

        Raises:
            DeviceFault: the configuration cannot be written.

        """
        try:
            write_atomic(self.config, self._text(load).encode())
        except OSError as err:
            raise DeviceFault(f"{self.config} cannot be written: {err.strerror}.") from err

    def left(self, load: Load) -> str:
        """What a predecessor's configuration is beside this load's: "same", "rules" (only they differ), or "other"."""
        try:
            found = self.config.read_text()
        except (OSError, UnicodeDecodeError):
            return "other"
        wanted = self._text(load)
        if found == wanted:
            return "same"
        return "rules" if _without_rules(found) == _without_rules(wanted) else "other"

    def differs(self) -> None:
        """Have the file say that the running engine has only its rules from it: to a successor it is another's."""
        with contextlib.suppress(OSError), self.config.open("a") as out:
            out.write("# The engine that runs was started with another configuration.\n")

    def reload(self, load: Load) -> None:
        """Have the running engine read `load`; returns when it says that it has, which proves nothing.

        Raises:
            Hangs: it never begins, or has not ended after `RELOAD_S`.
            PeerError: it ended.
            DeviceFault: the configuration cannot be written.

        """
        self.write(load)
        deadline, turning = time.monotonic() + RELOAD_S, Turning(self._berth)
        while True:
            left = max(1.0, deadline - time.monotonic())
            try:
                reply = control.ask(self._berth.socket, "reload-rules", left, lambda: not turning.lost())  # noqa: B023
            except PeerError as err:
                if turning.lost():
                    raise Hangs("The inspection engine does not come to load rules that it was told to load.") from err
                if time.monotonic() > deadline:
                    raise Hangs(f"The inspection engine has loaded rules for {RELOAD_S:.0f} s, to no end.") from err
                if turning.ended():
                    raise
                time.sleep(BUSY_S)  # others wait for an answer already, as many as may
                continue
            log.info("reload answered %s %s", reply.result, reply.message)
            if reply.result == "OK":
                return
            if time.monotonic() > deadline or turning.lost():
                raise Hangs("The inspection engine says without end that it loads rules already.")
            if turning.began():
                turning = Turning(self._berth)
            time.sleep(BUSY_S)  # somebody's reload is under way, maybe of rules that are gone: ours comes after it

    def prune(self, *kept: Load) -> None:
        """Delete the rule files of former loads."""
        rendering.prune(self._dir, *kept)

    def _text(self, load: Load) -> str:
        berth = self._berth
        return suricata.model(self._settings, load.files, socket=berth.socket, filestore=berth.filestore).render()


def _without_rules(config: str) -> str:
    return _RULES.sub("", config)
