"""A file that was found malicious is refused by the engine when it comes again: at once, by its hash, unlooked at."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

import pytest

from sekisho.appliance import control
from sekisho.appliance.core import standing
from sekisho.appliance.core.settings import Settings, load
from sekisho.appliance.known import HASHES, LARGE
from sekisho.appliance.reload import reload
from sekisho.appliance.status import try_read
from sekisho.lab import layout
from sekisho.lab.client import Got, Mail, Post, Task, Web, marked
from sekisho.lab.lab import Lab
from sekisho.lab.office import perform
from sekisho.lab.samples import SIZES
from sekisho.telemetry.events import FileVerdict

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

WORM = b"A-WORM-OF-THIS-TEST"
_SEEN: Final[set[int]] = set()
"""Sequence numbers of what `told` has returned."""
RULE = f'rule sekisho_test_worm {{ strings: $a = "{WORM.decode()}" condition: $a }}\n'


@pytest.fixture(scope="module")
def yara(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the box's own rules, with one more in it."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(Path(str(resources.files("sekisho.signatures") / "shipped")), folder, dirs_exist_ok=True)
    (folder / "yara" / "worm.yar").write_text(RULE)
    return folder / "yara"


@pytest.fixture(scope="module")
def lab(yara: Path) -> Iterator[Lab]:
    with Lab(f"known{os.getpid()}") as lab:
        # What the fleet knows would go on stopping what our own rules let go.
        signatures = {"rules_dir": str(yara.parent / "suricata"), "yara_dir": str(yara)}
        lab.up({"signatures": signatures, "telemetry": {"immunity": False}})
        yield lab


def settings(lab: Lab) -> Settings:
    return load(lab.lay.box_settings)


def do(lab: Lab, task: Task) -> Got:
    return perform(lab, [task])[0].got[-1]


def fetch(lab: Lab, path: str, port: int = layout.SHAPES) -> Got:
    return do(lab, Web(layout.SERVER4, port, [path]))


def served(lab: Lab, name: str, content: bytes) -> str:
    (lab.lay.wan / "www" / name).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def scans(lab: Lab) -> int:
    """How many looks the box's scan workers have been asked for."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        link.connect(str(settings(lab).inspect_socket))
        with link.makefile("rb") as answer:
            told: int = json.loads(answer.readline())["scans"]
            return told


def knows(lab: Lab, sha256: str) -> bool:
    """Whether the running engine has it in its list."""
    asked = {"setname": HASHES, "settype": "sha256", "datavalue": sha256}
    (reply,) = control.ask_all(settings(lab).control_socket, [{"command": "dataset-lookup", "arguments": asked}], 5)
    return reply.result == "OK"


def told(lab: Lab, got: Got) -> list[FileVerdict]:
    """What the centre was told of this connection, once it has been told something; a port may come again later."""

    def of_port() -> dict[int, FileVerdict]:
        new = {
            row.seq: row.event for row in lab.events() if isinstance(row.event, FileVerdict) and row.seq not in _SEEN
        }
        return {seq: event for seq, event in new.items() if got.port in (event.flow.src_port, event.flow.dst_port)}

    lab.wait(lambda: bool(of_port()), "the centre has not heard of it")
    found = of_port()
    _SEEN.update(found)
    return list(found.values())


def whole(lab: Lab) -> bool:
    """Whether the engine has loaded every rule it was given."""
    status = try_read(settings(lab))
    return status is not None and not (status.engine.refused or status.engine.rules_failed)


def stopped(got: Got, task: Task) -> bool:
    """The content is not there; where none of the response was, there is a page."""
    return (got.end != "whole" or got.answer.startswith("HTTP/1.1 403")) and (isinstance(task, Post) or not got.eicar)


def twice(lab: Lab, task: Task, sha256: str) -> FileVerdict:
    """The first attempt is looked at, the second is not; what the centre was told of the second."""
    first = do(lab, task)
    assert stopped(first, task)
    (verdict,) = told(lab, first)
    assert (verdict.outcome, verdict.reason, verdict.sha256) == ("blocked", "", sha256)
    lab.wait(lambda: knows(lab, sha256), "the engine has not been told")
    before = scans(lab)
    second = do(lab, task)
    assert stopped(second, task)
    (again,) = told(lab, second)
    assert scans(lab) == before, "nothing was looked at"
    assert (again.outcome, again.reason) == ("blocked", "known")
    assert again.quarantine in ("", verdict.quarantine), "it is not kept twice"
    return again


def test_a_box_that_knows_nothing_loads_its_rules_and_loads_them_again(lab: Lab) -> None:
    assert whole(lab)
    state = reload(settings(lab))
    assert (state.refused, state.rules_failed, state.starts) == ("", 0, 1)


@pytest.mark.parametrize("shape", ["identity", "chunked", "gzip", "gzip-chunked", "close"])
def test_the_second_download_is_refused_without_a_look(lab: Lab, shape: str) -> None:
    sha = hashlib.sha256(marked(True, SIZES["1k"], shape)).hexdigest()
    again = twice(lab, Web(layout.SERVER4, layout.SHAPES, [f"/{shape}/bad/1k.bin?mark={shape}"]), sha)
    if shape != "close":  # the engine names such a file when it forgets its connection
        assert (again.sha256, again.file_name, again.rules) == (sha, "1k.bin", ["sekisho_eicar"])
    twin = fetch(lab, f"/{shape}/clean/1k.bin?mark={shape}")
    assert (twin.end, twin.sha256) == ("whole", hashlib.sha256(marked(False, SIZES["1k"], shape)).hexdigest())


def test_over_ipv6_and_from_another_server_it_is_the_same_file(lab: Lab) -> None:
    sha = served(lab, "six.bin", content := marked(True, 900, "six"))
    served(lab, "renamed.txt", content)
    twice(lab, Web(layout.SERVER6, layout.HTTP, ["/six.bin"]), sha)
    (again,) = told(lab, renamed := fetch(lab, "/renamed.txt", layout.HTTP))
    assert not renamed.eicar and renamed.answer == "HTTP/1.1 403 Forbidden"
    assert (again.reason, again.file_name) == ("known", "renamed.txt")


def test_a_second_mail_is_answered_with_554(lab: Lab) -> None:
    task = Mail(layout.SERVER4, [[("bad", 20_000)]], "mail")
    first = do(lab, task)
    (verdict,) = told(lab, first)
    lab.wait(lambda: knows(lab, verdict.sha256), "the engine has not been told")
    second = do(lab, task)
    assert (first.answer, second.answer) == ("554", "554")
    (again,) = told(lab, second)
    assert (again.outcome, again.reason, again.sha256) == ("blocked", "known", verdict.sha256)


def test_a_second_upload_does_not_reach_the_server(lab: Lab) -> None:
    before = len(list(lab.lay.uploads.iterdir()))
    twice(
        lab, Post(layout.SERVER4, layout.SHAPES, "/upload", 1000, bad=True, mark="upload"),
        hashlib.sha256(marked(True, 1000, "upload")).hexdigest(),
    )  # fmt: skip
    assert len(list(lab.lay.uploads.iterdir())) == before


def test_a_known_file_does_not_pass_while_the_gate_is_dead(lab: Lab) -> None:
    sha = served(lab, "dead.bin", marked(True, 20_000, "dead"))
    fetch(lab, "/dead.bin", layout.HTTP)
    lab.wait(lambda: knows(lab, sha), "the engine has not been told")
    lab.stop("inspect")
    try:
        got = fetch(lab, "/dead.bin", layout.HTTP)
        assert got.end != "whole" and not got.eicar
    finally:
        lab.start("inspect")
        lab.wait_ready()
    (again,) = told(lab, fetch(lab, "/dead.bin", layout.HTTP))
    assert again.rules == ["sekisho_eicar"], "remembered over the restart of who found it"


def test_what_is_known_outlives_the_engine_and_large_files_are_known_from_then_on(lab: Lab) -> None:
    small = served(lab, "small.bin", marked(True, 20_000, "small"))
    large = served(lab, "large.bin", marked(True, 300_000, "large"))
    for name in ("small", "large"):
        (verdict,) = told(lab, fetch(lab, f"/{name}.bin", layout.HTTP))
        assert (verdict.outcome, verdict.reason) == ("blocked", "")
    lists = settings(lab).state / "known"
    lab.wait(lambda: knows(lab, small) and large in (lists / LARGE).read_text(), "the engine's lists lack them")
    (verdict,) = told(lab, fetch(lab, "/large.bin", layout.HTTP))
    assert verdict.reason == "", "the gate's own memory stops it until the engine reads its list"
    old = lab.kill("suricata")

    def again() -> bool:
        status = try_read(settings(lab))
        return status is not None and status.engine.pid not in (0, old) and lab.inspecting()

    lab.wait(again, "the engine did not come back")
    assert whole(lab)
    for name, sha in (("small", small), ("large", large)):
        (verdict,) = told(lab, got := fetch(lab, f"/{name}.bin", layout.HTTP))
        assert got.end != "whole" and not got.eicar
        assert (verdict.outcome, verdict.reason, verdict.sha256) == ("blocked", "known", sha)


def test_what_the_rules_no_longer_call_malicious_passes(lab: Lab, yara: Path) -> None:
    """A worker that has not been replaced yet may still call it so: nobody learns from that."""
    sha = served(lab, "worm.bin", b"MZ" + WORM + bytes(500))
    twice(lab, Web(layout.SERVER4, layout.HTTP, ["/worm.bin"]), sha)
    (yara / "worm.yar").write_text(RULE.replace(WORM.decode(), "SOMETHING-ELSE"))
    argv = [sys.executable, "-I", "-m", "sekisho.appliance.cli", "signatures", "apply"]
    subprocess.run([*argv, "--settings", str(lab.lay.box_settings)], check=True, capture_output=True, env=lab.env())
    lab.wait(lambda: not knows(lab, sha), "the engine has not been told")
    current = (settings(lab).sets / "current").readlink().name

    def changed() -> bool:
        fetch(lab, "/worm.bin", layout.HTTP)
        scanner = standing.try_read(settings(lab), "scanner")
        return scanner is not None and scanner.set_id == current

    lab.wait(changed, "the scan workers do not have the rules", 30)
    for _ in range(5):
        assert fetch(lab, "/worm.bin", layout.HTTP).sha256 == sha
    assert not knows(lab, sha)
    assert whole(lab)
