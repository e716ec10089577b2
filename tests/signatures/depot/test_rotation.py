"""Keys are replaced while boxes go on refreshing; the old ones are worth nothing then, and forgeries are forgotten."""

from __future__ import annotations

import copy
import datetime as dt
from pathlib import Path

import pytest
from repository import Depot
from tuf.api.exceptions import BadVersionNumberError, RepositoryError
from tuf.api.metadata import MetaFile

from sekisho.appliance.cli import main
from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.depot import repository
from sekisho.signatures.depot.keys import KeysMissing, Ring
from sekisho.signatures.depot.publishing import publish
from sekisho.signatures.depot.roles import ROLES
from sekisho.signatures.depot.rotate import rotate
from sekisho.signatures.depot.signing import sign
from sekisho.signatures.depot.status import status
from sekisho.signatures.depot.tree import Tree
from sekisho.signatures.published import MANIFEST

FAR = 1 << 31


def newest(depot: Depot, cache: Path) -> int:
    """The number a client with its state in `cache` finds."""
    client = depot.client(cache)
    client.refresh()
    info = client.get_targetinfo(MANIFEST)
    assert info
    text = Path(client.download_target(info)).read_text()
    return int(text.split('"number":')[1].split(",")[0])


@pytest.mark.parametrize("role", ROLES)
def test_boxes_old_and_new_follow_a_rotation_and_the_old_keys_sign_nothing(
    depot: Depot, tmp_path: Path, role: str
) -> None:
    depot.publish(1)
    assert newest(depot, tmp_path / "box") == 1
    old = depot.tree.chain()
    made = rotate(depot.tree, depot.ring, role, tmp_path / "new", depot.now)
    assert len(made) == ROLES[role].keys
    found = next(found for found in status(depot.tree, depot.now).roles if found.role == role)
    assert sorted(found.keys) == sorted(made)
    assert newest(depot, tmp_path / "box") == 1
    fresh = Ring([depot.keys, tmp_path / "new"])
    depot.ring = fresh
    depot.publish(2)
    assert newest(depot, tmp_path / "box") == 2
    assert newest(depot, tmp_path / "another box") == 2
    now = depot.tree.chain()
    judge_then, judge_now = (old.targets, now.targets) if role == "sig" else (old.root, now.root)
    before = judge_then.signed.get_delegated_role(role).keyids
    assert not set(before) & set(judge_now.signed.get_delegated_role(role).keyids)
    old_keys = Ring([depot.keys])
    with pytest.raises(KeysMissing):
        if ROLES[role].offline:
            rotate(depot.tree, old_keys, role, tmp_path / "third", depot.now)
        else:
            publish(depot.tree, old_keys, depot.build(3), depot.now)


@pytest.mark.parametrize("forged", ["timestamp", "snapshot", "sig"])
def test_a_box_that_saw_versions_far_ahead_recovers_once_the_keys_are_replaced(
    depot: Depot, tmp_path: Path, forged: str
) -> None:
    depot.publish(1)
    honest = (depot.tree.metadata / "timestamp.json").read_bytes()
    chain = depot.tree.chain()
    if forged != "timestamp":
        listed = chain.snapshot
        if forged == "sig":
            listed.signed.meta["sig.json"].version = FAR
        listed.signed.version = FAR if forged == "snapshot" else listed.signed.version + 1
        data = sign(depot.ring, "snapshot", listed.signed, [chain.root], depot.now).to_bytes()
        depot.tree.put(depot.tree.versioned(listed.signed.version, "snapshot"), data)
        chain.timestamp.signed.snapshot_meta = MetaFile.from_data(listed.signed.version, data, ["sha256"])
    chain.timestamp.signed.version += FAR if forged == "timestamp" else 1
    stamp = sign(depot.ring, "timestamp", chain.timestamp.signed, [chain.root], depot.now)
    depot.tree.put(depot.tree.metadata / "timestamp.json", stamp.to_bytes())
    depot.client(tmp_path / "box").refresh()
    depot.tree.put(depot.tree.metadata / "timestamp.json", honest)
    depot.tree.versioned(FAR, "snapshot").unlink(missing_ok=True)
    for _ in range(3):
        depot.renew(dt.timedelta(hours=7))
    with pytest.raises(BadVersionNumberError):
        newest(depot, tmp_path / "box")
    rotate(depot.tree, depot.ring, "timestamp", tmp_path / "new", depot.now)
    rotate(depot.tree, depot.ring, "snapshot", tmp_path / "new", depot.now)
    depot.publish(2)
    assert newest(depot, tmp_path / "box") == 2


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_keys_that_are_lost_are_replaced_and_a_crash_in_between_is_mended_by_renew(
    depot: Depot, tmp_path: Path, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot.publish(1)
    assert newest(depot, tmp_path / "box") == 1
    for path in depot.keys.rglob(f"{role}-*.pem"):
        path.unlink()
    ring = Ring([depot.keys])
    with pytest.raises(KeysMissing):
        rotate(depot.tree, Ring([depot.keys]), role, tmp_path / "vain", depot.now)
    assert depot.tree.versions("root") == [1]

    def cut(tree: Tree, path: Path, data: bytes) -> None:
        whole(tree, path, data)
        if path.name == "2.root.json":
            raise KeyboardInterrupt

    whole = Tree.put
    monkeypatch.setattr(Tree, "put", cut)
    with pytest.raises(KeyboardInterrupt):
        rotate(depot.tree, ring, role, tmp_path / "new", depot.now, lost=True)
    monkeypatch.undo()
    assert [found.role for found in status(depot.tree, depot.now).roles if found.state == "orphaned"] == [role]
    with pytest.raises(RepositoryError):
        newest(depot, tmp_path / "box")
    depot.ring = Ring([depot.keys, tmp_path / "new"])
    assert role in repository.renew(depot.tree, depot.ring, depot.now)
    assert not status(depot.tree, depot.now).in_trouble
    assert newest(depot, tmp_path / "box") == 1


def test_root_itself_cannot_be_lost(depot: Depot, tmp_path: Path) -> None:
    with pytest.raises(RejectedInput, match="no new root"):
        rotate(depot.tree, depot.ring, "root", tmp_path / "new", depot.now, lost=True)


def test_a_box_from_a_drawer_climbs_every_root(depot: Depot, tmp_path: Path) -> None:
    for turn in range(3):
        rotate(depot.tree, depot.ring, "root", tmp_path / f"new{turn}", depot.now)
    depot.publish(1)
    assert depot.tree.versions("root") == [1, 2, 3, 4]
    assert newest(depot, tmp_path / "box") == 1


def test_the_command_replaces_keys_that_a_passphrase_guards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    word = tmp_path / "word"
    word.write_text("correct horse battery\n")
    place = ["--dir", str(tmp_path / "r"), "--passphrase-file", str(word)]
    group = ["signatures", "repository"]
    assert main([*group, "init", *place, "--keys", str(tmp_path / "k")]) == 0
    stick = next((tmp_path / "k" / "root-1").iterdir())
    assert b"ENCRYPTED" in stick.read_bytes() and stick.stat().st_mode & 0o777 == 0o600
    rotated = [*group, "rotate", "targets", *place, "--keys", str(tmp_path / "k"), "--new-keys", str(tmp_path / "n")]
    word.write_text("wrong horse battery\n")
    assert main(rotated) == 2
    assert "passphrase is missing or wrong" in capsys.readouterr().err
    word.write_text("correct horse battery\n")
    assert main(rotated) == 0
    assert "New keys of targets" in capsys.readouterr().out
    chain = Tree(tmp_path / "r").chain()
    assert (chain.root.signed.version, chain.targets.signed.version) == (2, 2)
    assert chain.timestamp.signed.expires > dt.datetime.now(dt.UTC)
    assert copy.deepcopy(chain.root.signed.roles["targets"].threshold) == 2
