"""Clean files as an office moves them: programs, documents, archives, pictures, pages. One machine gets the same."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

PROGRAMS: Final = Path("/usr/bin")
Maker = Callable[[random.Random], tuple[bytes, str]]
_WORDS: Final = (
    "the order of this month is attached please check price quantity delivery invoice tax total office customer "
    "見積書 請求書 納品 合計 消費税 担当 確認 お願い 株式会社 var function return window document style class href"
).split()


def fill(folder: Path, megabytes: int) -> int:
    """Write about `megabytes` of files into `folder`; the bytes written.

    A third each: this system's programs; packed things (office documents, archives, PDF); plain things (pages,
    tables, pictures, whose bytes are as good as random).
    """
    rng = random.Random(20)
    third = (megabytes << 20) // 3
    total = _programs(folder, third, rng)
    total += _until(third, rng, folder, "packed", (_office, _archive, _portable))
    total += _until(third, rng, folder, "plain", (_page, _table, _picture))
    return total


def _programs(folder: Path, room: int, rng: random.Random) -> int:
    files = sorted(p for p in PROGRAMS.iterdir() if p.is_file() and not p.is_symlink() and p.stat().st_size < 8 << 20)
    rng.shuffle(files)
    total = 0
    for file in files:
        if total >= room:
            break
        total += (folder / f"program-{file.name}.exe").write_bytes(file.read_bytes())
    return total


def _until(room: int, rng: random.Random, folder: Path, kind: str, makers: tuple[Maker, ...]) -> int:
    total = number = 0
    while total < room:
        data, extension = makers[number % len(makers)](rng)
        total += (folder / f"{kind}-{number}.{extension}").write_bytes(data)
        number += 1
    return total


def _text(rng: random.Random, octets: int) -> bytes:
    words = " ".join(rng.choices(_WORDS, k=max(1, octets // 7)))
    return words.encode()[:octets]


def _office(rng: random.Random) -> tuple[bytes, str]:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", b"<Types/>")
        for part in range(12):
            archive.writestr(f"word/part{part}.xml", b"<w:t>" + _text(rng, 40_000) + b"</w:t>")
        archive.writestr("word/media/image1.jpg", _picture(rng)[0][:200_000])
    return out.getvalue(), "docx"


def _archive(rng: random.Random) -> tuple[bytes, str]:
    return gzip.compress(_text(rng, 900_000) + rng.randbytes(300_000), 6), "gz"


def _portable(rng: random.Random) -> tuple[bytes, str]:
    pages = [b"<< /Filter /FlateDecode >>\nstream\n" + zlib.compress(_text(rng, 30_000)) + b"\nendstream\n"
             for _ in range(20)]  # fmt: skip
    return b"%PDF-1.7\n" + b"".join(pages) + rng.randbytes(300_000), "pdf"


def _page(rng: random.Random) -> tuple[bytes, str]:
    lines = [b"<p class=x>" + _text(rng, 500) + b"</p>" for _ in range(600)]
    return b"<!doctype html><html>" + b"\n".join(lines) + b"</html>", "html"


def _table(rng: random.Random) -> tuple[bytes, str]:
    return b"\n".join(b"%d,%d,%d" % (n, rng.randrange(9999), rng.randrange(99)) for n in range(40_000)), "csv"


def _picture(rng: random.Random) -> tuple[bytes, str]:
    return b"\xff\xd8\xff\xe0\0\x10JFIF\0" + rng.randbytes(rng.randrange(300_000, 3_000_000)), "jpg"
