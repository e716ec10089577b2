"""What the image is made of: files, packages, the disk; and the disk that forgets."""

from __future__ import annotations

import configparser
import io
import itertools
import os
import platform
import shutil
import socket
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.settings import Bridge
from sekisho.firmware import slots, units
from sekisho.firmware.image import debian, layout, texts
from sekisho.firmware.image.boards import BOARDS, Board
from sekisho.firmware.image.flash import SECTOR, Flash

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_rauc_takes_checked_bundles_of_this_board_alone_and_activates_nothing(board: Board) -> None:
    conf = configparser.ConfigParser()
    conf.read_string(texts.system_conf(board))
    assert conf["system"]["bundle-formats"] == "-plain"
    assert conf["system"]["activate-installed"] == "false"
    assert conf["system"]["compatible"] == f"sekisho-{board.name}"
    labels = {part.label for part in layout.partitions()}
    used = {conf[name]["device"].rsplit("/", 1)[1] for name in conf.sections() if name.startswith("slot.")}
    assert used == {"boot-a", "root-a", "boot-b", "root-b"} <= labels
    for name in ("pre-install", "bootloader-custom-backend"):
        assert os.access(ROOT / f"firmware/image/rootfs{conf['handlers'][name]}", os.X_OK)


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_the_root_hash_is_in_what_is_signed_and_a_panic_starts_again(board: Board) -> None:
    told = texts.slot_cfg(board, "ab" * 32, 4096)
    assert f"verity={'ab' * 32}:4096" in told
    assert "panic=10" in told
    with pytest.raises(ValueError, match="root hash"):
        texts.slot_cfg(board, "x; reboot", 0)


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_the_two_sockets_have_the_names_of_the_settings_and_merge_no_packets(board: Board) -> None:
    made = texts.links(board)
    for name in (Bridge().lan, Bridge().wan):
        text = made[f"10-{name}.link"]
        assert f"Name={name}\nGenericReceiveOffload=no\nLargeReceiveOffload=no\n" in text


def test_partitions_do_not_overlap_and_are_where_grub_and_the_first_stage_look_for_them() -> None:
    parts = layout.partitions()
    for before, after in itertools.pairwise(parts):
        assert before.start + before.size <= after.start
        assert after.start % layout.MIB == 0
    labels = [part.label for part in parts]
    grub = (ROOT / "firmware/image/grub.cfg").read_text()
    first = (ROOT / "firmware/image/initramfs/scripts/local-top/sekisho").read_text()
    assert labels.index("env") + 1 == 2
    assert "gpt2)/grubenv" in grub
    assert (labels.index("boot-a") + 1, labels.index("boot-b") + 1) == (3, 5)
    for slot, label in (("A", "root-a"), ("B", "root-b")):
        assert f"rauc.slot={slot}) part=5E6B1540-0000-4000-8000-{labels.index(label) + 1:012} ;;" in first
    assert f'"$tried" -lt {slots.ATTEMPTS}' in grub


def test_the_memory_is_a_file_for_grub_and_a_known_place_for_us() -> None:
    packed = layout.environment()
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        member = archive.getmember("grubenv")
    assert (member.offset_data, member.size) == (slots.OFFSET, slots.SIZE)
    assert slots.primary(slots.parse(packed[slots.OFFSET : slots.OFFSET + slots.SIZE])) == "A"


@pytest.mark.skipif(shutil.which("grub-script-check") is None, reason="GRUB's tools are installed for make image alone")
def test_grub_understands_its_configuration() -> None:
    subprocess.run(["grub-script-check", ROOT / "firmware/image/grub.cfg"], check=True)


def test_sources_come_from_the_machine_s_own_and_only_debian_s_main() -> None:
    index = (
        "http://a.example/debian/|bookworm|main\nhttp://a.example/debian/|bookworm|contrib\n"
        "http://b.example/x|nodistro|main\nhttp://a.example/debian/|bookworm-backports|main\n"
        "http://a.example/debian/|bookworm|main\n\nrubbish\n"
    )
    assert debian.pick(index, "bookworm") == [
        "deb http://a.example/debian/ bookworm main",
        "deb http://a.example/debian/ bookworm-backports main",
    ]


def test_an_image_for_a_processor_that_nothing_here_runs_is_not_made_wrongly_but_not_at_all(tmp_path: Path) -> None:
    other = next(board for board in BOARDS.values() if board.arch != debian.MACHINES.get(platform.machine()))
    with pytest.raises(DeviceFault, match="qemu-user-static"):
        debian.translate(other, tmp_path / "nothing is registered")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_what_a_killed_build_left_mounted_is_not_removed_with_its_tree(tmp_path: Path) -> None:
    kept, inside = tmp_path / "the machine's own", tmp_path / "tree/dev"
    kept.mkdir()
    inside.mkdir(parents=True)
    (kept / "null").touch()
    subprocess.run(["mount", "--bind", str(kept), str(inside)], check=True)
    with inside.joinpath("null").open(), pytest.raises(DeviceFault, match="still mounted"):
        debian.make([], tmp_path / "tree")
    assert (kept / "null").exists()
    debian._let_go(tmp_path / "tree")
    assert not inside.is_mount() and (kept / "null").exists()


def test_the_centre_s_users_and_folders_stay_out_of_the_box() -> None:
    for path in ("sysusers.d/sekisho.conf", "tmpfiles.d/sekisho.conf"):
        text = units.of_box((ROOT / "systemd" / path).read_text())
        assert "sekisho-box" in text
        assert "center" not in text


def test_every_daemon_of_the_box_is_started_by_the_image_and_what_another_unit_starts_is_not(tmp_path: Path) -> None:
    for folder in (ROOT / "systemd/system", ROOT / "firmware/image/rootfs/usr/lib/systemd/system"):
        for path in folder.glob("sekisho-*"):
            if not path.name.startswith("sekisho-center"):
                shutil.copy(path, tmp_path)
    names = set(units.started(tmp_path))
    daemons = {p.name for p in tmp_path.glob("*.service") if ".daemon " in p.read_text()}
    assert daemons <= names
    assert {"sekisho-appliance.service", "sekisho-bootcheck.service", "sekisho-programs.service"} <= names
    for path in tmp_path.glob("*.path"):
        assert path.name in names
        assert path.with_suffix(".service").name not in names


class Client:
    """Speaks the disk's protocol."""

    def __init__(self, at: Path) -> None:
        self.link = socket.socket(socket.AF_UNIX)
        self.link.connect(str(at))
        self.take(18)
        self.link.sendall(struct.pack(">I", 3) + struct.pack(">QII", 0x49484156454F5054, 1, 0))
        self.take(10)

    def take(self, length: int) -> bytes:
        heard = b""
        while len(heard) < length:
            heard += self.link.recv(length - len(heard))
        return heard

    def ask(self, kind: int, at: int = 0, data: bytes = b"", length: int = 0) -> bytes:
        self.link.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, 1, at, length or len(data)) + data)
        self.take(16)
        return self.take(length) if kind == 0 else b""


def test_a_cut_takes_back_only_what_was_not_flushed(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(64 * SECTOR))
    disk = Flash(image, tmp_path / "s")
    client = Client(tmp_path / "s")
    client.ask(1, 0, b"a" * SECTOR * 8)
    client.ask(3)
    client.ask(1, 0, b"b" * SECTOR * 8)
    client.ask(1, SECTOR * 32, b"c" * SECTOR * 8)
    assert client.ask(0, 0, length=SECTOR) == b"b" * SECTOR
    lost = disk.cut(seed=3)
    kept = image.read_bytes()
    sectors = [kept[at : at + SECTOR] for at in range(0, len(kept), SECTOR)]
    assert set(sectors[:8]) <= {b"a" * SECTOR, b"b" * SECTOR}
    assert set(sectors[32:40]) <= {bytes(SECTOR), b"c" * SECTOR}
    gone = sectors[:8].count(b"a" * SECTOR) + sectors[32:40].count(bytes(SECTOR))
    assert lost == gone > 0
    disk.close()
