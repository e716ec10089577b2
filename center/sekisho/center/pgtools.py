"""PostgreSQL's own programs, run on one database: a password goes by the environment, never by the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import IO, Final

import sqlalchemy as sa

from sekisho.appliance.core.errors import DeviceFault

RUN_S: Final = 6 * 3600.0
"""How long a dump or a restore may take."""


class PgTools:
    """pg_dump, pg_restore and psql for the database at a URL."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self._database = parsed._replace(password=None).render_as_string().replace("postgresql+psycopg:", "postgresql:")
        self._env = {**os.environ, **({"PGPASSWORD": str(parsed.password)} if parsed.password else {})}

    def dump(self, to: Path) -> None:
        """Everything, as of one moment, in pg_dump's custom format (compressed).

        Raises:
            DeviceFault: the server or the disk refuses.

        """
        self._run("pg_dump", "--format=custom", "--no-owner", f"--file={to}", f"--dbname={self._database}")

    def tables(self, dump: Path) -> set[str]:
        """The tables a dump holds, after reading all of it.

        Raises:
            DeviceFault: it is no whole dump.

        """
        self._run("pg_restore", "--file=/dev/null", str(dump))
        listed = self._run("pg_restore", "--list", str(dump)).decode(errors="replace")
        words = (line.split() for line in listed.splitlines() if not line.startswith(";"))
        return {entry[5] for entry in words if entry[3:4] == ["TABLE"] and len(entry) > 5}

    def restore(self, dump: Path, *then: str) -> None:
        """Bring a dump into an empty database and run statements on it, all or nothing.

        Raises:
            DeviceFault: the server refuses; the database stays empty.

        """
        script = ("psql", "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", self._database)
        with subprocess.Popen(
            [_found("pg_restore"), "--no-owner", "--file=-", str(dump)], stdout=subprocess.PIPE, env=self._env
        ) as reading:
            assert reading.stdout is not None  # noqa: S101 - asked for above
            with subprocess.Popen(
                [_found(script[0]), *script[1:]], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=self._env
            ) as writing:
                assert writing.stdin is not None  # noqa: S101 - asked for above
                _feed(reading.stdout, writing.stdin, reading, then)
        if reading.returncode or writing.returncode:
            raise DeviceFault(f"{dump} could not be brought into the database.", "Nothing of it is there now.")

    def _run(self, program: str, *args: str) -> bytes:
        try:
            done = subprocess.run(
                [_found(program), *args], capture_output=True, env=self._env, timeout=RUN_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as err:
            raise DeviceFault(f"{program} does not work: {err}.") from err
        if done.returncode:
            raise DeviceFault(f"{program} failed: {done.stderr.decode(errors='replace').strip()[:500]}")
        return done.stdout


def _feed(source: IO[bytes], sink: IO[bytes], reading: subprocess.Popen[bytes], then: tuple[str, ...]) -> None:
    """One transaction. Its COMMIT goes last and only after a whole script: whatever dies before, nothing is done."""
    try:
        sink.write(b"BEGIN;\n")
        shutil.copyfileobj(source, sink)
        if reading.wait() == 0:
            # pg_dump's script leaves the search path empty.
            then = ("SET search_path TO public", *then, "COMMIT")
            sink.write(b"\n" + "".join(f"{text};\n" for text in then).encode())
        sink.close()
    except BrokenPipeError:
        return  # psql gave up: its exit code says so


def _found(program: str) -> str:
    path = shutil.which(program)
    if not path:
        raise DeviceFault(f"{program} is not installed.", "Install the package postgresql-client.")
    return path
