"""A program that was delivered and turns out malicious names the devices that have it; the next one does not pass."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from sekisho.lab import layout
from sekisho.lab.client import Got, Web
from sekisho.lab.lab import Lab
from sekisho.lab.office import perform
from sekisho.telemetry.events import FileVerdict, Retro

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

PROGRAM = b"MZ" + os.urandom(30_000) + b"THE-WORM-NOBODY-KNOWS-YET" + os.urandom(30_000)
LISTED = b"MZ" + os.urandom(50_000)
RULE = 'rule sekisho_test_worm { strings: $a = "THE-WORM-NOBODY-KNOWS-YET" condition: $a }\n'


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    shipped = Path(str(resources.files("sekisho.signatures") / "shipped"))
    shutil.copytree(shipped, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def lab(sources: Path) -> Iterator[Lab]:
    with Lab(f"retro{os.getpid()}") as lab:
        lab.up({"signatures": {"rules_dir": str(sources / "suricata"), "yara_dir": str(sources / "yara")}})
        www = lab.lay.wan / "www"
        (www / "worm.exe").write_bytes(PROGRAM)
        (www / "listed.exe").write_bytes(LISTED)
        yield lab


def fetch(lab: Lab, name: str) -> Got:
    return perform(lab, [Web(layout.SERVER4, layout.HTTP, [f"/{name}"])])[0].got[0]


def apply(lab: Lab) -> None:
    argv = [sys.executable, "-I", "-m", "sekisho.appliance.cli", "signatures", "apply"]
    subprocess.run([*argv, "--settings", str(lab.lay.box_settings)], check=True, capture_output=True, env=lab.env())


def test_a_program_found_bad_after_delivery_names_its_device_and_is_stopped_from_then_on(
    lab: Lab, sources: Path
) -> None:
    assert fetch(lab, "worm.exe").end == "whole"
    assert fetch(lab, "listed.exe").end == "whole"
    names = {"worm.exe", "listed.exe"}
    lab.wait(
        lambda: names <= {r.event.file_name for r in lab.events() if isinstance(r.event, FileVerdict)},
        "the outcomes of clean files do not arrive",
    )
    (sources / "yara" / "worm.yar").write_text(RULE)
    (sources / "yara" / "list.sha256").write_text(f"{hashlib.sha256(LISTED).hexdigest()}  listed.exe  # known\n")
    apply(lab)
    worm = lab.wait_event(lambda e: isinstance(e, Retro) and e.why == "rules", 60).event
    listed = lab.wait_event(lambda e: isinstance(e, Retro) and e.why == "hash_list", 60).event
    assert isinstance(worm, Retro)
    assert isinstance(listed, Retro)
    assert worm.rules == ["sekisho_test_worm"]
    assert listed.rules == ["known_file"]
    for retro, name in ((worm, "worm.exe"), (listed, "listed.exe")):
        assert [(d.mac, d.ip, d.file_name) for d in retro.deliveries] == [(layout.CLIENT_MAC, layout.CLIENT4, name)]
    for name, size in (("worm.exe", len(PROGRAM)), ("listed.exe", len(LISTED))):
        again = fetch(lab, name)
        assert again.end != "whole"
        assert again.size < size
    stopped = lab.wait_event(lambda e: isinstance(e, FileVerdict) and e.rules == ["known_file"]).event
    assert isinstance(stopped, FileVerdict)
    assert stopped.outcome == "blocked"
