"""The YARA half of a set: files gathered, the broken ones left out and named, and what is least worth until it fits."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.model import Source
from sekisho.signatures.press import gather, yarafiles
from sekisho.signatures.press.recipe import OWN, Recipe
from sekisho.signatures.sources import SHIPPED, read_directory

MAX_BROKEN_SHARE = 0.05
"""More files than that broken: something is wrong with the source, not with a file."""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """The YARA files and hash lists of a set."""

    sources: list[Source]
    rules: int
    hashes: int
    broken: list[str]
    left_out: list[str]
    weight: yarafiles.Weight
    compiled: Path


def taken(recipe: Recipe, work: Path) -> Taken:
    """All of it.

    Raises:
        RejectedInput: a source was refused, too many of its files are broken, or nothing fits.
        PeerError: a source could not be fetched.
        DeviceFault: a local file is missing.

    """
    place = work / "yara"
    groups = {OWN: read_directory(SHIPPED / "yara", (".yar", ".yara"))}
    groups |= {item.name: gather.yara(item, place / item.name) for item in recipe.yara}
    lists = [gather.hashes(item, place / item.name) for item in recipe.hashes]
    tried = {item.file: item for item in yarafiles.tried(_all(groups), place, recipe.corpora.clean)}
    broken = [f"{item.file}: {item.why}" for item in tried.values() if item.why]
    if len(broken) > len(tried) * MAX_BROKEN_SHARE:
        raise RejectedInput(f"{len(broken)} of {len(tried)} YARA files cannot be taken, the first {broken[0]}.")
    good = {name: [file for file in files if not tried[file.name].why] for name, files in groups.items()}
    weight, left_out = _fitted(good, recipe, place)
    files = _all(good)
    return Taken(
        sources=files + lists,
        rules=sum(len(tried[file.name].names) for file in files),
        hashes=sum(item.data.count(b"\n") for item in lists),
        broken=broken,
        left_out=left_out,
        weight=weight,
        compiled=place / yarafiles.COMPILED,
    )


def _fitted(groups: dict[str, list[Source]], recipe: Recipe, place: Path) -> tuple[yarafiles.Weight, list[str]]:
    """Takes groups out of `groups` until the rest fits."""
    limits = recipe.budget
    gone: list[str] = []
    for name in ["", *limits.leave_out_yara]:
        if name:
            del groups[name]
            gone.append(f"YARA source: {name}")
        weight = yarafiles.weigh(_all(groups), place)
        if weight.rest_mb <= limits.yara_mb and weight.peak_mb <= limits.yara_peak_mb:
            return weight, gone
    raise RejectedInput(
        f"The YARA rules do not fit: a scan worker takes {weight.rest_mb} MB and the compiler {weight.peak_mb} MB, and"
        f" {limits.yara_mb} and {limits.yara_peak_mb} are allowed, with all left out that the recipe lets go.",
        "Name more in budget.leave_out_yara, or allow more memory.",
    )


def _all(groups: dict[str, list[Source]]) -> list[Source]:
    return [file for name in groups for file in groups[name]]
