"""A policy file and its lists become a folder the engine can load; the same content is built once.

`state/policy/<digest>/`: `policy.rules` and one `NAME.lst` per list. Written beside, synced, renamed: a power cut
leaves whole folders. Which of them are in use is for the caller to say (`prune`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sekisho.appliance import datasets
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import sync_directory, write_atomic
from sekisho.policy import categories, source
from sekisho.policy.compiler import Compiled, compile_policy
from sekisho.policy.lists import Names
from sekisho.policy.model import Policy
from sekisho.policy.overlay import EMPTY, Overlay, laid_over
from sekisho.policy.selectors import Roster
from sekisho.policy.state import State, resolve

RULES: Final = "policy.rules"


@dataclass(frozen=True)
class Plan:
    """A policy in every form it takes."""

    policy: Policy
    """The file's, with the centre's laid over it."""
    text: str
    """What the file said; empty when there was none."""
    guards: dict[str, Names]
    compiled: Compiled
    directory: Path
    """Where the engine finds rules and lists once they are written."""
    overruled: int = 0
    """Entries of the centre's that gave way to the file."""

    def state(self, roster: Roster, now: dt.datetime, zone: dt.tzinfo) -> State:
        """What is true of it at `now`."""
        return resolve(self.policy, self.compiled, self.guards, roster, now, zone)

    @property
    def rules(self) -> bytes:
        head = "# The owner's policy, compiled: changed by `sekisho policy apply`, never by hand.\n"
        return (head + "".join(f"{line}\n" for line in self.compiled.book.lines)).encode()


def plan(file: Path, parent: Path, *, base: Path | None = None, detect: bool = False, overlay: Overlay = EMPTY) -> Plan:
    """Read and compile the policy in `file`, for a folder below `parent`; writes nothing. Seconds with large lists.

    Lists are relative to `base`, the file's own folder unless it is given.

    Raises:
        RejectedInput: the policy or one of its lists was refused; the message says which word or file.

    """
    text = source.read(file)
    policy, gave_way = _whole_policy(text, str(file), overlay)
    base = base or file.parent
    found = categories.collect(policy, base)
    guards = {
        guard.name: categories.gather(guard.files, (*guard.domains, *guard.urls, *guard.addresses), base, guard.name)
        for guard in policy.web_guard
    }
    draft = Path("@")
    compiled = compile_policy(policy, found, guards, draft, detect=detect)
    directory = parent / _digest(compiled)
    compiled.book.lines = [line.replace(f"load {draft}/", f"load {directory}/") for line in compiled.book.lines]
    compiled.sets.directory = directory
    return Plan(policy, text, guards, compiled, directory, gave_way)


def _whole_policy(text: str, origin: str, over: Overlay) -> tuple[Policy, int]:
    policy, gave_way = laid_over(source.parse(text, origin), over)
    try:
        source.check(policy)
    except (ValueError, OverflowError) as err:
        raise RejectedInput(f"The centre's settings: {err}.", source.EVERYTHING_KEPT) from err
    return policy, gave_way


def write(made: Plan, state: State) -> None:
    """Put the plan's folder where the engine will look for it, its changing lists as they are in `state`.

    A folder that is there stays (what was rewritten into it may be in use); only its changing lists are new.

    Raises:
        DeviceFault: the disk refuses it.

    """
    parent, sets = made.directory.parent, made.compiled.sets
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if _whole(made):
            for key, entries in state.sets.items():
                rewrite_list(made, key, entries)
            return
        with tempfile.TemporaryDirectory(prefix=".build-", dir=parent) as name:
            out = Path(name) / "out"
            out.mkdir(mode=0o755)
            for key, entries in sets.content.items():
                _durably(out / f"{key}.lst", datasets.render(sets.kinds[key], state.sets.get(key, entries)))
            _durably(out / RULES, made.rules)
            sync_directory(out)
            shutil.rmtree(made.directory, ignore_errors=True)
            out.rename(made.directory)
        sync_directory(parent)
    except OSError as err:
        raise DeviceFault(f"The policy cannot be written to {parent}: {err.strerror}.") from err


def old_lists(made: Plan, state: State) -> Iterator[tuple[str, list[bytes]]]:
    """The changing lists as an earlier life of this folder left them: a running engine may still hold them."""
    for key in state.sets:
        try:
            yield key, datasets.parse(made.compiled.sets.kinds[key], (made.directory / f"{key}.lst").read_bytes())
        except (OSError, ValueError):
            continue


def rewrite_list(made: Plan, key: str, entries: list[bytes]) -> None:
    """Keep a changed list for the engine's next start.

    Raises:
        OSError: the disk refuses it.

    """
    write_atomic(made.directory / f"{key}.lst", datasets.render(made.compiled.sets.kinds[key], entries), 0o644)


def prune(parent: Path, keep: set[Path]) -> None:
    """Remove the folders that are not in use."""
    for path in parent.iterdir() if parent.is_dir() else ():
        if path.is_dir() and path not in keep:
            shutil.rmtree(path, ignore_errors=True)


def _whole(made: Plan) -> bool:
    """Whether the folder is there with these rules and all their lists."""
    try:
        same = (made.directory / RULES).read_bytes() == made.rules
    except OSError:
        return False
    return same and all((made.directory / f"{key}.lst").exists() for key in made.compiled.sets.content)


def _durably(path: Path, data: bytes) -> None:
    with path.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _digest(compiled: Compiled) -> str:
    digest = hashlib.sha256("\n".join(compiled.book.lines).encode())
    for key, entries in compiled.sets.content.items():
        digest.update(key.encode())
        for entry in entries:
            digest.update(b"\n%d " % len(entry) + entry)
    return digest.hexdigest()[:32]
