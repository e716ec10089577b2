"""Child process: one content engine over a folder of files; says what it cost in one JSON line.

`python -m sekisho.bench.engines ENGINE compile RULES FILE` compiles every source, `... match FILE FOLDER` loads the
result and matches each file whole, on one core: two processes, since a worker never compiles. `yara` is the library
in the worker, `yara-x` its successor.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sekisho.signatures.model import EXTERNALS

Match = Callable[[bytes], int]


def _compile_yara(sources: list[Path], target: Path) -> int:
    import yara

    files = {path.name: str(path) for path in sources}
    yara.compile(filepaths=files, externals=dict.fromkeys(EXTERNALS, "")).save(str(target))
    return 0


def _compile_yara_x(sources: list[Path], target: Path) -> int:
    import yara_x

    compiler, refused = yara_x.Compiler(relaxed_re_syntax=True), 0
    for name in EXTERNALS:
        compiler.define_global(name, "")
    for path in sources:
        compiler.new_namespace(path.name)
        try:
            compiler.add_source(path.read_text("utf-8", "replace"))
        except yara_x.CompileError:
            refused += 1
    with target.open("wb") as out:
        compiler.build().serialize_into(out)
    return refused


def _load_yara(compiled: Path) -> Match:
    import yara

    loaded = yara.load(str(compiled))
    externals = dict.fromkeys(EXTERNALS, "")
    return lambda data: len(loaded.match(data=data, timeout=60, externals=externals, fast=True))


def _load_yara_x(compiled: Path) -> Match:
    import yara_x

    with compiled.open("rb") as source:
        scanner = yara_x.Scanner(yara_x.Rules.deserialize_from(source))
    scanner.set_timeout(60)
    return lambda data: len(scanner.scan(data).matching_rules)


COMPILE = {"yara": _compile_yara, "yara-x": _compile_yara_x}
LOAD = {"yara": _load_yara, "yara-x": _load_yara_x}


def _status(key: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{key}:")[2].split()[0]) / 1024


def _spent() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def _match(engine: str, compiled: Path, folder: Path) -> dict[str, float]:
    before, began = _status("VmRSS"), time.perf_counter()
    match = LOAD[engine](compiled)
    load = time.perf_counter() - began
    match(b"")
    rules_mb = _status("VmRSS") - before
    hits, octets, spent = 0, 0, _spent()
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        octets += len(data)
        hits += match(data)
    mb_s = octets / (_spent() - spent) / 1e6
    spent = _spent()
    for _ in range(200):
        match(b"tiny")
    tiny_ms = (_spent() - spent) / 200 * 1000
    return {"mb_s": mb_s, "hits": hits, "load_s": load, "rss_mb": rules_mb, "tiny_ms": tiny_ms}


def main() -> int:
    engine, what, source, target = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    if what == "compile":
        began = time.perf_counter()
        refused = COMPILE[engine](sorted(source.rglob("*.yar*")), target)
        facts: dict[str, float] = {"refused": refused, "compile_s": time.perf_counter() - began}
    else:
        facts = _match(engine, source, target)
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
