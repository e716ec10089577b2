"""Child process: compiles each YARA file by itself ("name"), and tries it on clean samples ("try").

Run by `yarafiles`. One line of JSON a file: its name, its rules' names, and why it cannot be taken, if so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yara

from sekisho.signatures.model import EXTERNALS
from sekisho.signatures.samples import CLEAN

SCAN_SECONDS = 10


def tried(path: Path, clean: dict[str, bytes]) -> dict[str, object]:
    """What became of one file."""
    try:
        rules = yara.compile(filepath=str(path), externals=dict.fromkeys(EXTERNALS, ""), includes=False)
        names = sorted(rule.identifier for rule in rules)
        for name, data in clean.items():
            hits = rules.match(data=data, timeout=SCAN_SECONDS)
            if hits:
                return {"file": path.name, "names": names, "why": f"rule {hits[0].rule} takes {name} for malicious"}
    except yara.Error as err:
        return {"file": path.name, "names": [], "why": str(err).replace(f"{path.parent}/", "")[:300]}
    except MemoryError:
        return {"file": path.name, "names": [], "why": "needs more memory than is allowed"}
    return {"file": path.name, "names": names, "why": ""}


if __name__ == "__main__":
    samples = dict(CLEAN) if sys.argv[1] == "try" else {}
    for folder in sys.argv[3:]:
        samples |= {sample.name: sample.read_bytes() for sample in sorted(Path(folder).rglob("*")) if sample.is_file()}
    for source in sorted(Path(sys.argv[2]).iterdir()):
        sys.stdout.write(json.dumps(tried(source, samples)) + "\n")
        sys.stdout.flush()
