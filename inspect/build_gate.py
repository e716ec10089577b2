"""Compiles the gate (gate.c) beside its Python half when the package is built or installed.

`CC` and `LDFLAGS` say with what, `_PYTHON_HOST_PLATFORM` (as Python's own builds have it) for which machine.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent / "sekisho" / "inspect"
FLAGS = ["-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fPIC", "-shared", "-fstack-protector-strong"]
LINK = ["-Wl,-z,relro,-z,now,--no-as-needed", "-lmnl", "-lnetfilter_queue"]


class GateBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # generic only in newer hatchling
    """Runs the C compiler; fails the build with its message."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build `_gate.so` and mark the wheel as belonging to this platform."""
        source, target = HERE / "gate.c", HERE / "_gate.so"
        if not target.exists() or target.stat().st_mtime < max(p.stat().st_mtime for p in HERE.glob("gate.[ch]")):
            compiler = os.environ.get("CC", "cc")
            # Where it was built is not written into it: two builds of one source are the same bytes.
            flags = [*FLAGS, f"-ffile-prefix-map={HERE}=.", *os.environ.get("LDFLAGS", "").split()]
            subprocess.run([compiler, *flags, "-o", target.name, source.name, *LINK], check=True, cwd=HERE)
        build_data["pure_python"] = False
        # Loaded by name, not by Python's own interface: any Python will do.
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
