"""Compiles YARA sources in a child with time and memory limits: a hostile rule file costs this child, not a daemon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.model import COMPILER_BYTES, COMPILER_SECONDS, Source


class _Report(msgspec.Struct):
    rules: int = 0
    error: str = ""


def compile_yara(sources: list[Source], work: Path, output: Path) -> int:
    """Number of rules written to `output`, tried on the samples. One broken file refuses all.

    Raises:
        RejectedInput: a source does not compile (the message names file and line), a sample came out wrong,
            or the child ended without a word (out of time or memory).

    """
    folder = work / "yara"
    folder.mkdir()
    for source in sources:
        (folder / source.name).write_bytes(source.data)
    limits = ["prlimit", f"--cpu={COMPILER_SECONDS}", f"--as={COMPILER_BYTES}", f"--fsize={1 << 29}", "--core=0", "--"]
    argv = [*limits, sys.executable, "-I", "-m", "sekisho.signatures.yara_build", str(folder), str(output)]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMPILER_SECONDS * 2, check=False
        )
        report = msgspec.json.decode(done.stdout[:65536], type=_Report)
    except subprocess.TimeoutExpired as err:
        raise RejectedInput(f"Compiling the YARA rules took longer than {COMPILER_SECONDS * 2} s.") from err
    except (OSError, msgspec.DecodeError) as err:
        raise RejectedInput("Compiling the YARA rules ended without a result (out of time or memory).") from err
    if report.error:
        raise RejectedInput(f"YARA rules refused: {report.error[:500]}.")
    if not report.rules or not output.exists():
        raise RejectedInput("The YARA files hold no rule.", "An empty set would protect nobody.")
    return report.rules
