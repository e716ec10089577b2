"""The box takes the centre's settings only when they are the centre's, its own, and newer than what it has."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from sekisho.appliance.core import fleet, orders
from sekisho.appliance.core.envelope import MESSAGE_CAP
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fleet import All
from sekisho.appliance.core.orders import DOCUMENT_CAP, Orders
from sekisho.appliance.core.sealed import Key, load_key
from sekisho.center import pki
from sekisho.telemetry.orders import OrdersFile

HERE = Path(__file__).parent / "crash"
sys.path.insert(0, str(HERE))

from crash_disk import Disk, read_log  # noqa: E402

NOW = time.time()
EMPTY = msgspec.Raw(b"{}")


class Box:
    def __init__(self, root: Path) -> None:
        self.pki = root / "pki"
        pki.create_ca(self.pki)
        self.key = self.make_key("orders-key", "orders")
        self.path = root / "orders" / "orders.json"
        self.start()

    def make_key(self, cn: str, kind: pki.Kind, directory: Path | None = None) -> Key:
        made = pki.issue(directory or self.pki, cn, kind)
        return load_key(made.cert, made.key)

    def start(self, ca: Path | None = None) -> None:
        self.kept = OrdersFile(self.path, ca or self.pki / "ca.crt", "t1", "box-1")

    def sealed(self, n: int, box: str = "box-1", tenant: str = "t1", key: Key | None = None) -> bytes:
        return orders.seal(Orders(n, tenant, box, EMPTY), key or self.key)

    def here(self) -> int:
        return orders.unchecked(self.path.read_bytes()).n if self.path.exists() else 0


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_the_newest_document_is_kept_for_the_appliance_alone(box: Box) -> None:
    assert box.kept.take(box.sealed(5), NOW) and box.here() == 5
    assert box.kept.take(box.sealed(9), NOW) and box.here() == 9
    assert box.path.stat().st_mode & 0o777 == 0o640


@pytest.mark.protocol("P36")
def test_an_older_document_changes_nothing_also_after_a_restart(box: Box) -> None:
    old = box.sealed(5)
    box.kept.take(box.sealed(9), NOW)
    for _ in range(2):
        assert not box.kept.take(old, NOW)
        assert box.here() == 9 and box.kept.refused == 1
        box.start()


@pytest.mark.protocol("P36")
def test_another_boxs_or_tenants_document_is_none(box: Box) -> None:
    for message in (box.sealed(5, box="box-2"), box.sealed(5, tenant="t2"), box.sealed(5, "box-2", "t2")):
        assert not box.kept.take(message, NOW)
    assert box.here() == 0 and box.kept.refused == 3


@pytest.mark.protocol("P36")
@pytest.mark.parametrize("kind", ["client", "server", "node", "lists"])
def test_another_certificate_of_the_authority_cannot_sign(box: Box, kind: pki.Kind) -> None:
    assert not box.kept.take(box.sealed(5, key=box.make_key("box-2", kind)), NOW)
    assert box.here() == 0


@pytest.mark.protocol("P36")
def test_a_key_for_settings_cannot_sign_lists_nor_one_authority_for_another(box: Box, tmp_path: Path) -> None:
    ca = box.kept._ca
    with pytest.raises(RejectedInput, match="another purpose"):
        fleet.unseal(fleet.seal(All(1, int(NOW) + 9), box.key), ca, NOW)
    pki.create_ca(tmp_path / "other")
    assert not box.kept.take(box.sealed(5, key=box.make_key("orders-key", "orders", tmp_path / "other")), NOW)


def test_what_was_signed_for_another_purpose_is_none(box: Box) -> None:
    payload = msgspec.json.encode(Orders(5, "t1", "box-1", EMPTY))
    assert not box.kept.take(box.key.seal(payload, fleet.PURPOSE), NOW)


@pytest.mark.protocol("P36")
def test_forged_damaged_oversized_and_nested(box: Box) -> None:
    good = box.sealed(5)
    sealed = msgspec.json.decode(good)
    other = msgspec.json.decode(box.sealed(6))
    for data in (
        b"", b"{}", b"null", b"[" * 100_000, b"\xff" * 99, b"x" * (MESSAGE_CAP + 1), good[:-20],
        msgspec.json.encode({**sealed, "payload": other["payload"]}),
        msgspec.json.encode({**sealed, "certificate": "AAAA"}),
        box.key.seal(b'{"n":5,"tenant":"t1","box":"box-1","policy":' + b"[" * 5000, orders.PURPOSE),
        box.key.seal(b'{"n":0,"tenant":"t1","box":"box-1"}', orders.PURPOSE),
        box.key.seal(b'{"n":9007199254740992,"tenant":"t1","box":"box-1"}', orders.PURPOSE),
    ):  # fmt: skip
        assert not box.kept.take(data, NOW)
    assert box.here() == 0 and box.kept.refused == 12
    assert box.kept.take(good, NOW)


def test_a_document_beyond_its_cap_is_neither_sealed_nor_taken(box: Box) -> None:
    large = Orders(5, "t1", "box-1", msgspec.Raw(b'"' + b"x" * DOCUMENT_CAP + b'"'))
    with pytest.raises(RejectedInput, match="larger"):
        orders.seal(large, box.key)
    assert not box.kept.take(box.key.seal(msgspec.json.encode(large), orders.PURPOSE), NOW)


def test_it_stays_when_the_key_that_signed_it_is_over(box: Box) -> None:
    later = NOW + 3000 * 86400
    assert not box.kept.take(box.sealed(5), later), "what comes now must be signed by a key that is good now"
    box.kept.take(box.sealed(6), NOW)
    box.start()
    assert box.kept.number == 6


def test_the_same_document_signed_again_is_not_written_again_unless_the_copy_is_damaged(box: Box) -> None:
    box.kept.take(box.sealed(5), NOW)
    before = box.path.stat()
    assert not box.kept.take(box.sealed(5), NOW)
    assert box.path.stat().st_ino == before.st_ino
    box.path.write_bytes(b"damaged")
    assert box.kept.take(box.sealed(5), NOW) and box.here() == 5


def test_after_joining_another_centre_the_old_ones_copy_is_no_floor(box: Box, tmp_path: Path) -> None:
    box.kept.take(box.sealed(9), NOW)
    pki.create_ca(tmp_path / "new")
    box.start(tmp_path / "new" / "ca.crt")
    assert box.kept.take(box.sealed(3, key=box.make_key("orders-key", "orders", tmp_path / "new")), NOW)


def test_a_disk_that_refuses_leaves_what_is_here(box: Box) -> None:
    box.kept.take(box.sealed(5), NOW)
    (box.path.parent / f".orders.json.{os.getpid()}.tmp").mkdir()
    with pytest.raises(DeviceFault):
        box.kept.take(box.sealed(6), NOW)
    assert box.here() == 5 and box.kept.number == 5


@pytest.mark.protocol("P37")
def test_a_kill_or_power_cut_between_any_two_writes_leaves_the_old_or_the_new_one(box: Box, tmp_path: Path) -> None:
    shim = tmp_path / "shim.so"
    source = HERE / "crash_shim.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", shim, source, "-ldl"], check=True)
    for n in (1, 2, 3):
        (box.pki / f"message-{n}").write_bytes(box.sealed(n))
    root = tmp_path / "disk"
    root.mkdir()
    env = {**os.environ, "LD_PRELOAD": str(shim), "CRASH_DIR": str(root), "CRASH_LOG": f"{root}.log"}
    subprocess.run([sys.executable, "-I", str(HERE / "crash_orders.py"), root, box.pki], env=env, check=True)
    ops = list(read_log(Path(f"{root}.log").read_bytes()))
    disk, dice, done, looked = Disk(), random.Random(3), 0, 0
    for op in ops:
        for files in (disk.killed(), *(disk.power_cut(dice) for _ in range(8))):
            shutil.rmtree(box.path.parent, ignore_errors=True)
            box.path.parent.mkdir()
            for name, data in files.items():
                (box.path.parent / Path(name).name).write_bytes(data)
            box.start()
            assert box.kept.number == box.here() and box.kept.number in (done, done + 1)
            looked += 1
        disk.apply(op)
        done += op.kind == "W" and op.path.endswith("marks")
    assert done == 3 and looked > 100
