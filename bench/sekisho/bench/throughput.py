"""Megabytes a second through each arm, in turn (A B C A B C), the median of each, and where the processor time went."""

from __future__ import annotations

import subprocess
import time
from collections import Counter

from sekisho.appliance.core.errors import DeviceFault
from sekisho.bench.arms import SCANNED_MB, STREAMS, Arms, renew
from sekisho.bench.figures import Figure, median
from sekisho.bench.processes import cpu_seconds, kernel_seconds
from sekisho.lab import layout, samples
from sekisho.lab.lab import Lab

ROUNDS = 6
_TIMEOUT_S = 120


def bulk_tls(arms: Arms) -> list[Figure]:
    """One TLS download of 256 MB: encrypted bytes leave for the kernel's path, so the box should cost nothing.

    The bare bridge is taken twice: as the kernel sets a bridge up where br_netfilter is loaded (its hooks run
    and find no rule), and with those hooks off, which no filtering bridge can reach.
    """
    url = f"https://{layout.SERVER4}/bulk.bin"
    spent: dict[str, Counter[str]] = {}
    speeds = _in_turn(arms, url, 1, samples.BULK_BYTES, ("product", "bare", "hookless", "packaged"), spent)
    detail = {f"{name} MB/s": median(values) for name, values in speeds.items()}
    detail |= _shares(spent, samples.BULK_BYTES * ROUNDS, ("product", "hookless"))
    to_bare, to_hookless, to_packaged = (_ratio(speeds, name) for name in ("bare", "hookless", "packaged"))
    return [
        Figure("tls_bare", "bulk TLS, of the bare bridge's speed", to_bare, "x", 0.95, "at least", detail),
        Figure("tls_hookless", "bulk TLS, of a bridge without netfilter hooks", to_hookless, "x", 0.95, "report"),
        Figure("tls_packaged", "bulk TLS, of the packaged configuration's", to_packaged, "x", 3.0, "at least"),
    ]


def clear_http(arms: Arms) -> list[Figure]:
    """Clear-text files that the box scans whole, each new to it, one stream and four at once."""
    found = []
    url = f"http://{layout.SERVER4}/clean/{SCANNED_MB}m-{{}}.bin"
    for streams in (1, STREAMS):
        spent: dict[str, Counter[str]] = {}
        speeds = _in_turn(arms, url, streams, SCANNED_MB * 1_000_000, ("product", "packaged"), spent)
        detail = {f"{name} MB/s": median(values) for name, values in speeds.items()}
        detail |= _shares(spent, SCANNED_MB * 1_000_000 * streams * ROUNDS, ("product", "packaged"))
        text = f"clear HTTP scanned whole, {streams} stream{'s' * (streams > 1)}, of packaged"
        found.append(Figure(f"http_{streams}", text, _ratio(speeds, "packaged"), "x", 1.0, "at least", detail))
    return found


def _ratio(speeds: dict[str, list[float]], other: str) -> float:
    """Median of the rounds' own ratios: what disturbs the machine for minutes disturbs both sides of a round."""
    return median([ours / theirs for ours, theirs in zip(speeds["product"], speeds[other], strict=True)])


def _shares(spent: dict[str, Counter[str]], moved_bytes: float, arms: tuple[str, ...]) -> dict[str, float]:
    return {
        f"{arm}: {name}, s per 100 MB": value / moved_bytes * 1e8
        for arm in arms
        for name, value in spent[arm].most_common()
        if value / moved_bytes * 1e8 >= 0.01
    }


def _in_turn(
    arms: Arms, url: str, streams: int, size: int, names: tuple[str, ...], spent: dict[str, Counter[str]]
) -> dict[str, list[float]]:
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for _round in range(ROUNDS):
        for name in names:
            lab = arms.lab(name)
            renew(lab)
            before, kernel = cpu_seconds(lab), kernel_seconds()
            speeds[name].append(download(lab, url, streams, size))
            used = cpu_seconds(lab)
            used.subtract(before)
            used["(interrupts)"] = kernel_seconds() - kernel  # type: ignore[assignment]
            spent.setdefault(name, Counter()).update(used)
    return speeds


def download(lab: Lab, url: str, streams: int, size: int) -> float:
    """Megabytes a second of all streams together.

    Raises:
        DeviceFault: one did not arrive whole, or not in time.

    """
    argv = ["curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", "--cacert", str(lab.lay.web_ca)]
    began = time.perf_counter()
    running = [lab.popen("lan", [*argv, url.format(number)]) for number in range(streams)]
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
