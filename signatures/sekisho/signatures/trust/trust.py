"""Refresh what the channel says, and hold it against the floors before anything of it is used."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Root, Snapshot, TargetFile, Targets, Timestamp

from sekisho.signatures.published import MANIFEST, MANIFEST_CAP, Manifest
from sekisho.signatures.trust import chain
from sekisho.signatures.trust.chain import Chain, translated
from sekisho.signatures.trust.disk import Disk
from sekisho.signatures.trust.faults import ChannelRefused, ChannelUnfit, disk_fault
from sekisho.signatures.trust.floors import ROLES_CAP, VERSION_CAP, Floors, Kept, Reset
from sekisho.signatures.trust.offline import Evidence
from sekisho.signatures.trust.source import Source
from sekisho.signatures.trust.store import Store
from sekisho.telemetry.clocks import RELEASED

SIG: Final = "sig"
"""The delegation that may sign sets."""
BEHIND_S: Final = 60.0
"""How far a clock may be behind signed times before it is called behind."""

T = TypeVar("T")


@dataclass(frozen=True)
class Seen:
    """What a refresh that succeeded found. Times are unix seconds."""

    root: int
    timestamp: int
    snapshot: int
    targets: int
    sig: int
    """0: the repository has no sets yet."""
    issued: float | None
    """When the newest timestamp was signed: the age of all that this box knows. None: it does not say."""
    expires: float
    """When the first of the metadata ends."""
    at: float
    """The time it was judged by: the clock's, or the floor's where that is later."""
    clock_behind_s: float
    """How far the box's clock is behind signed times; 0.0: it is not (`clock_behind`)."""
    resets: tuple[Reset, ...]
    """Floors that were taken back in this refresh."""


@dataclass(frozen=True)
class Target:
    """A file of the channel."""

    path: str
    length: int
    hashes: dict[str, str]
    custom: dict[str, Any]
    url: str

    def verify(self, data: bytes) -> bool:
        """Whether these are its bytes."""
        try:
            TargetFile(self.length, self.hashes, self.path).verify_length_and_hashes(data)
        except LengthOrHashMismatchError:
            return False
        return True


class Trust:
    """What this box believes of one channel. From one thread; owns `directory`."""

    def __init__(
        self, directory: Path, root: bytes, source: Source, disk: Disk | None = None, built: float = RELEASED
    ) -> None:
        """Look at what is kept; nothing is fetched.

        Args:
            directory: for floors and metadata; its parent must exist.
            root: TUF root metadata that came with the box: the first link of the chain, at every refresh.
            source: the server, or a copy of the repository in a directory.
            disk: where it is kept.
            built: unix time before which this product did not exist; no time is believed to be earlier.

        Raises:
            ChannelUnfit: the disk fails, or what is kept of the floors is damaged.

        """
        self._disk = disk or Disk()
        self._root = root
        self._source = source
        self._built = built
        try:
            self._disk.make_directory(directory)
        except OSError as err:
            raise disk_fault(err, "What the channel says") from err
        self._floors = Kept(directory, self._disk)
        self._store = Store(directory, self._disk)
        self._chain: Chain | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._unsure = False

    @property
    def floors(self) -> Floors:
        """What will never be gone below."""
        return self._floors.now

    @property
    def time(self) -> float:
        """The newest time known to have been reached."""
        return max(self._built, self._floors.now.time)

    def close(self) -> None:
        """Forget what was verified; targets can be asked for after the next refresh."""
        self._chain = None
        if self._scratch is not None:
            self._scratch.cleanup()
        self._scratch = None

    def refresh(self, clock: float, true: float | None = None, accept_old: bool = False) -> Seen:
        """Read and judge the newest metadata; the floors are raised and on the disk when this returns.

        Args:
            clock: the box's clock, unix seconds, right or not.
            true: the time as the centre told it in this boot, where it did: then expiry is certain.
            accept_old: a person at the box vouches that this (a USB stick's) is the newest there is. Metadata that
                ended since the last refresh is then taken; older than seen is refused as ever.

        Raises:
            ChannelDown: `unreachable`, `bad_answer`, `slow`.
            ChannelRefused: `forged`, `rolled_back`, `expired`, `too_large`.
            ChannelUnfit: `stale_unconfirmed` (out of date by a clock that nobody confirmed), `disk_full`, `disk`,
                `bad_root`.

        """
        self.close()
        told = clock if true is None else true
        behind = max(0.0, self.time - told)
        self._unsure = true is None and behind == 0
        before = len(self.floors.resets), self.floors.serial
        try:
            self._scratch = tempfile.TemporaryDirectory(prefix="sekisho-channel-")
            scratch = Path(self._scratch.name)
            self._store.lay_out(scratch)
        except OSError as err:
            raise disk_fault(err, "What the channel says") from err

        def settled(root: Root) -> float:
            self._settle(root, scratch)
            return self.time if accept_old else max(told, self.time)

        try:
            found = Chain(scratch, self._source, self._root, settled)
        except OSError as err:
            raise disk_fault(err, "What the channel says") from err
        except (RepositoryError, ValueError) as err:
            raise ChannelUnfit(
                "bad_root", f"What this box was given to trust is no TUF root: {err}.", "See signatures.root."
            ) from err
        try:
            self._do(found.refresh)
        finally:
            self._keep(found, scratch)
        timestamp, snapshot, targets = found.timestamp, found.snapshot, found.role(Targets.type)
        if timestamp is None or snapshot is None or targets is None:
            raise AssertionError("a refresh that succeeded leaves all roles loaded")
        self._hold(found)
        self._chain = found
        behind = max(0.0, self.time - told)
        sig = snapshot.meta.get(f"{SIG}.json")
        resets = self.floors.resets if before[1] != self.floors.serial else []
        return Seen(
            root=found.root.version,
            timestamp=timestamp.version,
            snapshot=snapshot.version,
            targets=targets.version,
            sig=sig.version if sig else 0,
            issued=chain.issued(timestamp),
            expires=found.expires,
            at=max(told, self.time),
            clock_behind_s=behind if behind > BEHIND_S else 0.0,
            resets=tuple(resets[before[0] :]),
        )

    def target(self, path: str) -> Target:
        """Where a file is and what it must be, after `refresh`.

        Raises:
            ChannelRefused: `missing` where nobody who may has signed for it, otherwise as `refresh`.
            ChannelDown: a delegated role could not be fetched.
            ChannelUnfit: as `refresh`.

        """
        found = self._verified()
        try:
            info = self._do(lambda: found.get_targetinfo(path))
        finally:
            self._keep(found, self._directory())
        if info is None:
            raise ChannelRefused("missing", f"The channel has no {path[:200]}.")
        folder, slash, name = path.rpartition("/")
        if found.root.consistent_snapshot:
            name = f"{next(iter(info.hashes.values()))}.{name}"
        url = f"{self._source.targets}{folder}{slash}{name}"
        return Target(path, info.length, dict(info.hashes), dict(info.custom or {}), url)

    def fetch(self, target: Target, cap: int) -> bytes:
        """A small file's content, verified.

        Raises:
            ChannelDown, ChannelRefused: `too_large`, `forged`, or as the source says.

        """
        if target.length > cap:
            raise ChannelRefused("too_large", f"{target.path} has {target.length} bytes; at most {cap} may be.")
        with self._source.read(target.url, target.length) as reply:
            data = b"".join(reply.chunks)
        if not target.verify(data):
            raise ChannelRefused("forged", f"{target.path} is not what was signed.")
        return data

    def evidence(self, role: str) -> Evidence:
        """What proves that delegation `role` lists what it does, after `target` found something there.

        Raises:
            ChannelUnfit: the disk is failing.

        """
        found, scratch = self._verified(), self._directory()
        roots = [scratch / "root_history" / f"{version}.root.json" for version in range(1, found.root.version + 1)]
        try:
            return Evidence(
                [path.read_bytes() for path in roots if path.is_file()],
                (scratch / f"{Targets.type}.json").read_bytes(),
                (scratch / f"{role}.json").read_bytes(),
            )
        except OSError as err:
            raise disk_fault(err, "What the channel says") from err

    def ends(self, role: str) -> float:
        """Unix time at which the list of a delegation ends, after a `target` of its; it is ended where it has none."""
        found = self._verified().role(role)
        return float(found.expires.timestamp()) if found is not None else 0.0

    def manifest(self) -> Manifest:
        """The newest set's, after `refresh`; its number is a floor when this returns.

        Raises:
            ChannelRefused: `rolled_back` below a number once seen, `malformed`, `missing` (no set was published yet),
                or as `fetch`.
            ChannelDown, ChannelUnfit: as `refresh`.

        """
        target = self.target(MANIFEST)
        data = self.fetch(target, MANIFEST_CAP)
        try:
            manifest = msgspec.json.decode(data, type=Manifest)
        except (msgspec.MsgspecError, RecursionError) as err:
            raise ChannelRefused("malformed", f"The set's manifest cannot be read: {err}.") from err
        self._count(SIG, manifest.number)
        return manifest

    def counted(self, role: str, counter: int) -> None:
        """After `refresh`: what delegation `role` lists says this counter of itself; it is a floor when this returns.

        Raises:
            ChannelRefused: `rolled_back` below a counter once seen.
            ChannelUnfit: the disk is full or failing.

        """
        self._count(role, _sane(counter))

    def _count(self, role: str, counter: int) -> None:
        floors = self._settle_signers(self.floors, role)
        floor = floors.number if role == SIG else floors.counters.get(role, 0)
        if counter < floor:
            what = "set" if role == SIG else role
            raise ChannelRefused("rolled_back", f"The channel offers {what} {counter}; this box has seen {floor}.")
        self._floors.save(_with_floor(floors, role, counter))

    def _do(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except Exception as err:  # noqa: BLE001 - whatever a hostile file makes python-tuf raise: it is refused
            ours = translated(err)
        if isinstance(ours, ChannelRefused) and ours.code == "expired" and self._unsure:
            raise ChannelUnfit(
                "stale_unconfirmed",
                "What the channel offers is out of date by this box's clock, which nobody has confirmed.",
                "The rules in force go on working. Check the date of the box, and that it reaches the centre.",
            ) from ours
        raise ours

    def _verified(self) -> Chain:
        if self._chain is None:
            raise ValueError("refresh first")
        return self._chain

    def _directory(self) -> Path:
        if self._scratch is None:
            raise ValueError("refresh first")
        return Path(self._scratch.name)

    def _settle(self, root: Root, scratch: Path) -> None:
        """Between root and the rest: refuse an older root, reset what a removed key may have poisoned (TUF 5.3.11)."""
        floors = self.floors
        if root.version < floors.root:
            raise _older("root", root.version, floors.root)
        held = {role: sorted(root.roles[role].keyids) for role in (Timestamp.type, Snapshot.type)}
        for role, keys in held.items():
            if not set(floors.keys.get(role, ())) <= set(keys):
                was = {"timestamp": floors.timestamp, "snapshot": floors.snapshot, **floors.roles}
                floors = msgspec.structs.replace(
                    floors,
                    timestamp=0,
                    snapshot=0,
                    roles={},
                    time=0.0 if role == Timestamp.type else floors.time,
                    resets=[*floors.resets, Reset(root.version, role, was)],
                )
        if floors is not self.floors:
            # What was kept goes before the floors do: a cut in between only means doing this again.
            self._store.drop((Timestamp.type, Snapshot.type), scratch)
        floors = msgspec.structs.replace(floors, root=_sane(root.version), keys={**floors.keys, **held})
        self._floors.save(floors)

    def _settle_signers(self, floors: Floors, role: str) -> Floors:
        """Likewise for the set's number or a counter, when `targets` took a key of its signers away."""
        targets = self._verified().role(Targets.type)
        roles = targets.delegations.roles if targets and targets.delegations else None
        if targets is None or roles is None or role not in roles:
            return floors
        keys = sorted(roles[role].keyids)
        if not set(floors.keys.get(role, ())) <= set(keys):
            was = floors.number if role == SIG else floors.counters.get(role, 0)
            floors = msgspec.structs.replace(
                _with_floor(floors, role, 0), resets=[*floors.resets, Reset(targets.version, role, {"number": was})]
            )
        return msgspec.structs.replace(floors, keys={**floors.keys, role: keys})

    def _hold(self, found: Chain) -> None:
        """Refuse what is below the floors, whatever python-tuf's cache made of it.

        Raises:
            ChannelRefused: `rolled_back`, `forged` for numbers no honest repository has.

        """
        if found.timestamp is not None:
            self._hold_timestamp(found.timestamp)
        if found.snapshot is not None:
            self._hold_snapshot(found.snapshot)

    def _hold_timestamp(self, timestamp: Timestamp) -> None:
        if _sane(timestamp.version) < self.floors.timestamp:
            raise _older("timestamp", timestamp.version, self.floors.timestamp)
        if _sane(timestamp.snapshot_meta.version) < self.floors.snapshot:
            raise _older("snapshot", timestamp.snapshot_meta.version, self.floors.snapshot)

    def _hold_snapshot(self, snapshot: Snapshot) -> None:
        told = {name.removesuffix(".json"): _sane(meta.version) for name, meta in snapshot.meta.items()}
        if len(told) > ROLES_CAP:
            raise ChannelRefused("too_large", f"The channel has {len(told)} roles; at most {ROLES_CAP} may be.")
        for role, floor in self.floors.roles.items():
            if told.get(role, 0) < floor:
                raise _older(role, told.get(role, 0), floor)

    def _keep(self, found: Chain, scratch: Path) -> None:
        """Raise the floors to what was newly verified, then put it on the disk; stop at what is below them."""
        fresh = self._store.fresh(scratch)
        floors, allowed = self.floors, set(fresh)
        try:
            if found.timestamp is not None and "timestamp.json" in fresh:
                self._hold_timestamp(found.timestamp)
                floors = self._raised(floors, found.root, found.timestamp)
            if found.snapshot is not None and "snapshot.json" in fresh:
                self._hold_snapshot(found.snapshot)
                roles = {name.removesuffix(".json"): meta.version for name, meta in found.snapshot.meta.items()}
                floors = msgspec.structs.replace(floors, roles=roles)
        except ChannelRefused:
            allowed = {name for name in fresh if name.endswith("root.json")}
        self._floors.save(floors)
        self._store.keep({name: fresh[name] for name in allowed})

    def _raised(self, floors: Floors, root: Root, timestamp: Timestamp) -> Floors:
        told = chain.issued(timestamp)
        # A time after its own end, or root's, is a thief's: it would put every honest file out of date for good.
        believed = told is not None and told <= min(timestamp.expires.timestamp(), root.expires.timestamp())
        return msgspec.structs.replace(
            floors,
            timestamp=timestamp.version,
            snapshot=timestamp.snapshot_meta.version,
            time=max(floors.time, told) if believed and told is not None else floors.time,
        )


def _with_floor(floors: Floors, role: str, counter: int) -> Floors:
    if role == SIG:
        return msgspec.structs.replace(floors, number=counter)
    return msgspec.structs.replace(floors, counters={**floors.counters, role: counter})


def _sane(version: int) -> int:
    if version >= VERSION_CAP:
        raise ChannelRefused("forged", "The channel has version numbers that no honest one has.")
    return version


def _older(role: str, offered: int, floor: int) -> ChannelRefused:
    return ChannelRefused(
        "rolled_back",
        f"The channel offers {role} {offered}; this box has seen {floor}.",
        "Nothing of it was taken. If this lasts, somebody may be interfering: ask whoever runs the centre.",
    )
