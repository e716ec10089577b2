"""Child process: one content engine over a folder of files; says what it cost in one JSON line.

`python -m sekisho.bench.engines ENGINE RULES FOLDER`: `yara` is the library in the worker, `yara-x` its successor,
each with the same compiled sources, each file read and matched whole, one core.
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


def _yara(sources: list[Path], work: Path) -> tuple[Match, int, float, float]:
    import yara

    began = time.perf_counter()
    rules = yara.compile(filepaths={p.name: str(p) for p in sources}, externals=dict.fromkeys(EXTERNALS, ""))
    compiled = time.perf_counter() - began
    rules.save(str(work / "rules.yara"))
    del rules
    began = time.perf_counter()
    loaded = yara.load(str(work / "rules.yara"))
    load = time.perf_counter() - began
    externals = dict.fromkeys(EXTERNALS, "")
    return lambda data: len(loaded.match(data=data, timeout=60, externals=externals)), 0, compiled, load


def _yara_x(sources: list[Path], work: Path) -> tuple[Match, int, float, float]:
    import yara_x

    began = time.perf_counter()
    compiler, refused = yara_x.Compiler(relaxed_re_syntax=True), 0
    for name in EXTERNALS:
        compiler.define_global(name, "")
    for path in sources:
        compiler.new_namespace(path.name)
        try:
            compiler.add_source(path.read_text("utf-8", "replace"))
        except yara_x.CompileError:
            refused += 1
    rules = compiler.build()
    compiled = time.perf_counter() - began
    with (work / "rules.yarax").open("wb") as out:
        rules.serialize_into(out)
    del rules, compiler
    began = time.perf_counter()
    with (work / "rules.yarax").open("rb") as source:
        scanner = yara_x.Scanner(yara_x.Rules.deserialize_from(source))
    scanner.set_timeout(60)
    load = time.perf_counter() - began
    return lambda data: len(scanner.scan(data).matching_rules), refused, compiled, load


def _status(key: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{key}:")[2].split()[0]) / 1024


def main() -> int:
    engine, rules, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    sources = sorted(rules.rglob("*.yar*"))
    match, refused, compiled, load = {"yara": _yara, "yara-x": _yara_x}[engine](sources, rules.parent)
    match(b"")
    at_rest = _status("VmRSS")
    hits = octets = 0
    spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        octets += len(data)
        hits += match(data)
    spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - spent
    facts = {"mb_s": octets / spent / 1e6, "hits": hits, "refused": refused, "compile_s": compiled, "load_s": load}
    sys.stdout.write(json.dumps(facts | {"rss_mb": at_rest, "peak_mb": _status("VmHWM")}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
