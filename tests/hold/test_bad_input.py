"""Broken settings, rules, certificates and log lines, and a full disk, in the running product.

Each says clearly what is wrong, leaves the last good state in force, does not touch the traffic, and loses nothing.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path

import pytest

from sekisho.appliance.core.settings import load
from sekisho.center.store import Store
from sekisho.lab import net, office
from sekisho.lab.client import Web
from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4, SHAPES
from sekisho.telemetry.events import Alert, Dns, FileVerdict
from sekisho.telemetry.spool_view import SpoolView

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

STATE_MB = 48
LONG_LINE_BYTES = 1 << 20
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The owner's own folders of rules, filled with those that ship."""
    folder = tmp_path_factory.mktemp("sources")
    shipped = Path(str(resources.files("sekisho.signatures") / "shipped"))
    for name in ("suricata", "yara"):
        shutil.copytree(shipped / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def lab(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A whole lab whose box has a small disk and the owner's rule folders."""
    disk = tmp_path_factory.mktemp("disk")
    net.command(["mount", "-t", "tmpfs", "-o", f"size={STATE_MB}m", "sekisho-disk", str(disk)])
    try:
        with Lab(f"ht{os.getpid()}-bad") as lab:
            lab.up(
                {
                    "signatures": {"rules_dir": str(sources / "suricata"), "yara_dir": str(sources / "yara")},
                    "paths": {"state": str(disk)},
                }
            )
            yield lab
    finally:
        net.command(["umount", "-l", str(disk)])


@pytest.fixture(autouse=True)
def as_before(lab: Lab) -> Iterator[None]:
    """Whatever a test broke and mended: the box inspects, and nothing is missing at the centre."""
    yield
    lab.wait_ready(30)
    lab.wait(lab.inspecting, "the box does not inspect", 30)
    guards(lab)
    nothing_lost(lab)


def sekisho(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-m", "sekisho.appliance.cli", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def fetch(lab: Lab, kind: str) -> tuple[str, str]:
    """("whole" or how it ended, the file's mark) of one new file."""
    mark = f"bad-input.{next(_numbers)}"
    (done,) = office.perform(lab, [Web(SERVER4, SHAPES, [f"/identity/{kind}/300k.bin?mark={mark}"])])
    assert not (kind == "bad" and done.got[0].eicar), "it arrived whole"
    return done.got[0].end, done.got[0].sha256


def guards(lab: Lab) -> None:
    """Clean files pass, malicious ones do not, and the shipped rules are in force."""
    assert fetch(lab, "clean")[0] == "whole"
    assert fetch(lab, "bad")[0] in ("reset", "short")
    number = next(_numbers)
    to_server = ["--connect-to", f"::{SERVER4}:80"]  # another host each time: repeats are told together, later
    url = f"http://c{number}.sekisho.test/sk-c2/checkin/{number}"
    assert lab.run("lan", ["curl", "-s", "--max-time", "1", *to_server, url]).returncode == 28
    lab.wait_event(lambda event: isinstance(event, Alert) and event.url == f"/sk-c2/checkin/{number}")


def nothing_lost(lab: Lab) -> None:
    def settled() -> bool:
        with closing(SpoolView(load(lab.lay.box_settings).spool)) as spool:
            waiting = sum(lane.rows for lane in spool.waiting())
        with closing(Store(lab.lay.center_store, read_only=True)) as store:
            return not waiting and not store.missing()

    lab.wait(settled, "events are missing at the centre", 45)
    with closing(Store(lab.lay.center_store, read_only=True)) as store:
        assert store.declared() == []


@contextmanager
def broken(path: Path, data: bytes) -> Iterator[None]:
    """`path` with other content, for a while."""
    good = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("data", [b"box = [", b"box = 'x'\ncolour = 'blue'\n", b"\xff\xfe\0", b"# " + b"x" * 300_000])
def test_broken_settings_are_named_and_change_nothing(lab: Lab, data: bytes) -> None:
    pids = {name: lab.pid(name) for name in ("appliance", "inspect", "telemetry", "suricata")}
    with broken(lab.lay.box_settings, data):
        for argv in (["box", "check", "--settings-only"], ["box", "reload"], ["signatures", "apply"]):
            told = sekisho(*argv, "--settings", str(lab.lay.box_settings))
            assert told.returncode == 2, (argv, told)
            assert str(lab.lay.box_settings) in told.stderr and "Traceback" not in told.stderr, told.stderr
        guards(lab)
    assert {name: lab.pid(name) for name in pids} == pids, "nobody died of it"


def test_a_box_that_restarts_with_broken_settings_goes_on_inspecting(lab: Lab) -> None:
    """The daemon says why it does not start; the engine and the gate it left behind go on."""
    engine = lab.pid("suricata")
    with broken(lab.lay.box_settings, b"box = ["):
        lab.kill("appliance")
        lab.wait(lambda: "box.toml" in lab.log_tail("appliance", 3), "the log does not name the file")
        assert fetch(lab, "clean")[0] == "whole"
        assert fetch(lab, "bad")[0] in ("reset", "short")
        assert lab.pid("suricata") == engine
    lab.wait_ready(30)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (
            "suricata/broken.rules",
            b'drop http any any -> any any (msg:"broken"; nosuchkeyword:1; sid:4000001; rev:1;)\n',
        ),
        ("suricata/broken.rules", b"\xff\xfe\0 not a rule\n" * 100),
        ("yara/broken.yar", b'rule broken { strings: $a = "x" condition: $b }\n'),
        ("yara/broken.yar", b"\xff\xfe\0"),
    ],
    ids=["rule", "rules-not-text", "yara", "yara-not-text"],
)
def test_a_broken_rule_is_named_and_the_good_ones_guard(lab: Lab, sources: Path, name: str, data: bytes) -> None:
    before = load(lab.lay.box_settings).sets.joinpath("current").resolve()
    (sources / name).write_bytes(data)
    try:
        told = sekisho("signatures", "apply", "--settings", str(lab.lay.box_settings))
        assert Path(name).name in told.stdout + told.stderr
        assert "Traceback" not in told.stderr
        reloaded = sekisho("box", "reload", "--settings", str(lab.lay.box_settings))
        assert reloaded.returncode in (0, 1), reloaded
        assert load(lab.lay.box_settings).sets.joinpath("current").resolve().exists()
        guards(lab)
    finally:
        (sources / name).unlink()
    mended = sekisho("signatures", "apply", "--settings", str(lab.lay.box_settings))
    assert mended.returncode == 0, mended.stderr
    assert before.exists()


@pytest.mark.parametrize("part", ["ca", "cert", "key"])
def test_a_broken_certificate_is_named_and_events_wait_for_a_good_one(lab: Lab, part: str) -> None:
    path = Path(getattr(load(lab.lay.box_settings).telemetry, part))
    with broken(path, b"-----BEGIN CERTIFICATE-----\nnonsense\n"):
        lab.kill("telemetry")
        lab.wait(lambda: path.name in lab.log_tail("telemetry", 4), f"the log does not name {path.name}")
        end, sha = fetch(lab, "clean")
        assert end == "whole"
        assert fetch(lab, "bad")[0] in ("reset", "short")
    if part != "cert":  # one waits until the daemon tries again by itself, half a minute later
        lab.kill("telemetry")
    lab.wait_event(lambda event: isinstance(event, FileVerdict) and event.sha256 == sha, 40)


def test_bad_log_lines_cost_themselves_alone(lab: Lab) -> None:
    eve = load(lab.lay.box_settings).eve
    lines = [
        b'{"timestamp":"2026-01-01T00:00:00.000000+0000","event_type":"dns","src_ip":"10.77.0.10","de\n',
        b'{"event_type":"dns","padding":"' + b"x" * LONG_LINE_BYTES + b'"}\n',
        b'{"event_type":"dns","src_ip":"\xff\xfe\xfd"}\n',
        b"\0" * 4096 + b"\n",
        b"[" * 100_000 + b"\n",
        b"\n",
    ]
    pid = lab.pid("telemetry")
    for number, line in enumerate(lines):
        with eve.open("ab") as out:
            out.write(line)
        name = f"after{number}.sekisho.test"
        lab.run("lan", ["dig", f"@{SERVER4}", name, "+short", "+tries=1", "+time=2"])
        lab.wait_event(lambda event, name=name: isinstance(event, Dns) and event.name == name)  # type: ignore[misc]
    assert lab.pid("telemetry") == pid


def test_a_full_disk_stops_neither_traffic_nor_guard_and_loses_nothing(lab: Lab) -> None:
    state = load(lab.lay.box_settings).state
    filler = state / "filler"
    pids = {name: lab.pid(name) for name in ("appliance", "inspect", "telemetry", "suricata")}
    fetched = []
    try:
        fill(filler)
        for _ in range(20):
            end, sha = fetch(lab, "clean")
            assert end == "whole"
            fetched.append(sha)
            assert fetch(lab, "bad")[0] in ("reset", "short")
        logged = "".join(lab.log_tail(name, 200) for name in ("inspect", "telemetry", "appliance")).lower()
        assert "no space" in logged or "disk" in logged or "full" in logged
    finally:
        filler.unlink()
    for sha in fetched:
        lab.wait_event(lambda event, sha=sha: isinstance(event, FileVerdict) and event.sha256 == sha, 30)  # type: ignore[misc]
    assert {name: lab.pid(name) for name in pids} == pids, "nobody died of it"


def fill(path: Path) -> None:
    """Write until the disk takes no more."""
    with path.open("wb", buffering=0) as out:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    out.write(b"\0" * size)
            except OSError:
                continue
