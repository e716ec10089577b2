"""Real clients in the office, and what each of them was left with: every byte it wrote or showed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sekisho.lab.lab import Lab

CURL_WITHIN_S = 8
AT_ONCE = 6

CURLS: dict[str, list[str]] = {
    "curl": ["--http0.9"],
    "curl-compressed": ["--http0.9", "--compressed"],
    "curl-raw": ["--http0.9", "--raw", "--ignore-content-length"],
}


def curl(lab: Lab, kind: str, url: str, out: Path) -> bytes:
    """What curl has written to disk when it gives up or is done."""
    argv = ["curl", "-s", "-o", str(out), "--max-time", str(CURL_WITHIN_S), *CURLS[kind], url]
    lab.run("lan", argv, timeout_s=CURL_WITHIN_S + 10)
    return out.read_bytes() if out.exists() else b""


def curl_all(lab: Lab, kinds: Sequence[str], urls: Sequence[str], folder: Path) -> dict[tuple[str, str], bytes]:
    """(kind, url) -> what was written; several at a time."""
    jobs = [(kind, url) for url in urls for kind in kinds]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        got = pool.map(
            lambda job: curl(lab, job[0][0], job[0][1], folder / f"{job[1]}"), zip(jobs, range(len(jobs)), strict=True)
        )
        return dict(zip(jobs, got, strict=True))


def ended(process: subprocess.Popen[bytes]) -> None:
    """End a program that a test started."""
    process.terminate()
    try:
        process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
