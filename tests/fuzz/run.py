"""Fuzzes the targets, guided by coverage: `run.py [TARGET ...] --minutes 10` (or --seconds).

Each target gets a process of its own with bounds on memory and on the time of one input. What crashes, hangs or grows
is kept in artifacts/fuzz/TARGET and ends the run with 1; shrunk, it belongs into tests/fuzz/corpus/TARGET.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INPUT_SECONDS = 10
MEMORY_MB = 1024
MAX_INPUT = 16 << 10
"""Bytes of one input: growth shows at this size, and small inputs are tried more often."""


def fuzz(name: str, seconds: int) -> int:
    """0 when `seconds` passed without a finding. Not to be called twice in one process at the same time."""
    kept = ROOT / "artifacts" / "fuzz" / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sekisho-fuzz-") as found:
        done = subprocess.run(
            [sys.executable, str(Path(__file__)), "--one", name, found, f"-max_total_time={seconds}",
             f"-timeout={INPUT_SECONDS}", f"-rss_limit_mb={MEMORY_MB}", f"-max_len={MAX_INPUT}", "-verbosity=0",
             f"-artifact_prefix={kept}/", *[str(p) for p in [HERE / "corpus" / name] if p.is_dir()]],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        told = [line for line in (done.stdout + done.stderr).splitlines() if "Instrumenting" not in line]
        print("\n".join(told[-40:]))
    print(f"{name}: {'finding' if done.returncode else 'clean'} after at most {seconds} s", flush=True)
    return done.returncode


def _one(name: str, arguments: list[str]) -> None:
    """In the child: never returns."""
    import atheris  # not on every machine, and slow to load

    with atheris.instrument_imports(include=["sekisho", "zipfile", "email", "olefile"], enable_loader_override=False):
        import targets
    target = targets.TARGETS[name]
    for number, seed in enumerate(target.seeds):
        (Path(arguments[0]) / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *arguments], target.run)
    atheris.Fuzz()


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        _one(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser()
    parser.add_argument("target", nargs="*")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seconds", type=int)
    options = parser.parse_args()
    import targets

    names = options.target or list(targets.TARGETS)
    seconds = options.seconds or int(options.minutes * 60)
    return 1 if sum(1 for name in names if fuzz(name, seconds)) else 0


if __name__ == "__main__":
    sys.exit(main())
