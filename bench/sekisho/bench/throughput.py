"""Megabytes a second through each arm, in turn (A B C A B C), the median of each, and where the processor time went."""

from __future__ import annotations

import subprocess
import time
from collections import Counter

from sekisho.appliance.core.errors import DeviceFault
from sekisho.bench.arms import SCANNED_MB, Arms
from sekisho.bench.figures import Figure, median
from sekisho.bench.processes import cpu_seconds, kernel_seconds
from sekisho.lab import layout, samples
from sekisho.lab.lab import Lab

ROUNDS = 5
_TIMEOUT_S = 120


def bulk_tls(arms: Arms) -> list[Figure]:
    """One TLS download of 256 MB: encrypted bytes leave for the kernel's path, so the box should cost nothing."""
    url = f"https://{layout.SERVER4}/bulk.bin"
    speeds = _in_turn(arms, url, 1, samples.BULK_BYTES, ("product", "bare", "packaged"))
    product, bare, packaged = (median(speeds[name]) for name in ("product", "bare", "packaged"))
    detail = {"product MB/s": product, "bare bridge MB/s": bare, "packaged MB/s": packaged}
    return [
        Figure("tls_bare", "bulk TLS, of the bare bridge's speed", product / bare, "x", 0.95, "at least", detail),
        Figure("tls_packaged", "bulk TLS, of the packaged configuration's", product / packaged, "x", 3.0, "at least"),
    ]


def clear_http(arms: Arms) -> list[Figure]:
    """A clear-text file that the box scans whole, one stream and four at once."""
    found = []
    url = f"http://{layout.SERVER4}/clean/{SCANNED_MB}m.bin"
    for streams in (1, 4):
        spent: dict[str, Counter[str]] = {}
        speeds = _in_turn(arms, url, streams, SCANNED_MB * 1_000_000, ("product", "packaged"), spent)
        product, packaged = median(speeds["product"]), median(speeds["packaged"])
        detail = {"product MB/s": product, "packaged MB/s": packaged}
        for arm, counts in spent.items():
            moved = SCANNED_MB * streams * ROUNDS / 100
            detail |= {f"{arm}: {name}, s per 100 MB": value / moved for name, value in counts.most_common(7)}
        text = f"clear HTTP scanned whole, {streams} stream{'s' * (streams > 1)}, of packaged"
        found.append(Figure(f"http_{streams}", text, product / packaged, "x", 1.0, "at least", detail))
    return found


def _in_turn(
    arms: Arms, url: str, streams: int, size: int, names: tuple[str, ...], spent: dict[str, Counter[str]] | None = None
) -> dict[str, list[float]]:
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for _round in range(ROUNDS):
        for name in names:
            lab: Lab = getattr(arms, name)
            before, kernel = cpu_seconds(lab), kernel_seconds()
            speeds[name].append(_download(lab, url, streams, size))
            if spent is not None:
                used = cpu_seconds(lab)
                used.subtract(before)
                used["(interrupts)"] = kernel_seconds() - kernel  # type: ignore[assignment]
                spent.setdefault(name, Counter()).update(used)
    return speeds


def _download(lab: Lab, url: str, streams: int, size: int) -> float:
    """Megabytes a second of all streams together."""
    argv = ["curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", "--cacert", str(lab.lay.web_ca), url]
    began = time.perf_counter()
    running = [lab.popen("lan", argv) for _ in range(streams)]
    try:
        outputs = [curl.communicate(timeout=_TIMEOUT_S)[0].decode() for curl in running]
    except subprocess.TimeoutExpired as err:
        raise DeviceFault(f"{url} did not arrive within {_TIMEOUT_S} s in {lab.lay.name}.") from err
    finally:
        for curl in running:
            curl.kill()
    took = time.perf_counter() - began
    if outputs != [str(size)] * streams:
        raise DeviceFault(f"{url} did not arrive whole in {lab.lay.name}: {outputs}")
    return size * streams / took / 1e6
