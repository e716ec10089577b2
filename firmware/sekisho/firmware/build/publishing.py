"""Judges a built release, and signs it with the offline keys: on a copy as every ceremony, or where all keys are.

Nothing here is online: what comes out is put in force by `signatures.depot.adopting`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.jobs import Operator, Operators
from sekisho.firmware.build.bundle import RELEASE
from sekisho.firmware.published import BLOCK, OPERATORS, OPERATORS_CAP, RELEASE_CAP, Release, release_path
from sekisho.signatures.depot import ceremony
from sekisho.signatures.depot.ceremony import Made
from sekisho.signatures.depot.files import read
from sekisho.signatures.depot.keys import Ring
from sekisho.signatures.depot.tree import Tree

FW: Final = "fw"
OPERATORS_ROLE: Final = "operators"
Use = Callable[[Made], None]


def release(
    tree: Tree, ring: Ring, folder: Path, now: dt.datetime, clock_is_right: bool = False
) -> tuple[Release, Made]:
    """Sign the release that was built in `folder`.

    Raises:
        RejectedInput: it is not what its release.json says, or its counter is not above the published one's.
        KeysMissing: fewer keys of `fw` are in the ring than it takes.
        DeviceFault: the clock is not to be believed, or the repository is damaged.

    """
    text = read(folder / RELEASE, RELEASE_CAP)
    try:
        found = msgspec.json.decode(text, type=Release)
    except msgspec.DecodeError as err:
        raise RejectedInput(f"{folder / RELEASE} is no release: {err}.") from err
    last = published(tree, found.hardware)
    if last is not None and found.counter <= last.counter:
        raise RejectedInput(
            f"Release {found.counter} cannot follow {last.counter}, which is published for {found.hardware}.",
            "Counters only grow; to go back, build the old source with a new counter.",
        )
    bundle = folder / Path(found.path).name
    judge(found, bundle)
    listed = release_path(found.hardware)
    contents = {listed: folder / RELEASE, found.path: bundle}
    ours = f"{FW}/{found.hardware}/"
    made = ceremony.enlist(tree, ring, FW, contents, lambda path: path.startswith(ours), now, clock_is_right)
    return found, made


def published(tree: Tree, hardware: str) -> Release | None:
    """The newest for that hardware; None: there is none yet.

    Raises:
        DeviceFault: the repository is damaged.

    """
    data = _content(tree, FW, release_path(hardware), RELEASE_CAP)
    return None if data is None else msgspec.json.decode(data, type=Release)


def judge(found: Release, bundle: Path) -> None:
    """Whether a box could take it.

    Raises:
        RejectedInput: it could not.

    """
    if not found.path.startswith(f"{FW}/{found.hardware}/{found.counter}."):
        raise RejectedInput(f"The bundle of release {found.counter} for {found.hardware} cannot be {found.path}.")
    whole, blocks, length = hashlib.sha256(), [], 0
    try:
        with bundle.open("rb") as source:
            while block := source.read(BLOCK):
                whole.update(block)
                blocks.append(hashlib.sha256(block).hexdigest())
                length += len(block)
    except OSError as err:
        raise RejectedInput(f"Cannot read {bundle}: {err.strerror}.") from err
    if (whole.hexdigest(), length, blocks) != (found.sha256, found.length, found.blocks):
        raise RejectedInput(f"{bundle} is not the bundle that {RELEASE} describes.", "Build it again.")


def operators(tree: Tree) -> Operators:
    """Who may sign jobs, as published; nobody yet: an empty list.

    Raises:
        DeviceFault: the repository is damaged.

    """
    data = _content(tree, OPERATORS_ROLE, OPERATORS, OPERATORS_CAP)
    return Operators(operators=[]) if data is None else msgspec.json.decode(data, type=Operators)


def with_operator(known: Operators, one: Operator) -> Operators:
    """The list with `one`, who replaces whoever had that name."""
    return Operators(operators=[*(other for other in known.operators if other.name != one.name), one])


def publish_operators(
    tree: Tree, ring: Ring, wanted: Operators, now: dt.datetime, use: Use, clock_is_right: bool = False
) -> None:
    """Sign the list; `use` gets what was made while its file is still there.

    Raises:
        RejectedInput: a name twice, or the list is too long.
        KeysMissing: fewer keys of `operators` are in the ring than it takes.
        DeviceFault: the clock is not to be believed, or the repository is damaged.

    """
    names = [one.name for one in wanted.operators]
    data = msgspec.json.format(msgspec.json.encode(wanted), indent=1) + b"\n"
    if len(set(names)) != len(names) or len(data) > OPERATORS_CAP:
        raise RejectedInput("The list of operators names somebody twice, or is too long.")
    with tempfile.TemporaryDirectory(prefix="sekisho-operators-") as scratch:
        path = Path(scratch) / Path(OPERATORS).name
        path.write_bytes(data)
        use(ceremony.enlist(tree, ring, OPERATORS_ROLE, {OPERATORS: path}, lambda path: True, now, clock_is_right))


def _content(tree: Tree, role: str, path: str, cap: int) -> bytes | None:
    chain = tree.chain()
    target = chain.delegated[role].signed.targets.get(path) if role in chain.delegated else None
    if target is None:
        return None
    data = read(tree.target(target), cap)
    if hashlib.sha256(data).hexdigest() != target.hashes["sha256"]:
        raise DeviceFault(f"The repository in {tree.directory} is damaged: {path}.")
    return data
