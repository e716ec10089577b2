"""All cases of the evasion lab by name, and which of them an ordinary test run takes."""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import Final

import captures
import tricks
import tricks_content
import tricks_head

from sekisho.lab.evader import Script

DATA: Final = Path(__file__).parents[4] / "shared" / "data" / "pcaps"
EVADER: Final = DATA / "http-evader"
ALWAYS: Final = frozenset({"evader-148", "evader-248", "evader-448", "evader-000", "evader-500"})
FAMILIES: Final = (
    tricks.chunk_sizes,
    tricks.transfer_codings,
    tricks.lengths,
    tricks_content.codings,
    tricks_content.damaged,
    tricks_content.charsets_and_parts,
    tricks_head.status_lines,
    tricks_head.header_lines,
    tricks_head.pieces,
)


@cache
def captured() -> dict[str, Script]:
    """The public HTTP Evader cases that are at hand; none when the data folder is not."""
    return {
        f"evader-{path.stem}": captures.talks(path)[0].script(as_sent=False) for path in sorted(EVADER.glob("*.pcap"))
    }


@cache
def own() -> dict[str, Script]:
    """Ours."""
    made: dict[str, Script] = {}
    for family in FAMILIES:
        cases = family()
        assert not made.keys() & cases.keys()
        made |= cases
    return made


def everything() -> dict[str, Script]:
    return captured() | own()


def sampled(name: str) -> bool:
    """Whether an ordinary run takes this case: about 20 of the public ones and 30 of ours, the same everywhere."""
    one_in = 7 if name in captured() else 100
    return name in ALWAYS or zlib.crc32(b"sample " + name.encode()) % one_in == 0
