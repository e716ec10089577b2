"""The gate's C code under AddressSanitizer and UBSan: hostile packets, random answers, nothing left waiting."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "inspect" / "sekisho" / "inspect"
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MILLISECONDS = 5000


def compiled(target: Path, source: Path) -> subprocess.CompletedProcess[str]:
    command = ["cc", "-g", "-O1", *SANITIZE, f"-I{SOURCES}", "-o", str(target), str(source)]
    return subprocess.run([*command, "-lmnl", "-lnetfilter_queue"], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    built = compiled(folder / "probe", probe)
    if built.returncode or subprocess.run([folder / "probe"], check=False).returncode:
        pytest.skip(f"NOT CHECKED: this compiler has no AddressSanitizer: {built.stderr[:200]}")
    built = compiled(folder / "fuzz", HERE / "fuzz_gate.c")
    assert built.returncode == 0, built.stderr
    return folder / "fuzz"


def test_no_packet_and_no_answer_breaks_memory_or_leaves_a_packet_waiting(fuzzer: Path) -> None:
    seed = os.environ.get("SEKISHO_SEED") or str(int.from_bytes(os.urandom(4), "little"))
    print(f"SEKISHO_SEED={seed}")
    done = subprocess.run([fuzzer, seed, str(MILLISECONDS)], capture_output=True, text=True, check=False, timeout=55)
    assert done.returncode == 0, f"seed {seed}\n{done.stderr[-4000:]}"
    assert int(done.stdout.split()[0]) > 0
