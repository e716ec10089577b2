"""The offline keys never come near a network: what people sign elsewhere is carried to the centre and put in force."""

from __future__ import annotations

import datetime as dt
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from repository import Depot

from sekisho.appliance.cli import main
from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.depot import ceremony
from sekisho.signatures.depot.adopting import adopt, load
from sekisho.signatures.depot.keys import Ring
from sekisho.signatures.depot.roles import ROLES
from sekisho.signatures.depot.status import status
from sekisho.signatures.depot.tree import Tree

GROUP = ["signatures", "repository"]


@dataclass
class Places:
    """The centre with the online keys, and a machine in a locked room with the sticks and a copy."""

    depot: Depot
    room: Path

    @property
    def centre(self) -> list[str]:
        return ["--dir", str(self.depot.tree.directory), "--keys", str(self.depot.keys / "online")]

    def in_the_room(self, *sticks: str) -> list[str]:
        shutil.rmtree(self.room / "copy", ignore_errors=True)
        shutil.copytree(self.depot.tree.directory, self.room / "copy")
        named = [word for stick in sticks for word in ("--keys", str(self.room / stick))]
        return ["--dir", str(self.room / "copy"), *named]

    def works(self) -> None:
        """A box that knows the repository and a new one go on; the centre signs with what it has."""
        self.depot.ring = Ring([self.depot.keys / "online"])
        self.depot.publish(max(self.depot.sets, default=0) + 1)
        for cache in ("box", f"new {len(self.depot.sets)}"):
            client = self.depot.client(self.depot.root / cache)
            client.refresh()
            assert client.get_targetinfo(f"sig/{max(self.depot.sets)}.tar.zst")
        assert not status(self.depot.tree, self.depot.now).todo


@pytest.fixture
def places(depot: Depot, tmp_path: Path) -> Places:
    room = tmp_path / "room"
    room.mkdir()
    for path in list(depot.keys.iterdir()):
        if path.name != "online":
            shutil.move(path, room / path.name)
    made = Places(depot, room)
    made.works()
    return made


@pytest.mark.parametrize("role", ["root", "targets"])
def test_an_offline_role_is_signed_for_longer_with_two_sticks(places: Places, role: str) -> None:
    before = getattr(places.depot.tree.chain(), role).signed
    out = places.room / "out"
    room = places.in_the_room(f"{role}-1", f"{role}-3")
    assert main([*GROUP, "sign", role, "--out", str(out), *room]) == 0
    [made] = out.iterdir()
    assert made.name == f"2.{role}.json"
    assert main([*GROUP, "adopt", str(made), *places.centre]) == 0
    after = getattr(places.depot.tree.chain(), role).signed
    assert after.version == 2 and after.expires >= before.expires
    places.works()


@pytest.mark.parametrize("role", ROLES)
def test_keys_of_any_role_are_replaced_from_the_locked_room(places: Places, role: str) -> None:
    out, new = places.room / "out", places.room / "new"
    sticks = [f"{judge}-{number}" for judge in ("root", "targets") for number in (1, 2)]
    room = places.in_the_room(*sticks)
    assert main([*GROUP, "rotate", role, "--new-keys", str(new), "--out", str(out), *room]) == 0
    assert {path.name for path in out.iterdir()} == {
        "root": {"2.root.json"},
        "targets": {"2.root.json", "2.targets.json"},
        "sig": {"2.targets.json"},
        "snapshot": {"2.root.json"},
        "timestamp": {"2.root.json"},
    }[role]
    if not ROLES[role].offline:
        for path in (new / "online").iterdir():
            shutil.copy(path, places.depot.keys / "online")
    assert main([*GROUP, "adopt", *map(str, out.iterdir()), *places.centre]) == 0
    places.works()


def test_one_half_of_a_ceremony_is_not_put_in_force(places: Places) -> None:
    out = places.room / "out"
    room = places.in_the_room("root-1", "root-2", "targets-1", "targets-2")
    assert main([*GROUP, "rotate", "targets", "--new-keys", str(places.room / "new"), "--out", str(out), *room]) == 0
    assert main([*GROUP, "adopt", str(out / "2.root.json"), *places.centre]) == 2
    places.works()


def test_what_was_signed_on_an_old_copy_or_has_expired_or_is_no_metadata_is_refused(
    places: Places, tmp_path: Path
) -> None:
    depot, ring = places.depot, Ring([places.depot.keys, places.room])
    old = ceremony.extend(depot.tree, ring, "targets", depot.now)
    adopt(depot.tree, ring, old, depot.now)
    with pytest.raises(RejectedInput, match="in force already"):
        adopt(depot.tree, ring, old, depot.now)
    root = ceremony.extend(depot.tree, ring, "root", depot.now)
    with pytest.raises(RejectedInput, match="expired"):
        adopt(depot.tree, ring, root, depot.now + dt.timedelta(days=366), clock_is_right=True)
    adopt(depot.tree, ring, root, depot.now)
    with pytest.raises(RejectedInput, match="cannot be next"):
        adopt(depot.tree, ring, root, depot.now)
    for name, data in {"3.root.json": b"{}", "3.targets.json": b"", "x.json": b"{}"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RejectedInput):
            load([tmp_path / name])
    for name in ("timestamp.json", "2.snapshot.json"):
        with pytest.raises(RejectedInput, match="not wanted"):
            load([depot.tree.metadata / name])


def test_a_root_that_too_few_signed_is_refused(places: Places) -> None:
    depot, ring = places.depot, Ring([places.depot.keys, places.room])
    made = ceremony.extend(depot.tree, ring, "root", depot.now)
    assert made.root
    made.root.signatures.popitem()
    with pytest.raises(RejectedInput, match="signed by 1/2 keys"):
        adopt(depot.tree, ring, made, depot.now)
    assert Tree(depot.tree.directory).versions("root") == [1]
