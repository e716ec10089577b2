"""Child process: says how much memory compiling YARA files takes at its peak, or having them loaded and used, and
what they do not find.

    yara_weigh compile FOLDER OUTPUT      peak, kB
    yara_weigh load OUTPUT                resident with the rules, kB
    yara_weigh find OUTPUT DIRECTORY      the files below it that they do not find, JSON
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import yara

from sekisho.signatures.samples import CLEAN
from sekisho.signatures.yara_build import build


def _kilobytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    if sys.argv[1] == "compile":
        build(Path(sys.argv[2]), Path(sys.argv[3]))
        sys.stdout.write(f"{_kilobytes('VmHWM')}\n")
    elif sys.argv[1] == "find":
        rules = yara.load(sys.argv[2])
        found = sorted(path for path in Path(sys.argv[3]).rglob("*") if path.is_file())
        missed = [path.name for path in found if not rules.match(str(path), timeout=60)]
        sys.stdout.write(json.dumps(missed) + "\n")
    else:
        rules = yara.load(sys.argv[2])
        for sample in CLEAN.values():
            rules.match(data=sample)
        sys.stdout.write(f"{_kilobytes('VmRSS')}\n")
