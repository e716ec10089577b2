"""The real RAUC with the image's own settings and our memory of the boot loader, on this machine: no box, no writing.

What needs the kernel's device mapper (opening a bundle) is tried in QEMU.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from sekisho.appliance.core.errors import RejectedInput
from sekisho.firmware import rauc, slots
from sekisho.firmware.image import bundle, layout, slot, texts
from sekisho.firmware.image.boards import BOARDS

BOARD = BOARDS["amd64"]
BACKEND = """\
import sys, pathlib
from sekisho.firmware import slots
print(slots.answer(sys.argv[2:], pathlib.Path(sys.argv[1])))
"""


class Here(msgspec.Struct):
    folder: Path
    keys: bundle.Signer
    slots: rauc.Slots


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    """RAUC's service on a bus of its own; slots and memory are files."""
    keys = bundle.signer(tmp_path / "keys")
    (tmp_path / "env").write_bytes(layout.environment())
    for name in ("root-a", "root-b", "boot-a", "boot-b"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    backend = tmp_path / "backend"
    words = [sys.executable, "-c", BACKEND, str(tmp_path / "env")]
    backend.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    backend.chmod(0o755)
    conf = texts.system_conf(BOARD).replace("/dev/disk/by-partlabel", str(tmp_path))
    conf = conf.replace("/var/lib/sekisho-slots", str(tmp_path)).replace("/usr/lib/sekisho/bootloader", str(backend))
    conf = conf.replace("/usr/lib/sekisho/keyring.pem", str(keys.cert))
    (tmp_path / "system.conf").write_text(conf)
    bus = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert bus.stdout is not None
    told = {"DBUS_STARTER_BUS_TYPE": "session", "DBUS_SESSION_BUS_ADDRESS": bus.stdout.readline().strip()}
    os.environ.update(told)
    service = subprocess.Popen(
        ["rauc", "-c", "system.conf", "--override-boot-slot=A", "service"], cwd=tmp_path, stderr=subprocess.DEVNULL
    )

    def run(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        whole = [command[0], "-c", str(tmp_path / "system.conf"), *command[1:]]
        return subprocess.run(whole, capture_output=True, text=True, timeout=timeout_s)

    try:
        up = ["gdbus", "wait", "--session", "--timeout", "30", "de.pengutronix.rauc"]
        subprocess.run(up, check=True)
        yield Here(tmp_path, keys, rauc.Slots(run))
    finally:
        for process in (service, bus):
            process.terminate()
            process.wait()
        for name in told:
            del os.environ[name]


def test_rauc_chooses_keeps_and_gives_up_slots_in_our_memory(here: Here) -> None:
    report = here.slots.report()
    assert (report.booted, report.primary, report.slots["B"].good) == ("A", "A", False)
    here.slots.activate_other()
    assert here.slots.primary() == "B"
    assert slots.read(here.folder / "env").first == "B"
    here.slots.mark_bad("other")
    assert here.slots.primary() == "A"
    here.slots.activate_booted()
    here.slots.mark_good()
    assert slots.read(here.folder / "env").order == ("A", "B")


def test_rauc_refuses_a_stranger_a_plain_bundle_and_rubbish_and_nothing_changes(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = here.folder / "small.img"
    small.write_bytes(os.urandom(1 << 16))
    images = slot.Images(small, small, "0" * 64)
    stranger, plain, short = (here.folder / f"{name}.raucb" for name in ("stranger", "plain", "short"))
    bundle.make(BOARD, images, 8, "0.8.0", bundle.signer(here.folder / "stranger", "a stranger"), stranger)
    short.write_bytes(stranger.read_bytes()[:-1000])
    made = texts.manifest(BOARD, 8, "0.8.0").replace("format=verity", "format=plain")
    monkeypatch.setattr(texts, "manifest", lambda *_: made)
    bundle.make(BOARD, images, 8, "0.8.0", here.keys, plain)
    before = (here.folder / "env").read_bytes()
    for path, why in ((stranger, "signature"), (plain, "plain"), (short, "Invalid bundle")):
        with pytest.raises(RejectedInput, match=why):
            here.slots.install(path)
    assert (here.folder / "env").read_bytes() == before
