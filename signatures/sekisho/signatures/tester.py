"""Proves Suricata rules by the installed Suricata itself, in a child with time and memory limits.

A tester that is absent, killed or out of time proves nothing, and so refuses. The configuration is
the running engine's; its own reload is proved once more by rule counts (appliance).

A set of the owner's is built whole. One of the centre's was built whole there, and a small box shall not carry a second
engine of full size beside the living one: here every rule is read, and those are built and given traffic that can stop
any. Read only means: behind the set stands a rule that no engine takes, and the engine ends before it builds.
"""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.settings import Paths, Settings
from sekisho.appliance.rendering import keeps
from sekisho.appliance.suricata import model
from sekisho.signatures.model import TESTER_BYTES, TESTER_SECONDS, Refused, Rule

_OUTPUT_BYTES = 16 << 20
_EVE_LINES = 100_000
_TRAFFIC = "ordinary.pcap"
_FAILED = re.compile(r'error parsing signature "(.*)$', re.MULTILINE)
_LINE = re.compile(r'" from file \S+ at line (\d+)$')
_ACTS = re.compile(r"(?:drop|pass|reject(?:src|dst|both)?)\s")
_LAST = Rule(0, 0, "", "alert ip any any -> any any (sekisho-reads-no-further; sid:4294967295; rev:1;)")
_WHY = re.compile(r"^E: (?:detect[\w-]*|[\w-]+): (.*)$")


def engine_config(settings: Settings, work: Path) -> str:
    """The running engine's own configuration, with every path it writes to moved below `work`."""
    moved = msgspec.structs.replace(settings, paths=Paths(run=str(work / "run"), state=str(work / "state")))
    return model(moved, [work / "suricata.rules"]).render()


def suricata_version() -> str:
    """The installed Suricata in its own words.

    Raises:
        DeviceFault: it is not installed or does not start.

    """
    try:
        done = subprocess.run(["suricata", "-V"], capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as err:
        raise DeviceFault("Suricata is not installed or does not start.", "Install Suricata 7.0.10 or later.") from err
    return done.stdout.decode(errors="replace").strip()


def prove_rules(
    rules: list[Rule], config: str, work: Path, *, traffic: bytes = b""
) -> tuple[list[Rule], list[Refused]]:
    """The rules the engine takes, and those it refuses. Blocks for seconds with large sets.

    With `traffic` (a capture file) the set is one that was built whole elsewhere (see above), and no rule of it may
    stop any of that traffic, which the engine reads as if it were inline.

    Raises:
        RejectedInput: the tester could not say (absent, out of time or memory), or refuses what is left.

    """
    (work / "test.yaml").write_text(config)
    for folder in ("run/eve", "run/suricata", "run/inspect", "run/filestore"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    if traffic:
        return _prove_built(rules, work, traffic)
    refused: list[Refused] = []
    for _attempt in range(3):
        output = _test(rules, work)
        if output is None:
            return rules, refused
        failed = _failed(output, rules)
        if not failed:
            raise _refused(output)
        refused += [Refused(rules[index].sid, rules[index].where, why) for index, why in failed.items()]
        rules = [rule for index, rule in enumerate(rules) if index not in failed]
        if not rules:
            raise RejectedInput(f"Suricata refuses every rule; the first is {refused[0].where}: {refused[0].why}.")
    raise RejectedInput("Suricata still refuses rules after the broken ones were left out.")


def _prove_built(rules: list[Rule], work: Path, traffic: bytes) -> tuple[list[Rule], list[Refused]]:
    failed = _failed(_test([*rules, _LAST], work) or "", [*rules, _LAST])
    if failed.pop(len(rules), None) is None:
        raise RejectedInput("Suricata did not read the rule set to its end.")
    if failed:
        refused = [Refused(rules[index].sid, rules[index].where, why) for index, why in failed.items()]
        return [rule for index, rule in enumerate(rules) if index not in failed], refused
    (work / _TRAFFIC).write_bytes(traffic)
    # What sets a bit is no drop itself, but drops ask for it.
    acting = [rule for rule in rules if _ACTS.match(rule.text) or keeps(rule.text.encode())] or rules[:1]
    if (output := _test(acting, work, reading=True)) is not None:
        raise _refused(output)
    _check_traffic(work)
    return rules, []


def _test(rules: list[Rule], work: Path, *, reading: bool = False) -> str | None:
    """None when the engine takes all rules (and, `reading`, the traffic), otherwise what it printed."""
    path = work / "suricata.rules"
    path.write_text("".join(rule.text + "\n" for rule in rules))
    limits = ["prlimit", f"--cpu={TESTER_SECONDS}", f"--as={TESTER_BYTES}", f"--fsize={1 << 30}", "--core=0", "--"]
    argv = [*limits, "suricata", "-c", str(work / "test.yaml"), "-l", str(work)]
    if reading:
        argv += ["-r", str(work / _TRAFFIC), "-k", "none", "--simulate-ips", "--runmode", "single"]
        argv += ["--init-errors-fatal", "--set", "unix-command.enabled=no"]
    else:
        argv.append("-T")
    log = work / "test.log"
    try:
        with log.open("wb") as out:
            code = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=TESTER_SECONDS, check=False
            ).returncode
        with log.open("rb") as written:
            output = written.read(_OUTPUT_BYTES).decode(errors="replace")
    except subprocess.TimeoutExpired as err:
        raise RejectedInput(f"Testing the rule set took longer than {TESTER_SECONDS} s.") from err
    except OSError as err:
        raise RejectedInput(f"The rule set could not be tested: {err}.") from err
    if code == 0:
        return None
    if code < 0 or code > 1:
        raise RejectedInput(f"Testing the rule set ended with code {code} (out of memory or time, or not installed).")
    return output


def _refused(output: str) -> RejectedInput:
    last = [line for line in output.splitlines() if line.startswith("E:")][-3:]
    return RejectedInput(f"Suricata refuses the rule set: {' '.join(last)[:500] or 'it gave no reason'}.")


def _check_traffic(work: Path) -> None:
    """Refuse rules that stopped something of it; an engine that read nothing has not said anything."""
    stopped, flows = set(), 0
    try:
        with (work / "run" / "eve" / "eve.json").open("rb") as lines:
            for line in itertools.islice(lines, _EVE_LINES):
                told = msgspec.json.decode(line, type=_Eve)
                flows += told.event_type != "stats"
                if told.alert is not None and told.alert.action == "blocked":
                    stopped.add(told.alert.signature_id)
    except (OSError, msgspec.MsgspecError) as err:
        raise RejectedInput(f"The trial with ordinary traffic left no result: {err}.") from err
    if stopped:
        named = ", ".join(map(str, sorted(stopped)[:10]))
        raise RejectedInput(f"The set stops ordinary traffic of an office: sid {named}.")
    if not flows:
        raise RejectedInput("The trial with ordinary traffic left no result.")


class _Alert(msgspec.Struct):
    signature_id: int
    action: str


class _Eve(msgspec.Struct):
    event_type: str
    alert: _Alert | None = None


def _failed(output: str, rules: list[Rule]) -> dict[int, str]:
    """Index and reason of each rule the engine named; its message may be cut, so the rule's own text counts too."""
    failed: dict[int, str] = {}
    why = ""
    for line in output.splitlines():
        found = _FAILED.search(line)
        if not found:
            reason = _WHY.match(line)
            why = reason[1] if reason else why
            continue
        number = _LINE.search(line)
        if number and 0 < int(number[1]) <= len(rules):
            failed[int(number[1]) - 1] = why[:200]
        else:
            start = found[1][:1000]
            failed |= {index: why[:200] for index, rule in enumerate(rules) if rule.text.startswith(start)}
        why = ""
    return failed
