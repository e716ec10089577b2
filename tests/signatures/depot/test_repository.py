"""Roles are as decided, are signed again in time, and people are told in their words what is theirs to do."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from repository import Depot
from tuf.api.exceptions import ExpiredMetadataError

from sekisho.appliance.cli import main
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.signatures.depot import repository
from sekisho.signatures.depot.keys import KeysMissing, Ring
from sekisho.signatures.depot.roles import ISSUED, ROLES
from sekisho.signatures.depot.status import status
from sekisho.signatures.depot.tree import Published, Tree
from sekisho.signatures.published import MANIFEST

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


def test_roles_hold_as_long_and_take_as_many_keys_as_decided(depot: Depot) -> None:
    found = {role.role: role for role in status(depot.tree, depot.now).roles}
    assert {name: (role.threshold, len(role.keys), role.offline) for name, role in found.items()} == {
        "root": (2, 3, True),
        "targets": (2, 3, True),
        "sig": (1, 2, False),
        "snapshot": (1, 1, False),
        "timestamp": (1, 1, False),
    }
    lives = {name: dt.datetime.fromisoformat(role.expires) - depot.now for name, role in found.items()}
    assert {name: round(life / HOUR) for name, life in lives.items()} == {
        "root": 365 * 24,
        "targets": 90 * 24,
        "sig": 7 * 24,
        "snapshot": 7 * 24,
        "timestamp": 24,
    }
    assert depot.tree.chain().root.signed.consistent_snapshot


def test_no_key_signs_two_roles_and_each_file_is_its_owners_alone(depot: Depot) -> None:
    chain = depot.tree.chain()
    named = [keyid for role in chain.root.signed.roles.values() for keyid in role.keyids]
    named += chain.targets.signed.get_delegated_role("sig").keyids
    assert len(set(named)) == len(named) == 10
    files = list(depot.keys.rglob("*.pem"))
    assert len(files) == 10 and {path.stat().st_mode & 0o777 for path in files} == {0o600}
    sticks = {path.parent.name for path in files if path.name.startswith(("root", "targets"))}
    assert len(sticks) == 6 and {path.stat().st_mode & 0o777 for path in depot.keys.iterdir()} == {0o700}


def test_the_time_of_signing_is_signed(depot: Depot) -> None:
    for _ in range(2):
        stamp = json.loads((depot.tree.metadata / "timestamp.json").read_bytes())
        assert dt.datetime.fromisoformat(stamp["signed"][ISSUED]) == depot.now
        depot.renew(7 * HOUR)


def test_a_repository_or_keys_are_never_overwritten(depot: Depot, tmp_path: Path) -> None:
    with pytest.raises(RejectedInput, match="repository"):
        repository.init(depot.tree, tmp_path / "other keys", depot.now)
    with pytest.raises(RejectedInput, match="keys"):
        repository.init(Tree(tmp_path / "other"), depot.keys, depot.now)
    assert not (tmp_path / "other keys").exists() and not (tmp_path / "other").exists()


def test_a_renewal_by_the_timer_keeps_weeks_valid_with_the_online_keys_alone(depot: Depot) -> None:
    for path in depot.keys.iterdir():
        if path.name != "online":
            shutil.rmtree(path)
    depot.ring = Ring([depot.keys])
    signed = {role: 0 for role in ROLES}
    for _ in range(14 * 8):
        for role in depot.renew(3 * HOUR):
            signed[role] += 1
        found = {role.role: role.state for role in status(depot.tree, depot.now).roles}
        assert found["timestamp"] == found["snapshot"] == found["sig"] == "good"
    assert signed == {"root": 0, "targets": 0, "sig": 7, "snapshot": 7, "timestamp": 56}
    assert len(list(depot.tree.metadata.iterdir())) < 20


def test_renewal_with_nothing_due_changes_no_file(depot: Depot) -> None:
    depot.publish(1)
    before = {path: path.stat().st_mtime_ns for path in depot.tree.directory.rglob("*") if path.name != ".lock"}
    assert depot.renew(HOUR) == []
    assert before == {path: path.stat().st_mtime_ns for path in depot.tree.directory.rglob("*") if path.name != ".lock"}


def test_a_lost_hint_is_written_again(depot: Depot) -> None:
    depot.publish(4)
    hint = depot.tree.directory / "published.json"
    damages: list[Callable[[], object]] = [
        hint.unlink,
        lambda: hint.write_bytes(b""),
        lambda: hint.write_text('{"number":3,"at":""}'),
    ]
    for damage in damages:
        damage()
        depot.renew()
        assert msgspec.json.decode(hint.read_bytes(), type=Published).number == 4


def test_people_are_told_in_time_to_bring_their_sticks_and_then_it_is_signed(depot: Depot, tmp_path: Path) -> None:
    shutil.move(depot.keys / "targets-1", tmp_path / "stick1")
    shutil.move(depot.keys / "targets-2", tmp_path / "stick2")
    depot.ring = Ring([depot.keys / "online"])
    depot.renew(50 * DAY)
    [todo] = status(depot.tree, depot.now).todo
    assert "targets should be signed again" in todo and "bring 2 of its keys" in todo
    assert not status(depot.tree, depot.now).in_trouble
    depot.ring = Ring([depot.keys / "online", tmp_path / "stick1"])
    assert "targets" not in depot.renew(30 * DAY)
    assert status(depot.tree, depot.now).in_trouble
    depot.ring = Ring([depot.keys / "online", tmp_path / "stick1", tmp_path / "stick2"])
    assert "targets" in depot.renew()
    assert not status(depot.tree, depot.now).todo
    depot.ring = Ring([depot.keys, tmp_path])
    assert depot.renew(120 * DAY) == ["root", "targets", "sig", "snapshot", "timestamp"]
    assert depot.tree.versions("root") == [1, 2]


def test_what_expired_is_said_and_a_box_takes_nothing_of_it(tmp_path: Path) -> None:
    depot = Depot(tmp_path, now=dt.datetime.now(dt.UTC) - 2 * DAY)
    with pytest.raises(ExpiredMetadataError):
        depot.client(tmp_path / "box").refresh()
    found = status(depot.tree, dt.datetime.now(dt.UTC))
    assert found.in_trouble and "has expired, and boxes take nothing new" in found.todo[0]
    depot.renew(2 * DAY)
    depot.client(tmp_path / "box").refresh()


@pytest.mark.parametrize(
    "name", ["timestamp.json", "1.root.json", "2.snapshot.json", "1.targets.json", "2.sig.json", MANIFEST]
)
@pytest.mark.parametrize("damage", ["gone", "empty", "changed"])
def test_a_damaged_repository_is_said_to_be_and_not_signed(depot: Depot, name: str, damage: str) -> None:
    depot.publish(1)
    chain = depot.tree.chain()
    path = depot.tree.target(chain.sig.signed.targets[name]) if name == MANIFEST else depot.tree.metadata / name
    data = path.read_bytes()
    path.unlink() if damage == "gone" else path.write_bytes(b"" if damage == "empty" else data.replace(b"1", b"2"))
    with pytest.raises(DeviceFault):
        status(depot.tree, depot.now)
    with pytest.raises(DeviceFault):
        depot.renew(7 * HOUR)


def test_a_key_others_can_read_signs_nothing(depot: Depot) -> None:
    [path] = (depot.keys / "online").glob("timestamp-*.pem")
    path.chmod(0o640)
    with pytest.raises(RejectedInput, match=r"chmod 600"):
        strangers(depot).renew(7 * HOUR)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", None])
def test_a_file_that_is_not_the_key_it_is_named_after_signs_nothing(depot: Depot, content: bytes | None) -> None:
    [path] = (depot.keys / "online").glob("timestamp-*.pem")
    [other] = (depot.keys / "online").glob("snapshot-*.pem")
    path.write_bytes(other.read_bytes() if content is None else content)
    with pytest.raises(RejectedInput, match=r"damaged|not the key"):
        strangers(depot).renew(7 * HOUR)


def strangers(depot: Depot) -> Depot:
    """The same repository, with keys as they are on the disk."""
    depot.ring = Ring([depot.keys])
    return depot


def test_two_publishers_at_once_take_turns(depot: Depot) -> None:
    commands = []
    for number in (1, 2, 3, 4):
        place = ["--dir", str(depot.tree.directory), "--keys", str(depot.keys)]
        argv = ["-m", "sekisho.appliance.cli", "signatures", "publish", str(depot.build(number, deltas=0)), *place]
        commands.append([sys.executable, "-I", *argv])
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for argv in commands]
    told = [process.communicate(timeout=50) for process in running]
    done = [number for number, process in enumerate(running, 1) if process.returncode == 0]
    assert 4 in done
    assert all("numbers only grow" in err for number, (_, err) in enumerate(told, 1) if number not in done)
    chain = depot.tree.chain()
    assert status(depot.tree, dt.datetime.now(dt.UTC)).number == 4
    assert chain.timestamp.signed.version == 2 + len(done)
    assert depot.tree.versions("sig") == list(range(1, 2 + len(done)))


def test_the_commands_say_what_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group, place = ["signatures", "repository"], ["--dir", str(tmp_path / "r")]
    assert main([*group, "status", *place]) == 3
    assert "repository init" in capsys.readouterr().err
    assert main([*group, "init", *place]) == 2
    assert main([*group, "init", *place, "--keys", str(tmp_path / "k")]) == 0
    assert main([*group, "status", *place]) == 0
    assert "No set is published yet." in (told := capsys.readouterr().out) and "To do: nothing." in told
    assert main([*group, "status", *place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["number"] == 0
    assert main([*group, "renew", *place, "--keys", str(tmp_path / "k")]) == 0
    assert "Nothing is due." in capsys.readouterr().out
    assert main([*group, "renew", *place, "--keys", str(tmp_path / "no stick")]) == 0  # nothing due needs no key
    short = tmp_path / "word"
    short.write_text("short\n")
    more = ["--dir", str(tmp_path / "r2"), "--keys", str(tmp_path / "k2"), "--passphrase-file", str(short)]
    assert main([*group, "init", *more]) == 2
    assert not (tmp_path / "k2").exists()


def test_keys_missing_is_told_with_their_names(depot: Depot) -> None:
    shutil.rmtree(depot.keys / "online")
    (depot.keys / "online").mkdir()
    with pytest.raises(KeysMissing, match=r"timestamp takes 1 of its 1 keys; found here: 0 \(looked for timestamp-"):
        strangers(depot).renew(7 * HOUR)
