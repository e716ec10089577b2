"""Labs come up, stand side by side, mend themselves and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.lab import net, remains, samples
from sekisho.lab.lab import Lab
from sekisho.lab.layout import ROOT, SERVER4, SERVER6

pytestmark = pytest.mark.lab

NAME = f"t{os.getpid()}-x"


def traces(lab: Lab) -> list[str]:
    """Everything on the machine that belongs to a lab."""
    found = [name for name in net.existing() if name.startswith(f"{lab.lay.name}-")]
    found += [f"process {pid}" for pid in remains.processes(lab.lay)]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if lab.lay.name in line]
    found += [str(path) for path in ROOT.glob(f"*{lab.lay.name}*")]
    return found


def rules() -> str:
    """The machine's own packet rules."""
    return "".join(subprocess.run([f"{ip}tables-save"], capture_output=True, text=True).stdout for ip in ("ip", "ip6"))


def sekisho(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-m", "sekisho.appliance.cli", "lab", *argv], capture_output=True, text=True, check=False
    )


def test_down_leaves_no_namespace_process_mount_file_or_rule() -> None:
    before = rules()
    with Lab(NAME) as lab:
        lab.up(stopped=["inspect"])
        assert len(traces(lab)) > 10
    assert traces(lab) == []
    assert rules() == before


def test_down_finds_what_left_its_namespace_and_what_a_killed_supervisor_left() -> None:
    with Lab(NAME) as lab:
        lab.up(with_product=False)
        stray = lab.popen("lan", ["unshare", "--net", "--", "sh", "-c", "echo out; exec sleep 1000"])
        assert stray.stdout is not None
        assert stray.stdout.readline() == b"out\n"
        os.kill(int(lab.lay.pidfile.read_text()), signal.SIGKILL)
    assert stray.wait(5) == -signal.SIGKILL
    assert traces(lab) == []


def test_down_of_a_lab_that_never_was_is_fine() -> None:
    Lab(NAME).down()


def test_up_twice_is_refused_and_leaves_the_first_alone(bare: Lab) -> None:
    with pytest.raises(DeviceFault, match="already up"):
        Lab(bare.lay.name).up()
    assert all(program.state == "ready" for program in bare.status())


def test_a_program_that_cannot_start_is_named_and_the_lab_removed() -> None:
    lab = Lab(NAME)
    with pytest.raises(DeviceFault, match="appliance"):
        lab.up({"bridge": {"lan": "nonesuch"}}, timeout_s=10)
    assert traces(lab) == []


def test_labs_stand_side_by_side(bare: Lab) -> None:
    with Lab(NAME) as other:
        other.up(with_product=False)
        post = ["curl", "-s", "--data-binary", "hello", f"http://{SERVER4}:8080/upload"]
        other.run("lan", post, check=True)
        assert len(list(other.lay.uploads.iterdir())) == 1
        assert list(bare.lay.uploads.iterdir()) == []
        assert {p.pid for p in other.status()}.isdisjoint(p.pid for p in bare.status())
    assert all(program.state == "ready" for program in bare.status())


def test_a_killed_program_comes_back(bare: Lab) -> None:
    starts = next(p.starts for p in bare.status() if p.name == "dns")
    pid = bare.kill("dns")
    bare.wait(lambda: bare.pid("dns") not in (0, pid), "dns is not started again", 5)
    bare.wait_ready(5)
    assert next(p.starts for p in bare.status() if p.name == "dns") == starts + 1


def test_a_stopped_program_stays_stopped_until_it_is_started(bare: Lab) -> None:
    bare.stop("ftp")
    assert bare.run("lan", ["curl", "-s", "--max-time", "2", f"ftp://{SERVER4}/"]).returncode == 7
    bare.start("ftp")
    bare.wait_ready(5)
    assert bare.run("lan", ["curl", "-s", "--max-time", "5", f"ftp://{SERVER4}/"]).returncode == 0


def test_an_unknown_program_is_refused(bare: Lab) -> None:
    with pytest.raises(RejectedInput):
        bare.stop("nonesuch")


@pytest.mark.parametrize("host", [SERVER4, f"[{SERVER6}]"])
@pytest.mark.parametrize("shape", ["identity", "chunked", "gzip", "gzip-chunked", "close"])
def test_every_shape_carries_the_same_bytes(bare: Lab, host: str, shape: str) -> None:
    url = f"http://{host}:8080/{shape}/clean/300k.bin"
    got = bare.run("lan", ["curl", "-gs", "--compressed", url], check=True)
    assert got.stdout == samples.clean(300_000)


def test_the_shapes_server_keeps_to_its_folder(bare: Lab) -> None:
    url = f"http://{SERVER4}:8080/identity/../../../box/box.toml"
    got = bare.run("lan", ["curl", "-s", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", url])
    assert got.stdout == b"404"


def test_status_tells_people_programs_and_scripts(bare: Lab) -> None:
    told = sekisho("status", "--name", bare.lay.name, "--json")
    assert told.returncode == 0
    assert {program["name"] for program in json.loads(told.stdout)} == {
        "nginx",
        "shapes",
        "mail",
        "ftp",
        "dns",
        "mailboxes",
    }
    assert "nginx" in sekisho("status", "--name", bare.lay.name).stdout
    assert sekisho("status", "--name", "nonesuch", "--json").returncode == 1


def test_exec_gives_the_commands_own_exit_code(bare: Lab) -> None:
    done = sekisho("exec", "--name", bare.lay.name, "lan", "--", "sh", "-c", "ip -br addr show eth0; exit 42")
    assert done.returncode == 42
    assert "10.77.0.10/24" in done.stdout
    assert sekisho("exec", "--name", bare.lay.name, "lan").returncode == 2


def test_wait_says_what_it_waited_for(bare: Lab) -> None:
    with pytest.raises(PeerError, match="no such thing within 0 s"):
        bare.wait(lambda: False, "no such thing", 0)
