"""A known file fetched in parts, by ranges and resumed downloads, is never put together by the client.

The web server is nginx, the parts are asked for as curl does it (RFC 9110 14). The parts of a clean file make it whole.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4, SERVER6
from sekisho.lab.samples import EICAR, SIZES

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

SIZE = SIZES["300k"]
SPOT = SIZE - len(EICAR)
TRIES = 12
WAYS: dict[str, list[tuple[int, int]]] = {
    "halves": [(0, SPOT + 33), (SPOT + 34, SIZE - 1)],
    "last half first": [(SPOT + 34, SIZE - 1), (0, SPOT + 33)],
    "last byte apart": [(0, SIZE - 2), (SIZE - 1, SIZE - 1)],
    "thirds": [(0, SPOT + 20), (SPOT + 21, SPOT + 40), (SPOT + 41, SIZE - 1)],
    "overlapping": [(0, SPOT + 50), (SPOT + 10, SIZE - 1)],
    "only the bad part": [(SPOT, SPOT + 33), (SPOT + 34, SIZE - 1)],
    "byte by byte": [(at, at) for at in range(SPOT, SIZE)],
    "quarters": [(at, min(at + SIZE // 4, SIZE) - 1) for at in range(0, SIZE, SIZE // 4)],
    "tiny and far apart": [(SPOT + at, min(SPOT + at + 16, SIZE) - 1) for at in (32, 0, 64, 16, 48)],
}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(f"x{os.getpid()}-parts") as lab:
        lab.up()
        yield lab


def fresh(lab: Lab, kind: str) -> tuple[str, bytes]:
    """A file nobody has asked for yet: its path and its bytes."""
    name = f"{kind}/parts-{next(_numbers)}.bin"
    data = b"file %06d " % next(_numbers) + (lab.lay.www / kind / "300k.bin").read_bytes()[12:]
    (lab.lay.www / name).write_bytes(data)
    return name, data


def fetch(lab: Lab, host: str, path: str, parts: list[tuple[int, int]], out: Path, *, kept: bool) -> list[bytes]:
    """Each part as it was written to disk, in the order asked for; on one connection with `kept`."""
    where = f"[{host}]" if ":" in host else host
    asked = []
    for number, (first, last) in enumerate(parts):
        words = [
            "-s",
            "--max-time",
            "10",
            "-r",
            f"{first}-{last}",
            "-o",
            str(out / f"{number}"),
            f"http://{where}/{path}",
        ]
        asked.append(words)
    if kept:
        lab.run("lan", ["curl", "-g", *[word for words in asked for word in ["--next", *words]][1:]])
    else:
        for words in asked:
            lab.run("lan", ["curl", "-g", *words])
    return [file.read_bytes() if (file := out / f"{number}").exists() else b"" for number in range(len(parts))]


def together(parts: list[tuple[int, int]], got: list[bytes]) -> bytes:
    """What a client makes of them: a file of the full size, with a hole where nothing came."""
    whole = bytearray(b"\0" * SIZE)
    for (first, last), data in zip(parts, got, strict=True):
        data = data[: last - first + 1]
        whole[first : first + len(data)] = data
    return bytes(whole)


@pytest.mark.parametrize("kept", [False, True], ids=["connections", "one connection"])
@pytest.mark.parametrize("way", list(WAYS))
def test_parts_of_a_bad_file_never_make_it(lab: Lab, way: str, kept: bool, tmp_path: Path) -> None:
    path, _ = fresh(lab, "bad")
    got = fetch(lab, SERVER6 if kept else SERVER4, path, WAYS[way], tmp_path, kept=kept)
    assert EICAR not in together(WAYS[way], got)


@pytest.mark.parametrize("way", ["halves", "overlapping", "quarters"])
def test_parts_of_a_clean_file_make_it_whole(lab: Lab, way: str, tmp_path: Path) -> None:
    path, data = fresh(lab, "clean")
    assert together(WAYS[way], fetch(lab, SERVER4, path, WAYS[way], tmp_path, kept=False)) == data


def test_a_cut_download_is_not_completed_by_resuming_it(lab: Lab, tmp_path: Path) -> None:
    path, _ = fresh(lab, "bad")
    out = tmp_path / "out"
    for _ in range(TRIES):
        lab.run("lan", ["curl", "-s", "--max-time", "10", "-C", "-", "-o", str(out), f"http://{SERVER4}/{path}"])
        assert not out.exists() or EICAR not in out.read_bytes()


def test_several_ranges_in_one_answer(lab: Lab, tmp_path: Path) -> None:
    """multipart/byteranges, RFC 9110 14.6: the parts of one answer."""
    path, data = fresh(lab, "bad")
    asked = f"{SPOT}-{SPOT + 33},{SPOT + 34}-{SIZE - 1}"
    got = lab.run("lan", ["curl", "-s", "--max-time", "10", "-r", asked, f"http://{SERVER4}/{path}"]).stdout
    assert not (data[SPOT : SPOT + 34] in got and data[SPOT + 34 :] in got)
