"""Which way out of an office is tried when: decisions without a socket."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from sekisho.appliance.core import settings
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.settings import Telemetry
from sekisho.telemetry import link
from sekisho.telemetry.link import Link
from sekisho.telemetry.ways import BETTER_S, CAP_S, FIRST_S, HELD_S, Chooser, Way, parse_proxy, plan_ways

PLAIN = Telemetry(host="c.example")
PROXIED = Telemetry(host="c.example", proxy="http://taro:p%40ss@proxy.example:3128")


def least(low: float, _high: float) -> float:
    return low


def most(_low: float, high: float) -> float:
    return high


def test_the_brokers_own_port_is_tried_first_then_the_port_of_https_then_websocket() -> None:
    assert [str(way) for way in plan_ways(PLAIN, ["c.example"])] == [
        "c.example:8883 (MQTT)",
        "c.example:443 (MQTT)",
        "c.example:443 (WebSocket)",
    ]
    assert [way.port for way in plan_ways(msgspec.structs.replace(PLAIN, fallback_port=0), ["c.example"])] == [8883]
    same = plan_ways(msgspec.structs.replace(PLAIN, port=443), ["c.example"])
    assert [str(way) for way in same] == ["c.example:443 (MQTT)", "c.example:443 (WebSocket)"]


def test_a_proxy_comes_before_the_direct_ways_and_never_tells_its_password() -> None:
    ways = plan_ways(PROXIED, ["c.example"])
    assert [bool(way.proxy) for way in ways] == [True] * 3 + [False] * 3
    assert str(ways[0]) == "c.example:8883 (MQTT, through the proxy proxy.example:3128)"
    assert ways[0].proxy and (ways[0].proxy.user, ways[0].proxy.password) == ("taro", "p@ss")
    assert "p@ss" not in f"{ways}" and "taro" not in f"{ways}"
    assert parse_proxy("") is None
    six = parse_proxy("http://[::1]:8080")
    assert six and (six.host, six.port) == ("::1", 8080)


@pytest.mark.parametrize("url", ["https://p:1", "proxy:3128", "http://p", "http://p:x", "http://a b:1", "socks5://p:1"])
def test_a_proxy_that_is_none_is_refused_without_repeating_its_secret(tmp_path: Path, url: str) -> None:
    text = f'box = "b"\n[telemetry]\nproxy = "{url.replace("//", "//u:GEHEIM@")}"\n'
    with pytest.raises(RejectedInput, match="proxy") as refused:
        settings.parse(text)
    assert "GEHEIM" not in str(refused.value)


def test_every_host_is_tried_in_one_kind_before_the_next_kind() -> None:
    ways = plan_ways(PLAIN, ["a", "b"])
    assert [(way.host, way.port) for way in ways] == [("a", 8883), ("b", 8883)] + [("a", 443), ("b", 443)] * 2
    assert [way.rank for way in ways] == [0, 0, 1, 1, 2, 2]


def tried(chooser: Chooser, now: float) -> Way:
    way = chooser.next(now)
    assert way is not None
    return way


def test_what_worked_is_tried_first_and_the_others_after_it() -> None:
    ways = plan_ways(PLAIN, ["c.example"])
    chooser = Chooser(ways, least)
    for expected in (0, 1, 2):
        assert tried(chooser, 0.0) is ways[expected]
        if expected < 2:
            chooser.failed(0.0)
    chooser.connected(ways[2], 0.0)
    chooser.lost(100.0)
    assert chooser.next(100.0) is None
    order = []
    for turn in range(3):
        order.append(tried(chooser, 200.0 + turn))
        chooser.failed(200.0 + turn)
    assert order == [ways[2], ways[0], ways[1]]
    assert tried(Chooser(ways, least, favourite=str(ways[1])), 0.0) is ways[1]
    assert tried(Chooser(ways, least, favourite="what is gone"), 0.0) is ways[0]


@pytest.mark.protocol("P26")
def test_rounds_in_which_nothing_works_are_put_off_longer_each_time_up_to_a_cap() -> None:
    chooser = Chooser(plan_ways(msgspec.structs.replace(PLAIN, fallback_port=0), ["c"]), most)
    now, pauses = 0.0, []
    for _ in range(10):
        tried(chooser, now)
        chooser.failed(now)
        pauses.append(chooser.due_at - now)
        now = chooser.due_at
    assert pauses[0] == 2 * FIRST_S and pauses[-1] == CAP_S
    assert pauses == sorted(pauses)


@pytest.mark.protocol("P26")
def test_a_thousand_boxes_do_not_come_back_in_the_same_instant() -> None:
    ways = plan_ways(PLAIN, ["c"])
    back = []
    for seed in range(1000):
        chooser = Chooser(ways, random.Random(seed).uniform)
        for _ in range(6 * len(ways)):  # an outage of six rounds
            assert chooser.next(1e9)
            chooser.failed(0.0)
        back.append(chooser.due_at)
    per_second = [sum(1 for due in back if second <= due < second + 1) for second in range(31)]
    assert max(per_second) < 150, per_second


def test_who_accepts_and_hangs_up_is_not_called_in_a_tight_loop() -> None:
    ways = plan_ways(PLAIN, ["c"])
    chooser = Chooser(ways, most)
    now = 0.0
    for _ in range(8):
        way = tried(chooser, now)
        chooser.connected(way, now)
        chooser.lost(now + HELD_S / 2)
        now = chooser.due_at
    assert now > 60
    chooser.connected(tried(chooser, now), now)
    chooser.lost(now + HELD_S)
    assert chooser.next(now + HELD_S + 2 * FIRST_S) is not None


def test_better_ways_are_looked_at_now_and_then_while_a_poorer_one_works() -> None:
    ways = plan_ways(PLAIN, ["a", "b"])
    chooser = Chooser(ways, most)
    chooser.connected(ways[3], 0.0)
    assert chooser.to_look_at(BETTER_S) == []
    assert chooser.to_look_at(1.2 * BETTER_S) == ways[:2]
    assert chooser.to_look_at(1.2 * BETTER_S + 1) == []
    chooser.prefer(ways[1])
    chooser.lost(2 * BETTER_S)
    assert tried(chooser, 2 * BETTER_S + 2 * FIRST_S) is ways[1]
    chooser.connected(ways[1], 0.0)
    assert chooser.to_look_at(1.2 * BETTER_S) == []


def test_the_file_about_the_link_changes_only_with_news_and_survives_damage(tmp_path: Path) -> None:
    path = tmp_path / "link.json"
    way = plan_ways(PROXIED, ["c"])[0]
    kept = Link(path)
    assert kept.failed(way, "refused", "t1") is True
    before = path.stat().st_ino
    assert kept.failed(way, "refused", "t2") is False
    assert path.stat().st_ino == before
    assert [trial.since for trial in link.read(path).tried] == ["t1"]
    kept.up(way, "t3")
    assert link.read(path).tried == [] and Link(path).worked == str(way)
    path.write_bytes(b"{")
    assert link.read(path).way == ""
