"""What policies cost: the same work with none and with all of them, 100,000 listed names among them, in turn.

Only the product's lab takes part. A policy is looked at once per request, handshake or question, so the work is many
short connections; one large download stands for what comes after the first packets.
"""

from __future__ import annotations

import random
import string
import sys
import time
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.settings import load
from sekisho.appliance.reload import reload
from sekisho.bench.arms import SCANNED_MB, Arms, renew
from sekisho.bench.figures import Figure, median
from sekisho.bench.processes import rss_mb
from sekisho.bench.throughput import download
from sekisho.lab import layout
from sekisho.lab.lab import Lab
from sekisho.policy import categories

NAMES: Final = 100_000
ROUNDS: Final = 3
CONNECTIONS: Final = 600
_ENDINGS: Final = (".com", ".net", ".co.jp", ".example.org", ".sub.domain.example")
_CLIENT: Final = """
import http.client, ssl, sys, time
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
context = ssl._create_unverified_context()
began = time.perf_counter()
for number in range(count):
    if port == 443:
        link = http.client.HTTPSConnection(host, port, timeout=10, context=context)
    else:
        link = http.client.HTTPConnection(host, port, timeout=10)
    link.request("GET", f"/?{number}", headers={"Host": "www.sekisho.test"})
    answer = link.getresponse()
    assert answer.status == 200, answer.status
    answer.read()
    link.close()
print(count / (time.perf_counter() - began))
"""


def policy(arms: Arms) -> list[Figure]:
    """Connections and megabytes a second with all policies, of those with none; and the engine's memory."""
    lab = arms.product
    rates: dict[tuple[str, bool], list[float]] = {}
    memory: dict[bool, list[float]] = {}
    (lab.lay.policy.parent / "names.txt").write_text("".join(f"{name}\n" for name in _names()))
    pages = "".join(f"http://host{number % 99}.example/path/{number}.exe\n" for number in range(2000))
    (lab.lay.policy.parent / "pages.txt").write_text(pages)
    try:
        for turn in range(ROUNDS):
            for full in (False, True) if turn % 2 == 0 else (True, False):
                _apply(lab, _everything() if full else "")
                memory.setdefault(full, []).append(rss_mb(lab).get("suricata", 0.0))
                for what, rate in _work(lab):
                    rates.setdefault((what, full), []).append(rate)
    finally:
        _apply(lab, "")
    detail = {f"{what}, {'all' if full else 'none'}": median(values) for (what, full), values in rates.items()}
    whats = list(dict.fromkeys(what for what, _ in rates))
    shares = {what: _share(rates[what, True], rates[what, False]) for what in whats}
    worst = min(shares.values())
    detail |= {f"{what}, share": share for what, share in shares.items()}
    detail |= {"engine MB, none": min(memory[False]), "engine MB, all": min(memory[True])}
    return [
        Figure(
            "policy", "speed with all policies, of that with none (worst of 3)", worst, "x", 0.95, "at least", detail
        )
    ]


def _share(ours: list[float], theirs: list[float]) -> float:
    return median([one / other for one, other in zip(ours, theirs, strict=True)])


def _work(lab: Lab) -> list[tuple[str, float]]:
    found = []
    for what, port, count in (("HTTP connections/s", 80, CONNECTIONS), ("TLS connections/s", 443, CONNECTIONS // 2)):
        done = lab.run("lan", [sys.executable, "-c", _CLIENT, layout.SERVER4, str(port), str(count)], timeout_s=120)
        if done.returncode:
            raise DeviceFault(f"The connections failed: {done.stderr.decode()[-200:]}")
        found.append((what, float(done.stdout)))
    renew(lab)
    url = f"http://{layout.SERVER4}/clean/{SCANNED_MB}m-{{}}.bin"
    return [*found, ("HTTP MB/s", download(lab, url, 1, SCANNED_MB * 1_000_000))]


def _apply(lab: Lab, text: str) -> None:
    lab.lay.policy.write_text(text)
    state = reload(load(lab.lay.box_settings))
    if state.refused:
        raise DeviceFault(state.refused)
    time.sleep(1.0)  # memory of the former rules is given back, the lists are filled


def _names() -> list[str]:
    source = random.Random(1)
    letters = string.ascii_lowercase + string.digits
    return ["".join(source.choices(letters, k=source.randint(5, 15))) + source.choice(_ENDINGS) for _ in range(NAMES)]


def _everything() -> str:
    """Every function, for everybody and for a group, at all times and at some."""
    shipped = ", ".join(f'"{name}"' for name in categories.titles())
    words = ", ".join(f'"forbidden{number}"' for number in range(50))
    return f"""
zone = "Asia/Tokyo"
[[group]]
name = "desk"
devices = ["{layout.CLIENT_MAC}", "192.168.0.0/24"]
[[schedule]]
name = "all-day"
times = ["daily 00:00-24:00"]
[[category]]
name = "large"
files = ["names.txt"]
[[url_category]]
categories = ["large"]
[[url_category]]
categories = [{shipped}]
groups = ["desk"]
schedule = "all-day"
[[keyword]]
name = "words"
words = [{words}]
[[application]]
applications = ["tiktok", "line", "youtube", "netflix", "dropbox", "discord", "bittorrent", "ssh", "tor", "zoom"]
[[web_guard]]
name = "pages"
domains = ["evil.example"]
files = ["pages.txt"]
addresses = ["203.0.113.0/24"]
[[exception]]
id = "desk"
reason = "bench"
function = "url_category"
groups = ["desk"]
domains = ["allowed.example"]
"""
