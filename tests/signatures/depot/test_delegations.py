"""Releases and the list of operators have keys of their own, off line, beside the sets and without disturbing them."""

from __future__ import annotations

import datetime as dt
import os
import shutil
from pathlib import Path

import pytest
from repository import Depot

from sekisho.appliance.cli import main
from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.depot import ceremony, repository
from sekisho.signatures.depot.adopting import adopt, load
from sekisho.signatures.depot.commands import hand_over
from sekisho.signatures.depot.keys import KeysMissing, Ring
from sekisho.signatures.depot.roles import FURTHER, TERMS
from sekisho.signatures.depot.status import status

GROUP = ["signatures", "repository"]


def delegate(depot: Depot, role: str = "fw") -> None:
    made = ceremony.delegate(depot.tree, depot.ring, role, depot.keys, depot.now)
    adopt(depot.tree, depot.ring, made, depot.now)


def enlist(depot: Depot, source: Path, path: str = "fw/amd64/release.json", *places: Path) -> ceremony.Made:
    ring = Ring(places or [depot.keys])
    return ceremony.enlist(depot.tree, ring, path.split("/")[0], {path: source}, lambda path: False, depot.now)


def taken(depot: Depot, path: str) -> bytes:
    cache = depot.root / f"client{len(list(depot.root.glob('client*')))}"
    client = depot.client(cache)
    client.refresh()
    info = client.get_targetinfo(path)
    assert info is not None
    return Path(client.download_target(info)).read_bytes()


@pytest.mark.parametrize("role", FURTHER)
def test_a_delegation_is_made_in_the_locked_room_and_put_in_force_at_the_centre(
    depot: Depot, tmp_path: Path, role: str
) -> None:
    depot.publish(1)
    box = depot.client(tmp_path / "box")
    box.refresh()
    copy, out, new = tmp_path / "copy", tmp_path / "out", tmp_path / "new"
    shutil.copytree(depot.tree.directory, copy)
    sticks = ["--keys", str(depot.keys / "targets-1"), "--keys", str(depot.keys / "targets-3")]
    room = ["--dir", str(copy), *sticks, "--new-keys", str(new), "--out", str(out)]
    assert main([*GROUP, "delegate", role, *room]) == 0
    assert sorted(path.name for path in out.iterdir()) == [f"1.{role}.json", "2.targets.json"]
    assert sorted(path.name for path in new.iterdir()) == [f"{role}-{number}" for number in (1, 2, 3)]
    centre = ["--dir", str(depot.tree.directory), "--keys", str(depot.keys / "online")]
    assert main([*GROUP, "adopt", str(out / "2.targets.json"), *centre]) == 2, "one half"
    assert main([*GROUP, "adopt", *map(str, out.iterdir()), *centre]) == 0
    assert main([*GROUP, "delegate", role, *room]) == 0, "the copy knows nothing of it"
    assert main([*GROUP, "adopt", *map(str, out.iterdir()), *centre]) == 2, "twice"
    terms = depot.tree.chain().targets.signed.get_delegated_role(role)
    assert (len(terms.keyids), terms.threshold) == (3, 2)
    depot.ring = Ring([depot.keys / "online"])
    depot.publish(2)
    again = depot.client(tmp_path / "box")
    again.refresh()
    assert again.get_targetinfo("sig/2.tar.zst") and not again.get_targetinfo(f"{role}/anything")


def test_what_two_keyholders_sign_is_carried_over_and_reaches_a_box(depot: Depot, tmp_path: Path) -> None:
    delegate(depot)
    delegate(depot, "operators")
    source, out = tmp_path / "release.json", tmp_path / "out"
    source.write_bytes(b"a release")
    hand_over(enlist(depot, source, "fw/amd64/release.json", depot.keys / "fw-1", depot.keys / "fw-2"), out)
    made = load([path for path in out.iterdir() if path.name.endswith(".fw.json")])
    adopt(depot.tree, Ring([depot.keys / "online"]), made, depot.now)
    source.write_bytes(b"people")
    adopt(depot.tree, depot.ring, enlist(depot, source, "operators/operators.json"), depot.now)
    assert taken(depot, "fw/amd64/release.json") == b"a release"
    assert taken(depot, "operators/operators.json") == b"people"
    depot.publish(1)
    assert taken(depot, "fw/amd64/release.json") == b"a release", "publishing sets leaves it"


def test_one_keyholder_signs_nothing(depot: Depot, tmp_path: Path) -> None:
    delegate(depot)
    (tmp_path / "release.json").write_bytes(b"mine")
    with pytest.raises(KeysMissing):
        enlist(depot, tmp_path / "release.json", "fw/amd64/release.json", depot.keys / "fw-1")


def test_content_that_is_missing_or_is_not_what_was_signed_is_not_put_in_force(depot: Depot, tmp_path: Path) -> None:
    delegate(depot)
    source = tmp_path / "release.json"
    source.write_bytes(b"a release")
    made = enlist(depot, source)
    for wrong in (b"a Release", b"a release and more", b"a"):
        source.write_bytes(wrong)
        with pytest.raises(RejectedInput, match="is not the"):
            adopt(depot.tree, depot.ring, made, depot.now)
    source.unlink()
    with pytest.raises(RejectedInput, match="missing"):
        adopt(depot.tree, depot.ring, made, depot.now)
    assert depot.tree.chain().signed("fw").version == 1
    assert not [path for path in depot.tree.targets.rglob("*release*")], "nothing is left of the tries"


@pytest.mark.parametrize("lost", [False, True])
def test_keys_of_releases_are_replaced_and_what_was_published_stays(depot: Depot, tmp_path: Path, lost: bool) -> None:
    delegate(depot)
    source = tmp_path / "release.json"
    source.write_bytes(b"a release")
    adopt(depot.tree, depot.ring, enlist(depot, source), depot.now)
    if lost:
        for number in (1, 2, 3):
            shutil.rmtree(depot.keys / f"fw-{number}")
    made = ceremony.replace(depot.tree, Ring([depot.keys]), "fw", tmp_path / "new", depot.now, lost=lost)
    adopt(depot.tree, depot.ring, made, depot.now)
    assert taken(depot, "fw/amd64/release.json") == b"a release"
    source.write_bytes(b"the next")
    if not lost:
        with pytest.raises(KeysMissing):
            enlist(depot, source)
    adopt(depot.tree, depot.ring, enlist(depot, source, "fw/amd64/release.json", tmp_path / "new"), depot.now)
    assert taken(depot, "fw/amd64/release.json") == b"the next"


def test_what_targets_no_longer_vouch_for_cannot_be_put_in_force(depot: Depot, tmp_path: Path) -> None:
    delegate(depot)
    made = ceremony.replace(depot.tree, depot.ring, "fw", tmp_path / "new", depot.now)
    with pytest.raises(RejectedInput):
        adopt(depot.tree, depot.ring, ceremony.Made(targets=made.targets), depot.now)
    adopt(depot.tree, depot.ring, made, depot.now)


def test_status_asks_for_two_sticks_in_time_and_renewing_with_them_is_enough(depot: Depot) -> None:
    delegate(depot)
    assert not status(depot.tree, depot.now).todo
    sticks, depot.ring = depot.ring, Ring([depot.keys / "online"])
    depot.now += TERMS["fw"].renewed_after - dt.timedelta(days=1)
    depot.renew()
    depot.renew(dt.timedelta(days=2))
    assert any(line.startswith("fw should be signed again") for line in status(depot.tree, depot.now).todo)
    depot.ring = sticks
    assert "fw" in depot.renew()
    assert not [line for line in status(depot.tree, depot.now).todo if line.startswith("fw")]
    assert "fw" not in repository.due(depot.tree.chain(), depot.now)


def test_what_is_no_longer_listed_is_removed_once_no_box_can_need_it(depot: Depot, tmp_path: Path) -> None:
    delegate(depot)
    for number in (1, 2):
        source = tmp_path / f"{number}.tar.zst"
        source.write_bytes(bytes([number]))
        made = ceremony.enlist(
            depot.tree, depot.ring, "fw", {f"fw/amd64/{source.name}": source}, lambda path: True, depot.now
        )
        adopt(depot.tree, depot.ring, made, depot.now)
    bundles = depot.tree.targets / "fw" / "amd64"
    assert len(list(bundles.iterdir())) == 2, "a box may be in the middle of it"
    depot.publish(1)
    for path in depot.tree.metadata.iterdir():
        os.utime(path, (depot.now.timestamp() - 30 * 86_400,) * 2)
    depot.publish(2)
    assert [path.name.split(".")[1] for path in bundles.iterdir()] == ["2"]
