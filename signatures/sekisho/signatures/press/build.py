"""Makes one set: gather, decide, prove, weigh, prove again as a box will, compress, keep. All or nothing.

Every step that can refuse comes before the first byte below the output directory is final; what stands there is a set
that the real engines loaded, within its budget, with its corpora passed.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings, Signatures
from sekisho.appliance.core.settings import load as load_settings
from sekisho.signatures import archive, compiler
from sekisho.signatures.model import MAX_NAMED, Refused, SetInfo, Source
from sekisho.signatures.press import content, corpora, engines, stored, yaraset
from sekisho.signatures.press.recipe import Recipe
from sekisho.signatures.published import Baseline, Manifest
from sekisho.signatures.sources import SHIPPED


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`build.json`: what became of the recipe."""

    number: int
    """Of the set; 0: nothing is new, no set was made."""
    sha256: str
    rules: int
    drops: int
    new_drops: int
    yara: int
    hashes: int
    off: int
    helpers: list[int]
    deaf: list[int]
    overstepping: list[int]
    idle: list[int]
    refused: list[Refused]
    left_out: list[str]
    """Groups and YARA sources that did not fit the budget."""
    yara_left_out: list[str]
    """YARA files that could not be taken, each with the reason."""
    memory_mb: int
    peak_mb: int
    yara_mb: int
    yara_peak_mb: int
    captures: int
    length: int
    packed: int = 0
    deltas: dict[int, int] = {}
    """Bytes of the delta from each earlier set."""
    directory: str = ""


def build(recipe: Recipe, out: Path, previous: Path | None, baseline: bytes | None) -> Result:
    """Build the set after the newest of `previous` (where None: of `out`) into `out`/NUMBER.

    Raises:
        RejectedInput: a source, the result, or the baseline was refused. Nothing was written.
        PeerError: a source could not be fetched.
        DeviceFault: a file or engine is missing, or the disk refuses the set.

    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=out) as work:
            return _build(recipe, out, previous or out, baseline, Path(work))
    except OSError as err:
        raise DeviceFault(f"Cannot build in {out}: {err.strerror or err}.") from err


def _build(recipe: Recipe, out: Path, previous: Path, baseline: bytes | None, work: Path) -> Result:
    usual = _baseline(baseline)
    older = stored.latest(previous, max(1, recipe.deltas))
    settings = load_settings(Path(recipe.settings)) if recipe.settings else Settings(box="press")
    rules = engines.decided(recipe, settings, work)
    yara = yaraset.taken(recipe, work)
    files = {f"rules/{source.name}": source.data for source in rules.sources}
    files |= {f"yara/{source.name}": source.data for source in yara.sources}
    files[archive.BASELINE] = usual
    whole = archive.pack(files)
    now = content.of(files)
    before = content.read(older[0].archive) if older else _shipped()
    if older:
        _judge_loss(before, now, recipe.max_removed)
    fresh = content.new_drops(before, now)
    result = Result(
        number=0,
        sha256=hashlib.sha256(whole).hexdigest(),
        rules=len(now.rules),
        drops=len(now.dropping),
        new_drops=len(fresh),
        yara=yara.rules,
        hashes=yara.hashes,
        off=rules.off,
        helpers=rules.helpers,
        deaf=rules.deaf,
        overstepping=rules.overstepping,
        idle=rules.idle,
        refused=rules.refused[:MAX_NAMED],
        left_out=rules.left_out + yara.left_out,
        yara_left_out=yara.broken,
        memory_mb=rules.weight.rest_mb,
        peak_mb=rules.weight.peak_mb,
        yara_mb=yara.weight.rest_mb,
        yara_peak_mb=yara.weight.peak_mb,
        captures=rules.captures,
        length=len(whole),
    )
    if older and older[0].archive == whole:
        return result
    info = _as_a_box(settings, whole, work)
    corpora.malicious(recipe.corpora.malicious, yara.compiled)
    number = 1 + max((*stored.numbers(out), *(item.manifest.number for item in older if item.manifest)), default=0)
    manifest = Manifest(
        number=number,
        built=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        sha256=result.sha256,
        length=len(whole),
        path=f"sig/{number}.tar.zst",
        packed=1,  # known once it is compressed
        suricata_min=recipe.suricata_min,
        suricata_below=recipe.suricata_below,
        rules=info.suricata_rules,
        yara=info.yara_rules,
        new_drops=fresh,
        urgent=sorted(rules.urgent & set(fresh)),
        memory_mb=result.memory_mb,
    )
    final = out / str(number)
    place = work / "finished"
    place.mkdir()
    manifest = stored.write(place, manifest, whole, older, recipe.deltas)
    result = msgspec.structs.replace(
        result,
        number=number,
        packed=manifest.packed,
        deltas={item.base: item.length for item in manifest.deltas},
        directory=str(final),
    )
    write_atomic(place / "build.json", msgspec.json.format(msgspec.json.encode(result)) + b"\n", 0o644)
    stored.keep(place, final)
    return result


def _as_a_box(settings: Settings, whole: bytes, work: Path) -> SetInfo:
    """The set as a box proves it, from the archive itself. Nothing of it may be refused there."""
    place = work / "unpacked"
    archive.unpack(whole, place)
    paths = Signatures(rules_dir=str(place / "rules"), yara_dir=str(place / "yara"))
    info = compiler.check(msgspec.structs.replace(settings, signatures=paths))
    shutil.rmtree(place)
    if info.refused_total:
        first = info.refused[0]
        raise RejectedInput(f"A box would leave out {info.refused_total} rules, the first {first.where}: {first.why}.")
    return info


def _judge_loss(before: content.Content, now: content.Content, allowed: float) -> None:
    for what, old, new in (
        ("Suricata rules", before.rules.keys(), now.rules.keys()),
        ("YARA files", before.of(".yar").keys(), now.of(".yar").keys()),
    ):
        gone = len(old - new)
        if gone > allowed * len(old):
            raise RejectedInput(
                f"{gone} of the {len(old)} {what} of the set before are missing.",
                "If that is meant, allow it in the recipe for this one build: max_removed = 1.",
            )


def _baseline(given: bytes | None) -> bytes:
    try:
        known = msgspec.json.decode(given, type=Baseline) if given else Baseline()
    except msgspec.MsgspecError as err:
        raise RejectedInput(f"The baseline cannot be understood: {err}.") from err
    return msgspec.json.encode(
        msgspec.structs.replace(known, sids=dict(sorted(known.sids.items())), yara=dict(sorted(known.yara.items())))
    )


def _shipped() -> content.Content:
    """What a box works with before its first set."""
    rules = sorted((SHIPPED / "suricata").glob("*.rules"))
    return content.of({f"rules/{path.name}": Source(path.name, path.read_bytes()).data for path in rules})
