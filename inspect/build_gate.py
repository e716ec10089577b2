"""Compiles the gate (gate.c) beside its Python half when the package is built or installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent / "sekisho" / "inspect"
FLAGS = ["-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fPIC", "-shared", "-fstack-protector-strong"]
LINK = ["-Wl,-z,relro,-z,now", "-lmnl", "-lnetfilter_queue"]


class GateBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # generic only in newer hatchling
    """Runs the C compiler; fails the build with its message."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build `_gate.so` and mark the wheel as belonging to this platform."""
        source, target = HERE / "gate.c", HERE / "_gate.so"
        if not target.exists() or target.stat().st_mtime < max(p.stat().st_mtime for p in HERE.glob("gate.[ch]")):
            compiler = os.environ.get("CC", "cc")
            subprocess.run([compiler, *FLAGS, "-o", str(target), str(source), *LINK], check=True)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
