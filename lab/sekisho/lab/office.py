"""Gives tasks to the office's computer (`client`) and reads back what it was left with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Self

import msgspec

from sekisho.lab.client import Done, Task
from sekisho.lab.lab import Lab

ARGV = [sys.executable, "-I", "-m", "sekisho.lab.client"]


def perform(lab: Lab, tasks: Sequence[Task], timeout_s: float = 120) -> list[Done]:
    """Do all tasks one after the other and return when the last has ended.

    Raises:
        subprocess.CalledProcessError: the client itself failed.
        subprocess.TimeoutExpired: it took longer than `timeout_s`.

    """
    ran = lab.run("lan", ARGV, stdin=msgspec.json.encode(tasks), timeout_s=timeout_s, check=True)
    return _results(ran.stdout)


class Busy:
    """Tasks under way while something else happens; as a context manager it never outlives its block."""

    def __init__(self, lab: Lab, tasks: Sequence[Task]) -> None:
        self._process = subprocess.Popen(
            lab.inside("lan", ARGV), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=lab.env()
        )
        if self._process.stdin is not None:
            self._process.stdin.write(msgspec.json.encode(tasks))
            self._process.stdin.close()
            self._process.stdin = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def still(self) -> bool:
        return self._process.poll() is None

    def result(self, timeout_s: float = 120) -> list[Done]:
        """What came of it.

        Raises:
            subprocess.TimeoutExpired: it is still not done.

        """
        out, _ = self._process.communicate(timeout=timeout_s)
        return _results(out)


def _results(out: bytes) -> list[Done]:
    return [msgspec.json.decode(line, type=Done) for line in out.splitlines()]
