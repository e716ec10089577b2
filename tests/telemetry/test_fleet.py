"""The box takes a list of bad files only when it is the centre's, newer than its own, and not over."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from sekisho.appliance.core import fleet
from sekisho.appliance.core.envelope import MESSAGE_CAP
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.fleet import All, Away, Change, Message
from sekisho.appliance.core.sealed import Key, load_key
from sekisho.center import pki
from sekisho.telemetry.fleet import FleetList, forget

NOW = time.time()
LATER = int(NOW) + 1000


def sha(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def whole(n: int, *names: str, until: int = LATER) -> All:
    return All(n, until, b"".join(sorted(map(sha, names))))


class Box:
    def __init__(self, root: Path) -> None:
        self.pki = root / "pki"
        pki.create_ca(self.pki)
        self.signer = self.make_signer("immunity-lists", "lists")
        self.directory = root / "fleet"
        self.start()

    def make_signer(self, cn: str, kind: pki.Kind, directory: Path | None = None) -> Key:
        made = pki.issue(directory or self.pki, cn, kind)
        return load_key(made.cert, made.key)

    def start(self) -> None:
        self.list = FleetList(self.directory, self.pki / "ca.crt", "box-1", NOW)

    def take(self, message: Message, signer: Key | None = None) -> bool:
        return self.list.take(fleet.seal(message, signer or self.signer), NOW)

    def stopped(self) -> set[bytes]:
        data = (self.directory / "bad.bin").read_bytes()
        return {data[at : at + 32] for at in range(0, len(data), 32)}


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_list_and_its_changes(box: Box) -> None:
    assert box.stopped() == set()
    assert box.take(whole(1, "a", "b"))
    assert box.stopped() == {sha("a"), sha("b")}
    assert box.take(Change(2, 1, LATER, [sha("c").hex()], [sha("a").hex()]))
    assert box.stopped() == {sha("b"), sha("c")}
    assert box.take(whole(5, "c"))
    assert box.stopped() == {sha("c")}


def test_it_is_still_there_after_a_restart(box: Box) -> None:
    box.take(whole(1, "a"))
    box.take(Change(2, 1, LATER, [sha("b").hex()]))
    box.start()
    assert box.stopped() == {sha("a"), sha("b")}


@pytest.mark.protocol("P27")
def test_what_is_older_changes_nothing_also_after_a_restart(box: Box) -> None:
    old, old_change = whole(1, "a"), Change(2, 1, LATER, [sha("b").hex()])
    box.take(old)
    box.take(whole(3, "c"))
    box.take(Change(5, 3, LATER, [sha("d").hex()]))
    box.start()
    for message in (old, old_change, Change(4, 3, LATER)):
        assert not box.take(message)
    assert box.stopped() == {sha("c"), sha("d")}
    assert box.list.refused == 3


def test_what_it_has_already_is_no_fault(box: Box) -> None:
    box.take(whole(1, "a"))
    assert not box.take(whole(1, "a"))
    assert box.list.refused == 0


def test_a_change_that_comes_before_its_list_waits(box: Box) -> None:
    box.take(whole(1, "a"))
    box.take(Change(4, 3, LATER, [sha("d").hex()]))
    box.take(whole(3, "c"))
    assert box.stopped() == {sha("c"), sha("d")}


@pytest.mark.parametrize("kind", ["client", "server", "node"])
@pytest.mark.protocol("P27")
def test_another_certificate_of_the_authority_cannot_sign(box: Box, kind: pki.Kind) -> None:
    assert not box.take(whole(1, "a"), box.make_signer("box-2", kind))
    assert box.list.refused == 1 and box.stopped() == set()


def test_another_authority_cannot_sign(box: Box, tmp_path: Path) -> None:
    pki.create_ca(tmp_path / "other")
    assert not box.take(whole(1, "a"), box.make_signer("immunity-lists", "lists", tmp_path / "other"))


@pytest.mark.protocol("P34")
def test_forged_oversized_and_mistyped(box: Box) -> None:
    sealed = fleet.seal(whole(1, "a"), box.signer)
    unsorted = All(2, LATER, sha("a") + sha("a"))
    for data in (sealed.replace(b'"payload":"ey', b'"payload":"fy'), b"", b"{}", b"[" * 9000, b"x" * (MESSAGE_CAP + 1)):
        assert not box.list.take(data, NOW)
    assert not box.take(unsorted)
    assert box.list.refused == 6 and box.stopped() == set()


@pytest.mark.protocol("P27")
def test_a_list_that_is_over_stops_nothing(box: Box) -> None:
    box.take(whole(1, "a"))
    box.list.publish(LATER + 1)
    assert box.stopped() == set()
    box.take(Change(2, 1, LATER + 100, [sha("b").hex()]))
    box.list.publish(LATER + 1)
    assert box.stopped() == {sha("a"), sha("b")}


def test_a_tenant_that_takes_no_part(box: Box) -> None:
    box.take(whole(1, "a"))
    assert not box.take(Away(7, "box-2")), "about another box"
    assert box.take(Away(7, "box-1"))
    assert box.stopped() == set()
    box.start()
    assert box.stopped() == set()
    box.list.back(NOW)
    assert box.stopped() == {sha("a")}


def test_an_owner_who_takes_no_part(box: Box) -> None:
    box.take(whole(1, "a"))
    forget(box.directory)
    assert list(box.directory.iterdir()) == []


def test_a_damaged_copy_is_passed_over(box: Box) -> None:
    box.take(whole(1, "a"))
    (box.directory / "all.json").write_bytes(b"damaged")
    box.start()
    assert box.stopped() == set()
    assert box.take(whole(2, "b")) and box.stopped() == {sha("b")}


def test_without_the_centres_ca_there_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(RejectedInput, match="cannot be used"):
        FleetList(tmp_path / "fleet", tmp_path / "absent", "box-1", NOW)
