"""Captures the real engine replays with the set: attacks must raise an alert, an office's day must lose nothing.

Every capture is replayed by itself, in an engine of its own: what one leaves behind must not help or hide another.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.signatures.model import TESTER_BYTES, TESTER_SECONDS, Rule
from sekisho.signatures.press import yarafiles
from sekisho.signatures.press.budget import loaded

CAPTURES_CAP = 512
_EVE_BYTES = 256 << 20
_NAMED = 5
_SHORTEST = 40
"""Bytes of a capture with one empty frame."""
_MAGIC = {bytes.fromhex(magic) for magic in ("a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1", "0a0d0d0a")}
_READ = re.compile(r"pcap: read 1 file, [1-9]\d* packets")


class _Alert(msgspec.Struct):
    signature_id: int
    action: str = ""


class _Event(msgspec.Struct):
    event_type: str = ""
    alert: _Alert | None = None


def captures(directory: str) -> list[Path]:
    """The captures in a directory of the recipe; none where it names none.

    Raises:
        DeviceFault: the directory is not there, has none, or one that is damaged: such a corpus proves nothing.

    """
    if not directory:
        return []
    found = sorted(
        path for path in Path(directory).rglob("*") if path.suffix in (".pcap", ".pcapng") and path.is_file()
    )
    if not found or len(found) > CAPTURES_CAP:
        raise DeviceFault(f"{directory} holds {len(found)} captures (*.pcap); it must be 1 to {CAPTURES_CAP}.")
    for path in found:
        with path.open("rb") as capture:
            head = capture.read(_SHORTEST)
        if len(head) < _SHORTEST or head[:4] not in _MAGIC:  # the engine would wait for more of it until its time is up
            raise DeviceFault(f"{path} is not a capture, or is empty.")
    return found


def detect(found: Sequence[Path], rules: Sequence[Rule], config: str, work: Path) -> None:
    """Every capture raises an alert.

    Raises:
        RejectedInput: one does not, or could not be replayed.

    """
    deaf = [path.name for path in found if not _replay(path, rules, config, work)]
    if deaf:
        raise RejectedInput(f"The set does not detect {_first(deaf)}.", "Which rule was to do it, and why is it off?")


def benign(found: Sequence[Path], rules: Sequence[Rule], config: str, work: Path) -> None:
    """No capture raises a drop.

    Raises:
        RejectedInput: one does, or could not be replayed; the message names capture and rules.

    """
    for path in found:
        drops = sorted(
            {alert.signature_id for alert in _replay(path, rules, config, work) if alert.action == "blocked"}
        )
        if drops:
            raise RejectedInput(
                f"The set would drop honest traffic: {path.name}, by sid {_first([str(sid) for sid in drops])}.",
                'Let these rules only alert: a line of the policy with action = "alert" and their sids, before others.',
            )


def malicious(directory: str, compiled: Path) -> None:
    """The compiled YARA rules find every file of a directory of the recipe.

    Raises:
        RejectedInput: one is not found.
        DeviceFault: the directory is not there, or has none.

    """
    if not directory:
        return
    if not any(path.is_file() for path in Path(directory).rglob("*")):
        raise DeviceFault(f"{directory} holds no files.")
    missed = yarafiles.missed(compiled, directory)
    if missed:
        raise RejectedInput(f"The YARA rules do not find {_first(missed)}.")


def _replay(capture: Path, rules: Sequence[Rule], config: str, work: Path) -> list[_Alert]:
    for folder in ("run/eve", "run/suricata", "run/inspect", "run/filestore"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    eve = work / "run/eve/eve.json"
    eve.unlink(missing_ok=True)
    (work / "suricata.rules").write_text("".join(rule.text + "\n" for rule in rules))
    (work / "replay.yaml").write_text(config)
    limits = ["prlimit", f"--cpu={TESTER_SECONDS}", f"--as={TESTER_BYTES}", f"--fsize={1 << 30}", "--core=0", "--"]
    argv = [
        *limits,
        "suricata",
        "-v",
        "-c",
        str(work / "replay.yaml"),
        "-r",
        str(capture),
        "-l",
        str(work),
        "-k",
        "none",
    ]
    argv += ["--simulate-ips", "--runmode", "single"]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TESTER_SECONDS,
            check=False,
        )
        said = done.stdout.decode(errors="replace")
        if done.returncode or loaded(said) != len(rules) or not _READ.search(said):
            raise RejectedInput(f"The engine could not replay {capture.name}: {said[-300:]}.")
        with eve.open("rb") as written:
            lines = written.read(_EVE_BYTES).splitlines()
        events = [msgspec.json.decode(line, type=_Event) for line in lines]
    except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError) as err:
        raise RejectedInput(f"The engine could not replay {capture.name}: {err}.") from err
    return [event.alert for event in events if event.event_type == "alert" and event.alert]


def _first(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
