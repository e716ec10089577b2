"""The arm that other boxes stand for delivers and blocks: without that its figures are about something else."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from sekisho.bench import arms, proxy
from sekisho.bench.throughput import download
from sekisho.lab import layout
from sekisho.lab.lab import Lab
from sekisho.lab.samples import EICAR

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not proxy.installed(), reason="squid, c-icap and ClamAV come with make bench"),
]
SIZE = arms.SCANNED_MB * 1_000_000


@pytest.fixture(scope="module")
def chain() -> Iterator[Lab]:
    with proxy.standing(f"x{os.getpid()}") as lab:
        arms.offer(lab)
        yield lab


def test_a_large_file_arrives_whole(chain: Lab) -> None:
    name = f"clean/{arms.SCANNED_MB}m-0.bin"
    assert proxy.fetched(chain, name) == (0, (chain.lay.www / name).read_bytes())


@pytest.mark.full
def test_large_files_arrive_whole_four_at_a_time(chain: Lab) -> None:
    for _round in range(3):
        arms.renew(chain)
        download(chain, f"http://{layout.SERVER4}/clean/{arms.SCANNED_MB}m-{{}}.bin", arms.STREAMS, SIZE)


def test_no_bad_file_arrives_whole_and_clamav_says_each(chain: Lab) -> None:
    large = (chain.lay.www / "clean" / f"{arms.SCANNED_MB}m-0.bin").read_bytes()[: -len(EICAR)] + EICAR
    (chain.lay.www / "bad" / "large.bin").write_bytes(large)
    for name in ("eicar.com", "300k.bin", "1m.bin", "large.bin"):
        path = chain.lay.www / "bad" / name
        found = proxy.detections(chain)
        _ended, body = proxy.fetched(chain, f"bad/{name}")
        assert EICAR not in body, name
        assert proxy.detections(chain) > found, name
        assert len(body) < max(path.stat().st_size // 10, 10_000), name


def test_files_that_filled_the_stalling_buffer_arrive_every_time(chain: Lab) -> None:
    name = "clean/fresh.bin"
    for _try in range(10):
        body = secrets.token_bytes(300_000)
        (chain.lay.www / name).write_bytes(body)
        assert proxy.fetched(chain, name) == (0, body)
