"""Child process: compiles YARA sources and tries the result on samples.

Run by `yara_compile`, never imported by a daemon. Each file is a namespace of its own, so that public
files may repeat rule names. `include` is off: a rule file reads no other file. Says what happened in one
JSON line; a broken file is named with its line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yara

from sekisho.signatures.model import EXTERNALS
from sekisho.signatures.samples import CLEAN, MALICIOUS

SCAN_SECONDS = 10


def build(source: Path, output: Path) -> dict[str, object]:
    """Compile every file of `source` into `output`; the result says {"rules": n} or {"error": why}."""
    files = {path.name: str(path) for path in sorted(source.iterdir())}
    try:
        rules = yara.compile(filepaths=files, externals=dict.fromkeys(EXTERNALS, ""), includes=False)
        error = _try_samples(rules)
        if error:
            return {"error": error}
        rules.save(str(output))
    except yara.Error as err:
        return {"error": str(err).replace(f"{source}/", "")}
    except MemoryError:
        return {"error": "the compiled rules need more memory than is allowed"}
    return {"rules": sum(1 for _ in rules)}


def _try_samples(rules: yara.Rules) -> str:
    for name, data in MALICIOUS.items():
        if not rules.match(data=data, timeout=SCAN_SECONDS):
            return f"the set does not detect the sample {name}"
    for name, data in CLEAN.items():
        hits = rules.match(data=data, timeout=SCAN_SECONDS)
        if hits:
            return f"rule {hits[0].rule} of {hits[0].namespace} takes the clean sample {name} for malicious"
    return ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(build(Path(sys.argv[1]), Path(sys.argv[2]))) + "\n")
