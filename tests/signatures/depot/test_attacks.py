"""What a thief of some keys, or whoever owns the web server, can make a plain client take: nothing that matters.

The box's own, longer list is in tests of `trust`; these are the properties that the repository's roles give.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from repository import Depot, Disk, client_of
from tuf.api.exceptions import BadVersionNumberError, LengthOrHashMismatchError, RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import Updater

from sekisho.signatures.depot.signing import keys_of
from sekisho.signatures.published import MANIFEST

EVIL = b"evil"
Anything = Metadata[Root] | Metadata[Snapshot] | Metadata[Targets] | Metadata[Timestamp]


class Thief:
    """Holds some keys and the web server; signs whatever they allow, with versions ahead."""

    def __init__(self, depot: Depot, tmp_path: Path, **stolen: int) -> None:
        self.depot, self.stolen, self._cache = depot, stolen, tmp_path / "box"
        self.chain = depot.tree.chain()

    def sign(
        self, role: str, metadata: Metadata[Root] | Metadata[Snapshot] | Metadata[Targets] | Metadata[Timestamp]
    ) -> None:
        metadata.signed.expires = self.depot.now + dt.timedelta(days=1)
        metadata.signatures.clear()
        judge = self.chain.targets if role == "sig" else self.chain.root
        keys, _ = keys_of(judge, role)
        for signer in self.depot.ring.signers(role, keys, self.stolen.get(role, 0)):
            metadata.sign(signer, append=True)

    def borrow(self, role: str, metadata: Anything) -> None:
        [one] = metadata.signatures.values()
        other = copy.copy(one)
        other.keyid = next(key for key in self.chain.root.signed.roles[role].keyids if key != one.keyid)
        metadata.signatures[other.keyid] = other

    def put(self, role: str, metadata: Anything) -> MetaFile:
        data = metadata.to_bytes()
        self.depot.tree.put(self.depot.tree.versioned(metadata.signed.version, role), data)
        return MetaFile.from_data(metadata.signed.version, data, ["sha256"])

    def evil(self, path: str) -> TargetFile:
        target = TargetFile.from_data(path, EVIL, ["sha256"])
        place = self.depot.tree.targets / Path(path).parent / f"{target.hashes['sha256']}.{Path(path).name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(EVIL)
        return target

    def serve(
        self, *, targets: Metadata[Targets] | None = None, sig: Metadata[Targets] | None = None, borrowed: bool = False
    ) -> None:
        """Everything above what was forged, signed with what there is; `borrowed`: each signature counts for two."""
        listed = copy.deepcopy(self.chain.snapshot)
        listed.signed.version += 10
        for role, forged in (("targets", targets), ("sig", sig)):
            if forged is not None:
                forged.signed.version += 10
                self.sign(role, forged)
                if borrowed:
                    self.borrow(role, forged)
                listed.signed.meta[f"{role}.json"] = self.put(role, forged)
        self.sign("snapshot", listed)
        stamp = copy.deepcopy(self.chain.timestamp)
        stamp.signed.version += 10
        stamp.signed.snapshot_meta = self.put("snapshot", listed)
        self.sign("timestamp", stamp)
        self.depot.tree.put(self.depot.tree.metadata / "timestamp.json", stamp.to_bytes())

    def box(self) -> Updater:
        return self.depot.client(self._cache)


ONLINE = {"timestamp": 1, "snapshot": 1}


def test_with_the_online_keys_but_not_those_of_sets_nothing_can_be_put_into_a_set(depot: Depot, tmp_path: Path) -> None:
    depot.publish(1)
    thief = Thief(depot, tmp_path, **ONLINE)
    sig = copy.deepcopy(thief.chain.sig)
    sig.signed.targets[MANIFEST] = thief.evil(MANIFEST)
    thief.serve(sig=sig)
    with pytest.raises(RepositoryError):
        box = thief.box()
        box.refresh()
        box.get_targetinfo(MANIFEST)


@pytest.mark.parametrize("path", ["fw/skg-a1/9.raucb", "operators/1.json", "set.json", "sig/deep/set.json", "sigs/1"])
def test_who_may_sign_sets_can_sign_nothing_but_sets(depot: Depot, tmp_path: Path, path: str) -> None:
    thief = Thief(depot, tmp_path, sig=2, **ONLINE)
    sig = copy.deepcopy(thief.chain.sig)
    sig.signed.targets = {name: thief.evil(name) for name in (path, "sig/1.tar.zst")}
    thief.serve(sig=sig)
    box = thief.box()
    box.refresh()
    assert box.get_targetinfo("sig/1.tar.zst")  # the forgery itself is well made
    assert box.get_targetinfo(path) is None


@pytest.mark.parametrize("role", ["root", "targets"])
def test_one_stolen_stick_is_below_the_threshold(depot: Depot, tmp_path: Path, role: str) -> None:
    depot.publish(1)
    thief = Thief(depot, tmp_path, sig=2, **{role: 1}, **ONLINE)
    if role == "targets":
        targets = copy.deepcopy(thief.chain.targets)
        targets.signed.targets["fw/evil"] = thief.evil("fw/evil")
        thief.serve(targets=targets)
    else:
        root = copy.deepcopy(thief.chain.root)
        root.signed.version += 1
        thief.sign("root", root)
        thief.put("root", root)
    with pytest.raises(UnsignedMetadataError, match="was signed by 1/2 keys"):
        thief.box().refresh()


def test_one_stick_cannot_sign_twice(depot: Depot, tmp_path: Path) -> None:
    thief = Thief(depot, tmp_path, targets=1, **ONLINE)
    targets = copy.deepcopy(thief.chain.targets)
    targets.signed.targets["fw/evil"] = thief.evil("fw/evil")
    thief.serve(targets=targets, borrowed=True)
    with pytest.raises(UnsignedMetadataError, match="was signed by 1/2 keys"):
        thief.box().refresh()


class Tampering(Disk):
    """A web server that changes one kind of file on its way."""

    def __init__(self, directory: Path, name: str, change: Callable[[bytes], bytes]) -> None:
        super().__init__(directory)
        self._name, self._change = name, change

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = b"".join(super()._fetch(url))
        yield self._change(data) if self._name in url else data


@pytest.mark.parametrize("name", ["timestamp.json", ".snapshot.json", ".targets.json", ".sig.json", ".set.json"])
def test_not_one_byte_can_be_changed_on_the_way(depot: Depot, tmp_path: Path, name: str) -> None:
    depot.publish(1)
    server = Tampering(depot.tree.directory, name, lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    box = client_of(server, tmp_path / "box", depot.trusted)
    with pytest.raises(RepositoryError):
        box.refresh()
        info = box.get_targetinfo(MANIFEST)
        assert info
        box.download_target(info)


def test_the_time_of_signing_cannot_be_changed_on_the_way(depot: Depot, tmp_path: Path) -> None:
    stamp = (depot.tree.metadata / "timestamp.json").read_bytes()
    year = str(depot.now.year).encode()
    assert stamp.count(b'x_sk_issued":"' + year) == 1
    server = Tampering(
        depot.tree.directory, "timestamp.json", lambda data: data.replace(b'issued":"' + year, b'issued":"2099')
    )
    with pytest.raises(UnsignedMetadataError):
        client_of(server, tmp_path / "box", depot.trusted).refresh()


def test_an_old_state_is_not_taken_after_a_new_one(depot: Depot, tmp_path: Path) -> None:
    depot.publish(1)
    old = (depot.tree.metadata / "timestamp.json").read_bytes()
    depot.publish(2)
    depot.client(tmp_path / "box").refresh()
    depot.tree.put(depot.tree.metadata / "timestamp.json", old)
    with pytest.raises(BadVersionNumberError):
        depot.client(tmp_path / "box").refresh()


def test_files_of_two_states_cannot_be_mixed(depot: Depot, tmp_path: Path) -> None:
    depot.publish(1)
    older = depot.tree.versioned(depot.tree.chain().sig.signed.version, "sig").read_bytes()
    depot.publish(2)
    depot.tree.put(depot.tree.versioned(depot.tree.chain().sig.signed.version, "sig"), older)
    box = depot.client(tmp_path / "box")
    box.refresh()
    with pytest.raises(LengthOrHashMismatchError):
        box.get_targetinfo(MANIFEST)


class Publishing(Disk):
    """A web server whose repository gets a new set before every single answer."""

    def __init__(self, depot: Depot) -> None:
        super().__init__(depot.tree.directory)
        self._depot, self._number = depot, 1

    def _fetch(self, url: str) -> Iterator[bytes]:
        self._number += 1
        self._depot.publish(self._number)
        yield from super()._fetch(url)


def test_a_box_in_the_middle_of_a_refresh_finds_all_its_files_whatever_is_published(
    depot: Depot, tmp_path: Path
) -> None:
    depot.publish(1)
    box = client_of(Publishing(depot), tmp_path / "box", depot.trusted)
    box.refresh()
    info = box.get_targetinfo(MANIFEST)
    assert info and Path(box.download_target(info)).read_bytes()


def test_all_that_a_box_reads_is_far_below_what_it_allows(depot: Depot) -> None:
    for number in range(1, 5):
        depot.publish(number)
    limits = {"root": 512000, "timestamp": 16384, "snapshot": 2000000, "targets": 5000000, "sig": 5000000}
    chain = depot.tree.chain()
    for role, limit in limits.items():
        metadata: Metadata[Root] = getattr(chain, role)
        assert len(metadata.to_bytes()) < limit / 8
