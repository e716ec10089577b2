"""Fuzzes the targets, guided by coverage: `run.py [TARGET ...] --minutes 10` (or --seconds).

Each target gets a process of its own with bounds on memory and on the time of one input. What crashes, hangs or grows
is kept in artifacts/fuzz/TARGET and ends the run with 1; shrunk, it belongs into tests/fuzz/corpus/TARGET.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from targets import Target

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INPUT_SECONDS = 10
MEMORY_MB = 1024
MAX_INPUT = 16 << 10
"""Bytes of one input: growth shows at this size, and small inputs are tried more often."""


def fuzz(name: str, target: Target, seconds: int) -> int:
    """0 when `seconds` passed without a finding.

    In a process of its own, which need not load and mark what is fuzzed: it has it from this one.
    """
    kept = ROOT / "artifacts" / "fuzz" / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sekisho-fuzz-") as found, tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            for stream in (1, 2):
                os.dup2(said.fileno(), stream)
            _one(target, [
                found, f"-max_total_time={seconds}", f"-timeout={INPUT_SECONDS}", f"-rss_limit_mb={MEMORY_MB}",
                f"-max_len={MAX_INPUT}", "-verbosity=0", f"-artifact_prefix={kept}/",
                *[str(path) for path in [HERE / "corpus" / name] if path.is_dir()],
            ])  # fmt: skip
        failed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
        if failed:
            said.seek(0)
            print("\n".join(said.read().decode(errors="replace").splitlines()[-40:]))
    print(f"{name}: {'finding' if failed else 'clean'} after at most {seconds} s", flush=True)
    return int(failed)


def _one(target: Target, arguments: list[str]) -> NoReturn:
    """In the child."""
    import atheris

    try:
        for number, seed in enumerate(target.seeds):
            (Path(arguments[0]) / f"seed-{number}").write_bytes(seed)
        os.chdir(ROOT)
        atheris.Setup([sys.argv[0], *arguments], target.run)
        atheris.Fuzz()
    finally:
        os._exit(1)  # it ends the process by itself; whatever brought us here is a finding


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", nargs="*")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seconds", type=int)
    options = parser.parse_args()
    seconds = options.seconds or int(options.minutes * 60)
    import atheris  # not on every machine, and slow to load

    with atheris.instrument_imports(include=["sekisho", "zipfile", "email", "olefile"], enable_loader_override=False):
        from targets import TARGETS
    return 1 if sum(fuzz(name, TARGETS[name], seconds) for name in options.target or TARGETS) else 0


if __name__ == "__main__":
    sys.exit(main())
