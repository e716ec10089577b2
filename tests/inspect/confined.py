"""A real, confined scan worker that is asked one thing after the other."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import yara

from sekisho.inspect.scan import Pool
from sekisho.inspect.worker import Job, Object, Result

EICAR = b"X5O!P%@AP" + rb"[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
EICAR_RULE = 'rule Eicar { strings: $a = "EICAR-STANDARD-ANTIVIRUS-TEST-FILE" condition: $a }'
EXTERNALS = {"filename": "", "filepath": "", "extension": "", "filetype": "", "owner": ""}
WAIT_S = 60.0


class Confined:
    """One worker; `rules` is YARA source."""

    def __init__(self, folder: Path, rules: str = EICAR_RULE, memory_mb: int = 512) -> None:
        compiled = folder / "rules"
        yara.compile(source=rules, externals=EXTERNALS).save(str(compiled))
        self.pool = Pool(1, memory_mb, compiled)
        self._results: dict[int, Result] = {}
        self._id = 0
        self._until_ready()

    def look(self, data: bytes, name: str = "", timeout_s: int = 20, limit: int = 64 << 20) -> Object:
        """The verdict on one file."""
        self._until_ready()
        self._id += 1
        fd = os.memfd_create("job")
        os.write(fd, data) if len(data) < 1 << 20 else os.writev(fd, [data])
        job = Job(self._id, "file", len(data), timeout_s=timeout_s, limit=limit, name=name)
        self.pool.submit(job, fd)
        deadline = time.monotonic() + WAIT_S
        while self._id not in self._results:
            assert time.monotonic() < deadline, "no answer"
            self._turn()
        result = self._results.pop(self._id)
        assert not result.error, result.error
        (seen,) = result.objects
        return seen

    def cpu_s(self) -> float:
        """Processor time the worker has used."""
        (pid,) = self.pool.pids()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Memory the worker holds now."""
        (pid,) = self.pool.pids()
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)

    def close(self) -> None:
        self.pool.close()

    def _until_ready(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while not self.pool.ready:
            assert time.monotonic() < deadline, "no worker"
            self._turn()

    def _turn(self) -> None:
        self.pool.tick()
        for fd in select.select(self.pool.fds(), [], [], 0.05)[0]:
            self.pool.handle(fd)
        for result in self.pool.results():
            self._results[result.id] = result
