"""Deltas between sets: small on an ordinary day, and never more memory than the cap, whatever a frame claims."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures import delta
from sekisho.signatures.published import ARCHIVE_CAP

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RANDOM = random.Random(6)
OLD = RANDOM.randbytes(300_000)
NEW = OLD[:100_000] + b"changed" + OLD[100_100:] + b"added"


def test_a_delta_leads_from_the_old_to_the_new_and_is_small() -> None:
    made = delta.make(OLD, NEW)
    assert len(made) < 300
    assert delta.apply(OLD, made, len(NEW)) == NEW


def test_a_set_compressed_on_its_own_comes_back() -> None:
    assert delta.decompress(delta.compress(NEW), len(NEW)) == NEW


def test_the_same_delta_is_made_every_time() -> None:
    assert delta.make(OLD, NEW) == delta.make(OLD, NEW)


def test_a_delta_is_refused_against_another_old() -> None:
    with pytest.raises(RejectedInput):
        delta.apply(RANDOM.randbytes(300_000), delta.make(OLD, NEW), len(NEW))


def test_one_byte_over_the_cap_is_refused() -> None:
    with pytest.raises(RejectedInput, match="allowed"):
        delta.apply(OLD, delta.make(OLD, NEW), len(NEW) - 1)
    with pytest.raises(RejectedInput, match="allowed"):
        delta.decompress(delta.compress(NEW), len(NEW) - 1)


def test_a_cut_or_lengthened_download_is_refused() -> None:
    made = delta.make(OLD, NEW)
    for damaged in (b"", made[:3], made[:20], made[:-1], made + b"\0", made + made, made[: len(made) // 2]):
        with pytest.raises(RejectedInput):
            delta.apply(OLD, damaged, len(NEW))


def test_a_frame_that_hides_its_length_is_refused() -> None:
    packed = zstd.compress(b"x" * 1000, options={zstd.CompressionParameter.content_size_flag: 0})
    with pytest.raises(RejectedInput, match="unknown"):
        delta.decompress(packed, ARCHIVE_CAP)


def test_more_frames_behind_the_first_are_refused() -> None:
    with pytest.raises(RejectedInput):
        delta.decompress(zstd.compress(b"x") + zstd.compress(b"y" * 1000), ARCHIVE_CAP)


def lying(claimed: int, packed: bytes) -> bytes:
    """The frame with another length in its header (a single segment frame with an 8 byte length)."""
    info = packed[4]
    assert info & 0x20, "a single segment"
    size = {0x00: 1, 0x40: 2, 0x80: 4, 0xC0: 8}[info & 0xC0]
    return packed[:4] + bytes([info | 0xC0]) + claimed.to_bytes(8, "little") + packed[5 + size :]


@pytest.mark.parametrize("claimed", [1, 1000, ARCHIVE_CAP, ARCHIVE_CAP + 1, 1 << 40, (1 << 64) - 3])
def test_a_bomb_that_lies_about_its_length_makes_nothing(claimed: int) -> None:
    bomb = lying(claimed, delta.compress(bytes(64 << 20)))
    with pytest.raises(RejectedInput):
        delta.decompress(bomb, 1 << 20)
    with pytest.raises(RejectedInput):
        delta.apply(OLD, bomb, 1 << 20)


def test_a_bomb_fits_a_child_with_little_memory() -> None:
    """A GB of zeros in 33 kB, and a window of 2 GB: refused within 200 MB of address space over what starting needs."""
    bomb = zstd.compress(bytes(1 << 28), options={zstd.CompressionParameter.window_log: 28})
    wide = zstd.compress(
        b"x" * 70_000,
        options={zstd.CompressionParameter.window_log: 31, zstd.CompressionParameter.content_size_flag: 0},
    )
    program = (
        "import sys, resource\n"
        "from sekisho.appliance.core.errors import RejectedInput\n"
        "from sekisho.signatures import delta\n"
        "room = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + (200 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (room, room))\n"
        "for bomb in map(bytes.fromhex, sys.stdin.read().split()):\n"
        "    for act in (lambda: delta.decompress(bomb, 1 << 27), lambda: delta.apply(b'old' * 1000, bomb, 1 << 27)):\n"
        "        try:\n"
        "            act()\n"
        "        except RejectedInput:\n"
        "            print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=f"{bomb.hex()} {wide.hex()}".encode(),
        capture_output=True,
        timeout=50,
        check=True,
    )
    assert done.stdout.split() == [b"refused"] * 4


@given(st.binary(max_size=2000))
def test_any_bytes_unpack_within_the_cap_or_are_refused(data: bytes) -> None:
    for frame in (data, b"\x28\xb5\x2f\xfd" + data):
        try:
            assert len(delta.apply(OLD, frame, 5000)) <= 5000
        except RejectedInput:
            pass


@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_every_pair_goes_there(old: bytes, new: bytes) -> None:
    assert delta.apply(old, delta.make(old, new), len(new)) == new
