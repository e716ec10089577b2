"""The same downloads through the box and through a scanning proxy, in turn: speed, time of one file, memory."""

from __future__ import annotations

from sekisho.bench import proxy
from sekisho.bench.arms import SCANNED_MB, STREAMS, Arms, offer, programs, renew
from sekisho.bench.figures import Figure, median, percentile
from sekisho.bench.latency import FETCHES, SIZE, fetch
from sekisho.bench.latency import offer as offer_small
from sekisho.bench.processes import rss_mb
from sekisho.bench.throughput import download
from sekisho.lab import layout
from sekisho.lab.lab import Lab

ROUNDS = 4
BLOCKS = 5
NAME = "squid + c-icap + ClamAV"
NOTE = (
    "squid's bug 5352 makes it stall where c-icap withholds everything until the verdict: measured with c-icap "
    "answering from the first kilobyte, so up to 5 % of a file is with the client before its verdict."
)


def proxied(arms: Arms) -> list[Figure]:
    """Nothing when the programs are not installed; the report's notes say so."""
    if not proxy.installed():
        return []
    with proxy.standing(f"{arms.product.lay.name}-x") as other:
        offer(other)
        both = {"box": arms.product, "proxy": other}
        return [*_speed(both), _latency(both), _memory(both)]


def _speed(both: dict[str, Lab]) -> list[Figure]:
    url = f"http://{layout.SERVER4}/clean/{SCANNED_MB}m-{{}}.bin"
    found = []
    for streams in (1, STREAMS):
        speeds: dict[str, list[float]] = {name: [] for name in both}
        for _round in range(ROUNDS):
            for name, lab in both.items():
                renew(lab)
                speeds[name].append(download(lab, url, streams, SCANNED_MB * 1_000_000))
        ratio = median([ours / theirs for ours, theirs in zip(speeds["box"], speeds["proxy"], strict=True)])
        detail = {f"{name} MB/s": median(values) for name, values in speeds.items()}
        text = f"clear HTTP scanned whole, {streams} stream{'s' * (streams > 1)}, of {NAME}"
        found.append(Figure(f"proxy_http_{streams}", text, ratio, "x", 1.0, "at least", detail))
    return found


def _latency(both: dict[str, Lab]) -> Figure:
    seconds: dict[str, list[float]] = {name: [] for name in both}
    for _block in range(BLOCKS):
        for name, lab in both.items():
            offer_small(lab, programs(FETCHES * SIZE))
            seconds[name] += fetch(lab)
    detail: dict[str, float] = {}
    for name, values in seconds.items():
        detail |= {f"{name} p50 ms": median(values) * 1e3, f"{name} p99 ms": percentile(values, 99) * 1e3}
    ratio = median(seconds["box"]) / median(seconds["proxy"])
    return Figure("proxy_latency", f"a clean 1 MB file, p50, of {NAME}", ratio, "x", 1.0, "at most", detail)


def _memory(both: dict[str, Lab]) -> Figure:
    ours, theirs = rss_mb(both["box"]), rss_mb(both["proxy"])
    detail = {f"{name} MB": theirs.get(name, 0.0) for name in proxy.PROGRAMS}
    detail |= {f"box: {name} MB": ours.get(name, 0.0) for name in ("suricata", "inspect")}
    text = f"{NAME}, resident, ClamAV with one signature"
    return Figure(
        "proxy_memory", text, sum(theirs.get(name, 0.0) for name in proxy.PROGRAMS), "MB", 0, "report", detail
    )
