"""Rule sets as they come to the lab's box: asked for as people do, and seen in what the inspectors themselves say."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance import control
from sekisho.appliance.core import standing
from sekisho.appliance.core.errors import PeerError
from sekisho.appliance.core.settings import Settings, load
from sekisho.lab.lab import Lab
from sekisho.signatures.keeper import counter
from sekisho.signatures.model import SetInfo
from sekisho.telemetry.events import Signatures

SILENT_S: Final = 30.0
SIGNAL_S: Final = 2.0
"""So long a load of these small sets may take before the signal is taken for lost."""
LOOK_S: Final = 0.02
QUIET_S: Final = 3.0
SEKISHO: Final = str(Path(sys.executable).with_name("sekisho"))


def settings(lab: Lab) -> Settings:
    return load(lab.lay.box_settings)


def ask(lab: Lab, *words: str, timeout_s: float = 60) -> bytes:
    """What `sekisho signatures WORDS` prints on the box.

    Raises:
        PeerError: it failed.

    """
    done = lab.run("box", [SEKISHO, "signatures", *words, "--settings", str(lab.lay.box_settings)], timeout_s=timeout_s)
    if done.returncode:
        raise PeerError(f"signatures {' '.join(words)}: {(done.stderr or done.stdout).decode()[-400:].strip()}")
    return done.stdout


def linked(lab: Lab) -> SetInfo | None:
    """The set that `current` names, as its own file describes it."""
    try:
        return msgspec.json.decode((settings(lab).sets / "current" / "set.json").read_bytes(), type=SetInfo)
    except (OSError, msgspec.MsgspecError):
        return None


def proven(lab: Lab, identifier: str) -> bool:
    """Whether both inspectors say that they work with this set, and proved it."""
    box = settings(lab)
    told = [standing.try_read(box, who) for who in ("engine", "scanner")]
    return all(one is not None and one.proven and one.set_id == identifier for one in told)


def in_force(lab: Lab, number: int) -> bool:
    """Whether set `number` is the one linked, and proven."""
    info = linked(lab)
    return info is not None and info.number == number and proven(lab, info.id)


def rule_files(lab: Lab) -> list[Path]:
    """What the engine was given, in its order: the product's own, then the set's."""
    config = settings(lab).control_socket.with_name("suricata.yaml").read_text()
    return [Path(found) for found in re.findall(r"[^\s\"']+\.rules\b", config)]


def silence(lab: Lab) -> float:
    """Empty every rule file the engine was given on this box, and have it load them, until only the package's are left.

    It will say that all is well. A signal that comes while it loads something else is lost on it, and what it loads
    then may be whole: both are done again until the rules are gone.

    Returns:
        The last instant (monotonic clock) at which it was seen to have them.

    Raises:
        PeerError: it still has them after `SILENT_S`.

    """
    box = settings(lab)
    _settle(lab)
    whole, had = control.ruleset_stats(box.control_socket).rules_loaded, time.monotonic()
    deadline, again = had + SILENT_S, 0.0
    while True:
        now = time.monotonic()
        if now > deadline:
            raise PeerError(f"Lab {lab.lay.name}: the engine kept its {whole} rules for {SILENT_S:g} s.")
        if now >= again:
            again = now + SIGNAL_S
            for path in rule_files(lab):
                if path.is_relative_to(lab.lay.root):  # not the package's own
                    os.truncate(path, 0)
            lab.kill("suricata", signal.SIGUSR2)
        with suppress(PeerError):  # it does not answer while it loads
            if control.ruleset_stats(box.control_socket).rules_loaded <= _packaged(lab):
                return had
            had = now
        time.sleep(LOOK_S)


def _settle(lab: Lab) -> None:
    """Return when nothing has been loaded for `QUIET_S` and nothing is on its way.

    A signal just as the daemon asks for a load hangs the engine for good (suricata.c, SuricataMainLoop of 7.0).
    """
    box, last = settings(lab), (0, time.monotonic())

    def quiet() -> bool:
        nonlocal last
        keeper, told, now = counter.try_read(box, time.monotonic()), standing.try_read(box, "engine"), time.monotonic()
        if keeper is None or keeper.step != "idle" or told is None or not told.proven or told.loads != last[0]:
            last = (told.loads if told else 0, now)
        return now - last[1] > QUIET_S

    lab.wait(quiet, "rules are loaded again and again", 40)


def _packaged(lab: Lab) -> int:
    """Rules of the package's own files: a load that was under way may leave fewer than before, and still a set's."""
    own = (path for path in rule_files(lab) if not path.is_relative_to(lab.lay.root))
    return sum(len(re.findall(r"^(?:alert|drop|pass|reject) ", path.read_text(), re.M)) for path in own)


def wait_for(lab: Lab, number: int, timeout_s: float = 60) -> None:
    """Return when set `number` is in force.

    Raises:
        PeerError: it is not in time.

    """
    lab.wait(
        lambda: in_force(lab, number), f"set {number} is not in force ({lab.log_tail('signatures', 5)})", timeout_s
    )


def told(lab: Lab, state: str) -> list[Signatures]:
    """What the box told the centre of its rules, in order."""
    found = [row.event for row in lab.events()]
    return [event for event in found if isinstance(event, Signatures) and event.state == state]
