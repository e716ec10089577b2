"""A policy file and its lists become a folder the engine can load; the same content is built once.

`state/policy/<digest>/`: `policy.rules` and one `NAME.lst` per list. Written beside, synced, renamed: a power cut
leaves whole folders. Which of them are in use is for the caller to say (`prune`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import sync_directory, write_atomic
from sekisho.policy import categories, channels, source
from sekisho.policy.compiler import Compiled, compile_policy
from sekisho.policy.lists import Names
from sekisho.policy.model import Policy
from sekisho.policy.selectors import Roster
from sekisho.policy.state import State, resolve

RULES: Final = "policy.rules"


@dataclass(frozen=True)
class Plan:
    """A policy in every form it takes."""

    policy: Policy
    guards: dict[str, Names]
    compiled: Compiled
    directory: Path
    """Where the engine finds rules and lists once they are written."""

    def state(self, roster: Roster, now: dt.datetime, zone: dt.tzinfo) -> State:
        """What is true of it at `now`."""
        return resolve(self.policy, self.compiled, self.guards, roster, now, zone)

    @property
    def rules(self) -> bytes:
        return "".join(f"{line}\n" for line in self.compiled.rules).encode()


def plan(file: Path, parent: Path, *, detect: bool = False) -> Plan:
    """Read and compile the policy in `file`, for a folder below `parent`; writes nothing. Seconds with large lists.

    Raises:
        RejectedInput: the policy or one of its lists was refused; the message says which word or file.

    """
    policy = source.load(file)
    found = categories.collect(policy, file.parent)
    guards = {
        guard.name: categories.gather(
            guard.files, (*guard.domains, *guard.urls, *guard.addresses), file.parent, guard.name
        )
        for guard in policy.web_guard
    }
    draft = Path("@")
    compiled = compile_policy(policy, found, guards, draft, detect=detect)
    directory = parent / _digest(compiled)
    compiled.rules = [line.replace(f"load {draft}/", f"load {directory}/") for line in compiled.rules]
    compiled.sets.directory = directory
    return Plan(policy, guards, compiled, directory)


def write(made: Plan, state: State) -> None:
    """Put the plan's folder where the engine will look for it, its changing lists as they are in `state`.

    Raises:
        DeviceFault: the disk refuses it.

    """
    parent = made.directory.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=parent) as name:
            out = Path(name) / "out"
            out.mkdir(mode=0o755)
            (out / RULES).write_bytes(made.rules)
            sets = made.compiled.sets
            for key, entries in sets.content.items():
                _list(out / f"{key}.lst", sets.kinds[key], state.sets.get(key, entries))
            sync_directory(out)
            shutil.rmtree(made.directory, ignore_errors=True)
            out.rename(made.directory)
        sync_directory(parent)
    except OSError as err:
        raise DeviceFault(f"The policy cannot be written to {parent}: {err.strerror}.") from err


def rewrite_list(made: Plan, key: str, entries: list[bytes]) -> None:
    """Keep a changed list for the engine's next start.

    Raises:
        OSError: the disk refuses it.

    """
    write_atomic(made.directory / f"{key}.lst", channels.render(made.compiled.sets.kinds[key], entries), 0o644)


def prune(parent: Path, keep: set[Path]) -> None:
    """Remove the folders that are not in use."""
    for path in parent.iterdir() if parent.is_dir() else ():
        if path.is_dir() and path not in keep:
            shutil.rmtree(path, ignore_errors=True)


def _list(path: Path, kind: channels.KIND, entries: list[bytes]) -> None:
    with path.open("wb") as out:
        out.write(channels.render(kind, entries))


def _digest(compiled: Compiled) -> str:
    digest = hashlib.sha256("\n".join(compiled.rules).encode())
    for key, entries in compiled.sets.content.items():
        digest.update(key.encode())
        for entry in entries:
            digest.update(b"\n%d " % len(entry) + entry)
    return digest.hexdigest()[:32]
