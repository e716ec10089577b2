"""How fast content is scanned on one core: the worker as it stands, against the `yara` command line and yara-x.

Needs no lab. CPU time counts, not wall time, so that other work on the machine does not blur the ratio. The worker's
figure has everything in it: the job's way to it and back, hashing, opening containers and matching what is in them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Final

import yara

from sekisho.appliance.core.errors import DeviceFault
from sekisho.bench import mixture
from sekisho.bench.figures import Figure
from sekisho.inspect.scan import Pool
from sekisho.inspect.worker import Job
from sekisho.signatures.model import EXTERNALS
from sekisho.signatures.sources import SHIPPED

PUBLIC_YARA: Final = Path("../shared/data/yara/signature-base.tar.xz")
MEGABYTES: Final = 96
_ANSWER_S: Final = 120.0


def scan() -> list[Figure]:
    """Figures of all engines that this machine has."""
    with tempfile.TemporaryDirectory(prefix="sekisho-scan-") as name:
        work = Path(name)
        rules, folder = work / "rules", work / "files"
        folder.mkdir()
        if PUBLIC_YARA.exists():
            with tarfile.open(PUBLIC_YARA) as archive:
                archive.extractall(rules, filter="data")
        else:
            shutil.copytree(SHIPPED / "yara", rules)
        octets = mixture.fill(folder, MEGABYTES)
        sources = sorted(rules.rglob("*.yar*"))
        worker = _worker(sources, folder, work, octets)
        library = _engine("yara", rules, folder)
        figures = [
            Figure("scan.worker", f"scan worker, {len(sources)} YARA files, containers opened", worker.pop("mb_s"),
                   "MB/s", 0, "report", worker),
            Figure("scan.library", "the YARA library alone, files as they are", library.pop("mb_s"), "MB/s", 0,
                   "report", library),
        ]  # fmt: skip
        if shutil.which("yara") and shutil.which("yarac"):
            line = _command_line(sources, folder, work, octets)
            figures.append(Figure("scan.yara", "the yara command line", line.pop("mb_s"), "MB/s", 0, "report", line))
        if importlib.util.find_spec("yara_x"):
            new = _engine("yara-x", rules, folder)
            figures.append(Figure("scan.yara_x", "yara-x alone, files as they are", new.pop("mb_s"), "MB/s", 0,
                                  "report", new))  # fmt: skip
        return figures


def _engine(name: str, rules: Path, folder: Path) -> dict[str, float]:
    compiled = str(rules.with_name(f"{name}.compiled"))
    facts: dict[str, float] = {}
    for arguments in (["compile", str(rules), compiled], ["match", compiled, str(folder)]):
        done = subprocess.run(
            [sys.executable, "-m", "sekisho.bench.engines", name, *arguments],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise DeviceFault(f"The engine {name} could not be measured: {done.stderr[-300:]}.")
        facts |= json.loads(done.stdout)
    return facts


def _command_line(sources: list[Path], folder: Path, work: Path, octets: int) -> dict[str, float]:
    compiled, empty = work / "rules.yarac", work / "empty"
    empty.mkdir()
    variables = [word for name in EXTERNALS for word in ("-d", f"{name}=")]
    began = time.perf_counter()
    subprocess.run(["yarac", "-w", *variables, *(f"{path.name}:{path}" for path in sources), str(compiled)], check=True)
    compile_s = time.perf_counter() - began

    def spent(target: Path) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run(["yara", "-w", "-C", "-p", "1", *variables, str(compiled), str(target)],
                       check=False, capture_output=True)  # fmt: skip
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    load = spent(empty)
    return {"mb_s": octets / (spent(folder) - load) / 1e6, "compile_s": compile_s, "load_s": load}


def _worker(sources: list[Path], folder: Path, work: Path, octets: int) -> dict[str, float]:
    compiled = work / "worker.yara"
    yara.compile(filepaths={p.name: str(p) for p in sources}, externals=dict.fromkeys(EXTERNALS, "")).save(
        str(compiled)
    )
    pool = Pool(1, 512, compiled)
    try:
        _answers(pool, 0)
        (pid,) = pool.pids()
        rest, spent, hits = _rss_mb(pid), _cpu_s(pid), 0
        for ident, path in enumerate(sorted(folder.iterdir()), 1):
            size = path.stat().st_size
            job = Job(ident, "file", size, timeout_s=60, limit=64 << 20, name=path.name)
            pool.submit(job, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            hits += _answers(pool, 1)
        facts = {"mb_s": octets / (_cpu_s(pid) - spent) / 1e6, "hits": float(hits), "rss_mb": rest}
        return facts | {"after_mb": _rss_mb(pid), "clean_1mb_ms": _clean_ms(pool, folder)}
    finally:
        pool.close()


def _clean_ms(pool: Pool, folder: Path) -> float:
    """What a new clean file of 1 MB waits for its verdict: the median of 15."""
    program = next(p for p in sorted(folder.iterdir()) if p.stat().st_size > 1 << 20).read_bytes()[: 1 << 20]
    waits = []
    for number in range(15):
        fd = os.memfd_create("bench")
        os.write(fd, bytes([number]) + program[1:])
        began = time.perf_counter()
        pool.submit(Job(1_000_000 + number, "file", len(program), timeout_s=60, name="new.exe"), fd)
        _answers(pool, 1)
        waits.append((time.perf_counter() - began) * 1000)
    return sorted(waits)[len(waits) // 2]


def _answers(pool: Pool, wanted: int) -> int:
    """Wait for `wanted` results (0: for the worker); how many of them carry rules."""
    deadline, hits = time.monotonic() + _ANSWER_S, 0
    while wanted or not pool.ready:
        if time.monotonic() > deadline:
            raise DeviceFault("The scan worker did not answer.")
        pool.tick()
        for fd in select.select(pool.fds(), [], [], 0.05)[0]:
            pool.handle(fd)
        for result in pool.results():
            wanted -= 1
            hits += any(seen.rules for seen in result.objects)
    return hits


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)
