"""The three arms stand side by side, and each is what it is called: otherwise the ratios compare nothing."""

from __future__ import annotations

import pytest

from sekisho.bench import arms, processes
from sekisho.bench.latency import _client
from sekisho.lab.lab import Lab, names
from sekisho.lab.net import existing


def packets(lab: Lab, queue: int) -> int:
    """Packets that a queue of this lab's box has handed out so far."""
    for line in lab.run("box", ["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout.decode().splitlines():
        fields = line.split()
        if int(fields[0]) == queue:
            return int(fields[7])
    return 0


@pytest.mark.lab
@pytest.mark.timeout(180)
def test_each_arm_does_what_it_is_compared_for() -> None:
    with arms.standing("benchtest", "") as three:
        assert three.rules > 10
        for name, queues in (("product", (0, 1)), ("packaged", (0,)), ("bare", ())):
            lab = three.lab(name)
            before = sum(packets(lab, queue) for queue in queues)
            assert _client(lab, "fetch", "/clean/300k.bin", 2)["short"] == 0
            seen = sum(packets(lab, queue) for queue in queues) - before
            assert seen > 200 if queues else seen == 0, name
        held = packets(three.product, 64)
        with arms.gate_bypassed(three.product):
            _client(three.product, "fetch", "/clean/300k.bin", 2)
            assert packets(three.product, 64) == held
        _client(three.product, "fetch", "/clean/300k.bin", 2)
        assert packets(three.product, 64) > held
        resident = processes.rss_mb(three.product)
        assert all(resident[name] > 5 for name in ("appliance", "inspect", "telemetry", "center", "suricata"))
        assert processes.cpu_seconds(three.product)["suricata"] > 0
    assert not [name for name in (*names(), *existing()) if name.startswith("benchtest-")]
