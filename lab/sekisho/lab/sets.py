"""Rule sets for the lab, made straight from their files: also ones that no press would let pass.

`write` lays a set out as `sekisho signatures publish` takes it. What a set holds is a mapping of the archive's own
names (`signatures.published`) to bytes, so that a test changes a rule as one changes a dictionary.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import tarfile
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import yara

from sekisho.signatures import archive, delta
from sekisho.signatures.model import EXTERNALS
from sekisho.signatures.published import Delta, Manifest
from sekisho.signatures.sources import SHIPPED

Files = dict[str, bytes]
REAL: Final = Path("../shared/data")
"""Where a real rule load is on a developer's machine; beside the tree, never in it."""
CANARY_PORT: Final = 4444
CANARY_WORD: Final = "sekisho-lab-must-not-arrive"
CANARY_SID: Final = 7_710_001
CANARY_RULE: Final = (
    f'drop udp any any -> any {CANARY_PORT} (msg:"LAB must not arrive"; content:"{CANARY_WORD}";'
    f" sid:{CANARY_SID}; rev:1;)"
)
_RULE: Final = re.compile(rb"^(?:alert|drop|pass|reject\w*)[ \t]", re.MULTILINE)
_YARA: Final = re.compile(rb"^[ \t]*(?:(?:private|global)[ \t]+)*rule[ \t]+\w+", re.MULTILINE)
_FLAT: Final = re.compile(r"[^A-Za-z0-9_.+-]")
DELTAS: Final = 3
_REFUSED: Final = re.compile(rb"^.*sid:2025232;.*\n", re.MULTILINE)
"""The one rule of the public load that Suricata 7 refuses: a press leaves such out."""


def small() -> Files:
    """What ships with the box, and the rule that must stop the canary."""
    files = {f"rules/{path.name}": path.read_bytes() for path in (SHIPPED / "suricata").glob("*.rules")}
    files |= {f"yara/{path.name}": path.read_bytes() for path in (SHIPPED / "yara").glob("*.yar")}
    del files["yara/sekisho-canary.yar"]
    return files | {"rules/canary.rules": CANARY_RULE.encode() + b"\n"}


def real_load(data: Path = REAL) -> tuple[Path, Path] | None:
    """Where the large public rules are, Suricata's and YARA's; None where they are absent."""
    rules, yara = data / "rules" / "et-open-2020-04.rules.xz", data / "yara" / "signature-base.tar.xz"
    return (rules, yara) if rules.exists() and yara.exists() else None


def real(data: Path = REAL) -> Files | None:
    """`small` and the large public rule load; None where it is absent."""
    found = real_load(data)
    if found is None:
        return None
    rules, yara = found
    files = small() | {"rules/public.rules": _REFUSED.sub(b"", lzma.decompress(rules.read_bytes()))}
    with tarfile.open(yara) as packed:
        for member in packed:
            source = packed.extractfile(member) if member.name.endswith((".yar", ".yara")) else None
            if source is not None:
                files[f"yara/{_FLAT.sub('_', Path(member.name).stem)[:80]}.yar"] = source.read()
    return files


def of_day(files: Files, day: int, changed: int = 0, added: int = 0, yara: int = 0) -> Files:
    """The set of a later day: some rules changed as vendors change them, some more, some YARA files with one more."""
    made = dict(files)
    name = max(files, key=lambda name: len(files[name]) if name.startswith("rules/") else -1)
    lines = files[name].splitlines()
    rules = [index for index, line in enumerate(lines) if _RULE.match(line)]
    for step in range(min(changed, len(rules))):
        index = rules[(day * 7919 + step * 997) % len(rules)]
        lines[index] = re.sub(rb"rev:\s*(\d+)", lambda found: b"rev:%d" % (int(found[1]) + day), lines[index], count=1)
        lines[index] = lines[index].replace(b'(msg:"', b'(msg:"Day %d ' % day, 1)
    lines += [_new_rule(day, number) for number in range(added)]
    made[name] = b"\n".join(lines) + b"\n"
    for number in range(yara):
        text = f'rule Day{day}_{number} {{ strings: $a = "day {day} {number} {_noise(day, number)}" condition: $a }}\n'
        made[f"yara/day-{day}-{number}.yar"] = text.encode()
    return made


def write(
    folder: Path,
    number: int,
    files: Files,
    earlier: Mapping[int, Files] | None = None,
    new_drops: Collection[int] = (),
    urgent: Collection[int] = (),
    **claims: int,
) -> Manifest:
    """Lay set `number` out in `folder`, with deltas from the latest of the `earlier`; `claims` go into its manifest."""
    folder.mkdir(parents=True)
    content = archive.pack(files)
    packed = delta.compress(content)
    path = f"sig/{number}.tar.zst"
    (folder / Path(path).name).write_bytes(packed)
    deltas = []
    for base in sorted(earlier or {}, reverse=True)[:DELTAS]:
        old = archive.pack((earlier or {})[base])
        if len(old) < len(content) // 2:
            continue  # the way from there is as long as the whole
        way = delta.make(old, content)
        (folder / f"{base}-{number}.zst").write_bytes(way)
        digest = hashlib.sha256(old).hexdigest()
        deltas.append(Delta(base=base, base_sha256=digest, path=f"sig/{base}-{number}.zst", length=len(way)))
    manifest = Manifest(
        number=number,
        built=datetime.now(UTC).isoformat(timespec="seconds"),
        sha256=hashlib.sha256(content).hexdigest(),
        length=len(content),
        path=path,
        packed=len(packed),
        deltas=deltas,
        rules=claims.get("rules", _count(files, "rules/", _RULE)),
        yara=claims.get("yara", _count_yara(files)),
        new_drops=sorted(new_drops),
        urgent=sorted(urgent),
    )
    (folder / "set.json").write_bytes(msgspec.json.encode(manifest))
    return manifest


def _count(files: Files, below: str, what: re.Pattern[bytes]) -> int:
    return max(1, sum(len(what.findall(data)) for name, data in files.items() if name.startswith(below)))


def _count_yara(files: Files) -> int:
    """As the compiler counts, which knows a rule from a comment; by their looks where it refuses them."""
    sources = {name: data.decode(errors="replace") for name, data in files.items() if name.endswith(".yar")}
    try:
        return sum(1 for _ in yara.compile(sources=sources, externals=dict.fromkeys(EXTERNALS, ""), includes=False))
    except yara.Error:
        return _count(files, "yara/", _YARA)


def _new_rule(day: int, number: int) -> bytes:
    """As long, and as little like its neighbours, as a vendor's rule."""
    noise = _noise(day, number)
    return (
        f'alert http $HOME_NET any -> $EXTERNAL_NET any (msg:"LAB trojan {noise[:12]} check-in";'
        f' flow:established,to_server; http.uri; content:"/{noise[12:28]}/gate.php?id="; http.user_agent;'
        f' content:"{noise[28:44]}"; reference:md5,{noise[:32]}; classtype:trojan-activity;'
        f" sid:{7_800_000 + day * 1000 + number}; rev:1; metadata:created_at 2026_11_21;)"
    ).encode()


def _noise(day: int, number: int) -> str:
    return hashlib.sha256(f"{day} {number}".encode()).hexdigest()
