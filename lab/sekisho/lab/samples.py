"""The files the lab's servers offer: clean ones and, of each, a malicious twin of the same size.

The twin differs in its last bytes only, which are the EICAR test string: harmless, and known to every
scanner. The string is put together here so that no file of the source tree is one itself.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

EICAR: Final = b"".join((b"X5O!P%@AP", rb"[4\PZX54(P^)7CC)7}", b"$EICAR-STANDARD", b"-ANTIVIRUS-TEST-FILE!", b"$H+H*"))
SIZES: Final = {"1k": 1_000, "300k": 300_000, "1m": 1_000_000, "20m": 20_000_000}
BULK_BYTES: Final = 256 << 20


def clean(size: int) -> bytes:
    """Bytes that no rule knows and that compress a little, the same for the same size on every machine."""
    source = random.Random(size)  # noqa: S311 - test data, not a secret
    block = source.randbytes(min(size, 1 << 20))
    text = block.hex().encode()
    return (text * (size // len(text) + 1))[:size]


def malicious(size: int) -> bytes:
    """The twin of `clean(size)`: same length, ends in EICAR."""
    return clean(size)[: size - len(EICAR)] + EICAR


def write(www: Path) -> None:
    """Fill `www` with clean/NAME.bin, bad/NAME.bin, bad/eicar.com and bulk.bin (sparse)."""
    for folder in ("clean", "bad"):
        (www / folder).mkdir(parents=True)
    for name, size in SIZES.items():
        (www / "clean" / f"{name}.bin").write_bytes(clean(size))
        (www / "bad" / f"{name}.bin").write_bytes(malicious(size))
    (www / "bad" / "eicar.com").write_bytes(EICAR)
    (www / "index.html").write_text("<!doctype html><title>sekisho lab</title><p>A server on the internet.</p>\n")
    with (www / "bulk.bin").open("wb") as bulk:
        bulk.truncate(BULK_BYTES)
