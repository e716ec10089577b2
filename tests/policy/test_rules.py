"""What the engine itself says of requests under a policy: which are refused, for what, and which pass."""

from __future__ import annotations

import random
from pathlib import Path

import idna
import pytest
from policywire import (
    INSIDE6,
    NOON,
    OUTSIDE,
    OUTSIDE6,
    Capture,
    Said,
    client_hello,
    hear,
    initials,
    listen,
    question,
    request,
)

from sekisho.policy.selectors import Roster

GAMBLING = '[[url_category]]\ncategories = ["gambling"]\n'
V6 = {"client": INSIDE6, "server": OUTSIDE6}


@pytest.fixture
def capture() -> Capture:
    return Capture()


def refused(policy: str, capture: Capture, work: Path, **more: object) -> set[str]:
    return {said.name for said in hear(policy, capture, work, **more) if said.action == "block"}  # type: ignore[arg-type]  # passed through


def test_a_listed_name_is_refused_in_every_protocol_and_spelling(tmp_path: Path) -> None:
    own = '[[category]]\nname = "own"\ndomains = ["bad.test", "deep.sub.name.test", "日本語.test"]\n'
    policy = own + '[[url_category]]\ncategories = ["own"]\n'
    bad, good = Capture(), Capture()
    for host in ("bad.test", "WWW.Bad.TEST", "a.b.c.d.e.f.bad.test", "bad.test.", "bad.test...", "bad.test:8080",
                 " bad.test", "x.deep.sub.name.test", "xn--wgv71a119e.test"):  # fmt: skip
        bad.get(f"http {host}", host)
    for host in ("bad.test", "WwW.bAd.TeSt", "bad.test.", "xn--wgv71a119e.test"):
        if not host.endswith("."):
            bad.tls(f"tls {host}", host)
        bad.dns(f"dns {host}", host.rstrip("."))
    bad.tcp("tls in pieces", 443, client_hello("www.bad.test"), cut=60)
    bad.tcp("tls elsewhere", 8443, client_hello("www.bad.test"))
    bad.tls("tls v6", "bad.test", **V6)
    bad.get("http v6", "bad.test", **V6)
    bad.dns("dns v6", "bad.test", client=INSIDE6)
    bad.dns("dns https", "bad.test", 65)
    asked = question("bad.test")
    bad.tcp("dns over tcp", 53, len(asked).to_bytes(2, "big") + asked)
    bad.tcp("second request", 80, request("good.test"), request("bad.test"))
    bad.tcp("pipelined", 80, request("good.test") + request("bad.test") + request("good.test"))
    bad.tcp("in pieces", 80, request("bad.test"), cut=7)
    bad.get("absolute", "good.test", "http://bad.test/x")
    bad.get("host differs", "bad.test", "http://good.test/x")
    bad.get("two hosts", b"good.test\r\nHost: bad.test")
    bad.get("two hosts, other order", b"bad.test\r\nHost: good.test")
    bad.get("user in host", "u@bad.test")
    bad.tcp("connect", 8080, request("bad.test:443", "bad.test:443", b"CONNECT %s HTTP/1.1"))
    bad.tcp("http 1.0", 80, request("bad.test", "/", b"GET %s HTTP/1.0"))
    bad.tcp("post", 8000, request("bad.test", "/", b"POST %s HTTP/1.1"))
    for host in (
        "good.test",
        "notbad.test",
        "bad.test.good.test",
        "test",
        "sub.name.test",
        "[2001:db8::1]",
        "192.0.2.1",
    ):
        good.get(f"http {host}", host)
    for host in ("notbad.test", "bad.test.good.test"):
        good.tls(f"tls {host}", host)
        good.dns(f"dns {host}", host)
    good.get("path", "good.test", "/bad.test/?q=bad.test")
    good.get("absolute and same", "good.test", "http://good.test/x")
    assert refused(policy, bad, tmp_path / "bad") == set(bad.names.values())
    assert hear(policy, good, tmp_path / "good") == []


def test_what_is_only_to_be_logged_is_not_refused_and_dns_may_differ(tmp_path: Path, capture: Capture) -> None:
    capture.get("http", "www.gambling.sekisho.test")
    capture.dns("dns", "www.gambling.sekisho.test")
    said = hear(GAMBLING + 'action = "log"\n', capture, tmp_path / "log")
    assert {(one.name, one.action) for one in said} == {("http", "log"), ("dns", "log")}
    said = hear(GAMBLING + 'dns = "log"\n', capture, tmp_path / "dns")
    assert {(one.name, one.action) for one in said} == {("http", "block"), ("dns", "log")}
    assert refused(GAMBLING + 'dns = "off"\n', capture, tmp_path / "off") == {"http"}


def test_a_group_is_whoever_has_its_addresses_now(tmp_path: Path, capture: Capture) -> None:
    groups = (
        '[[group]]\nname = "kids"\ndevices = ["02:00:00:00:00:0a", "192.168.7.77"]\n'
        '[[group]]\nname = "guests"\ndevices = ["192.168.9.0/24", "fd00:9::/64"]\n'
        '[[group]]\nname = "printers"\nkinds = ["printer"]\n'
    )
    policy = groups + GAMBLING + 'groups = ["kids", "guests", "printers"]\n'
    roster = Roster(
        {"192.168.7.10": "02:00:00:00:00:0a", "fd00::10": "02:00:00:00:00:0a", "192.168.7.30": "02:00:00:00:00:0c"},
        {"02:00:00:00:00:0c": "printer"},
    )
    inside = {"mac": "192.168.7.10", "address": "192.168.7.77", "network": "192.168.9.5", "kind": "192.168.7.30"}
    for name, client in inside.items():
        capture.get(f"http {name}", "gambling.sekisho.test", client=client)
        capture.tls(f"tls {name}", "gambling.sekisho.test", client=client)
        capture.dns(f"dns {name}", "gambling.sekisho.test", client=client)
    capture.get("http v6", "gambling.sekisho.test", **V6)
    capture.get("http net v6", "gambling.sekisho.test", client="fd00:9::7", server=OUTSIDE6)
    wanted = set(capture.names.values())
    capture.get("stranger", "gambling.sekisho.test", client="192.168.7.99")
    capture.dns("stranger v6", "gambling.sekisho.test", client="fd00::99")
    assert refused(policy, capture, tmp_path, roster=roster) == wanted


@pytest.mark.parametrize(("hour", "wanted"), [(12, {"http", "tls", "dns", "word"}), (20, set())])
def test_a_schedule_is_a_switch_in_the_lists(hour: int, wanted: set[str], tmp_path: Path, capture: Capture) -> None:
    policy = '[[schedule]]\nname = "work"\ntimes = ["mon-fri 09:00-18:00"]\n' + GAMBLING + 'schedule = "work"\n'
    policy += '[[keyword]]\nname = "w"\nwords = ["casino"]\nschedule = "work"\n'
    capture.get("http", "gambling.sekisho.test")
    capture.tls("tls", "gambling.sekisho.test")
    capture.dns("dns", "gambling.sekisho.test")
    capture.get("word", "good.test", "/casino")
    assert refused(policy, capture, tmp_path, now=NOON.replace(hour=hour)) == wanted


def test_keywords_are_found_in_every_encoding_and_not_elsewhere(tmp_path: Path) -> None:
    policy = '[[keyword]]\nname = "w"\nwords = ["カジノ", "Casino", "free money"]\n'
    bad, good = Capture(), Capture()
    for encoding in ("utf-8", "cp932", "euc_jp"):
        raw = "カジノ".encode(encoding)
        quoted = "".join(f"%{byte:02x}" for byte in raw)
        bad.get(f"raw {encoding}", "k.test", b"/a/" + raw)
        bad.get(f"path {encoding}", "k.test", f"/a/{quoted}/b")
        bad.get(f"query {encoding}", "k.test", f"/?q={quoted.upper()}&x=1")
    for target in ("/CASINO", "/?q=%63asino", "/x%2543asino", "/?q=free+money", "/?q=free%20money"):
        bad.get(target, "k.test", target)
    bad.get("host", "my-casino.test")
    bad.tls("sni", "My-CASINO.test")
    bad.dns("dns", "casino.test")
    bad.tls("punycode", idna.encode("カジノ").decode() + ".test")
    good.get("other", "k.test", "/カシノ/cas-ino?q=freemoney")
    good.tls("other sni", "casin.test")
    assert refused(policy, bad, tmp_path / "bad") == set(bad.names.values())
    assert hear(policy, good, tmp_path / "good") == []


def test_urls_hosts_and_numbers_of_the_web_guard(tmp_path: Path) -> None:
    policy = (
        '[[web_guard]]\nname = "own"\ndomains = ["evil.test"]\naddresses = ["203.0.113.0/30"]\n'
        'urls = ["http://shop.test/login.php", "http://shop.test/x?id=7", "http://deep.test/a/b/c/d/e/f.exe",'
        ' "http://dir.test/kit/", "http://198.51.100.5/p.bin", "http://enc.test/a%20b"]\n'
    )
    bad, good = Capture(), Capture()
    for host, target in (
        ("shop.test", "/login.php"), ("www.shop.test", "/login.php?x=1"), ("shop.test", "/x?id=7"),
        ("deep.test", "/a/b/c/d/e/f.exe"), ("dir.test", "/kit/x/y"), ("dir.test", "/kit"), ("198.51.100.5", "/p.bin"),
        ("enc.test", "/a%20b"), ("evil.test", "/"), ("SHOP.test.", "/l%6fgin.php"), ("shop.test", "//login.php"),
        ("shop.test", "/a/../login.php"),
    ):  # fmt: skip
        bad.get(host + target, host, target)
    bad.tls("tls", "www.evil.test")
    for host, target in (("shop.test", "/"), ("shop.test", "/login.phpx"), ("shop.test", "/x?id=8"),
                         ("deep.test", "/a/b/c/d/e"), ("dir.test", "/kits"), ("other.test", "/login.php")):  # fmt: skip
        good.get(host + target, host, target)
    good.tls("tls", "shop.test")
    assert refused(policy, bad, tmp_path / "bad") == set(bad.names.values())
    assert hear(policy, good, tmp_path / "good") == []


def test_applications_by_name_and_by_protocol(tmp_path: Path, capture: Capture) -> None:
    policy = '[[application]]\napplications = ["youtube", "ssh", "bittorrent"]\n'
    capture.tls("tls", "r1---sn.googlevideo.com")
    capture.dns("dns", "www.youtube.com")
    ping = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:%s1:y1:qe"
    capture.udp("dht", 6881, ping % b"aa", ping % b"ab")
    wanted = set(capture.names.values())
    capture.tls("other", "www.google.com")
    assert refused(policy, capture, tmp_path) == wanted


EXCEPTION = '[[exception]]\nid = "ok"\nreason = "needed"\nfunction = "url_category"\n'
CATEGORY = '[[category]]\nname = "own"\ndomains = ["bad.test"]\n[[url_category]]\ncategories = ["own"]\n'


def test_an_exception_lets_its_destination_pass_and_is_counted(tmp_path: Path, capture: Capture) -> None:
    policy = CATEGORY + EXCEPTION + 'domains = ["ok.bad.test"]\n'
    capture.get("http ok", "www.ok.bad.test")
    capture.tls("tls ok", "ok.bad.test")
    capture.dns("dns ok", "ok.bad.test")
    capture.get("http", "www.bad.test")
    capture.tls("tls", "bad.test")
    capture.dns("dns", "bad.test")
    capture.tcp("then bad", 80, request("ok.bad.test"), request("bad.test"))
    capture.tcp("then bad, pipelined", 80, request("ok.bad.test") + request("bad.test"))
    capture.tcp("then ok", 80, request("bad.test"), request("ok.bad.test"))
    capture.tcp("http ok in pieces", 80, request("ok.bad.test"), cut=7)
    capture.tcp("tls ok in pieces", 443, client_hello("ok.bad.test"), cut=50)
    capture.tcp("in pieces, then bad", 80, request("ok.bad.test"), request("bad.test"), cut=7)
    said = hear(policy, capture, tmp_path)
    passed = [one for one in said if one.exception]
    assert {one.name for one in said if one.action == "block"} == {
        "http", "tls", "dns", "then bad", "then bad, pipelined", "then ok", "in pieces, then bad",
    }  # fmt: skip
    assert sorted(one.name for one in passed) == sorted(
        [
            "http ok",
            "tls ok",
            "dns ok",
            "then bad",
            "then bad, pipelined",
            "then ok",
            "http ok in pieces",
            "tls ok in pieces",
            "in pieces, then bad",
        ]
    )
    assert set(passed) >= {Said("http ok", "url_category", "own", "log", "ok")}


def test_an_exception_from_a_keyword_is_one_of_hosts(tmp_path: Path, capture: Capture) -> None:
    policy = (
        '[[keyword]]\nname = "w"\nwords = ["casino"]\n[[exception]]\nid = "ok"\nreason = "r"\nfunction = "keyword"\n'
    )
    policy += 'domains = ["ok.test"]\n'
    capture.get("ok", "www.ok.test", "/casino")
    capture.tcp("ok in pieces", 80, request("ok.test", "/casino"), cut=9)
    capture.get("bad", "other.test", "/casino")
    capture.tcp("bad in pieces", 80, request("other.test", "/casino"), cut=9)
    capture.get("bad, no dot", "other", "/casino")
    capture.get("plain", "ok.test", "/")
    said = hear(policy, capture, tmp_path)
    assert {(one.name, one.action) for one in said} == {
        ("ok", "log"), ("ok in pieces", "log"),
        ("bad", "block"), ("bad in pieces", "block"), ("bad, no dot", "block"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("what", "passes"),
    [
        ('groups = ["boss"]\n', {"boss"}),
        (f'addresses = ["{OUTSIDE}"]\n', {"boss", "other"}),
        ('addresses = ["198.51.100.0/24"]\n', set()),
        ('groups = ["boss"]\naddresses = ["198.51.100.0/24"]\n', set()),
        ('entry = "own"\n', {"boss", "other"}),
        ('entry = "games"\n', set()),
        ("expires = 2026-11-18\n", {"boss", "other"}),
        ("expires = 2026-11-17\n", set()),
    ],
)
def test_an_exception_is_rule_by_device_by_destination_until_its_end(
    what: str, passes: set[str], tmp_path: Path, capture: Capture
) -> None:
    group = '[[group]]\nname = "boss"\ndevices = ["192.168.7.77"]\n'
    capture.get("boss", "bad.test", client="192.168.7.77")
    capture.get("other", "bad.test")
    said = hear(group + CATEGORY + EXCEPTION + what, capture, tmp_path)
    assert {one.name for one in said if one.exception} == passes
    assert {one.name for one in said if one.action == "block"} == {"boss", "other"} - passes


def test_quic_is_refused_by_name_also_where_the_hello_takes_two_datagrams(tmp_path: Path, capture: Capture) -> None:
    capture.udp("one", 443, *initials("www.gambling.sekisho.test"))
    capture.udp("two", 443, *initials("www.gambling.sekisho.test", padding=1400))
    capture.udp("v6", 443, *initials("www.gambling.sekisho.test"), client=INSIDE6)
    wanted = set(capture.names.values())
    capture.udp("other", 443, *initials("www.example.com"))
    assert refused(GAMBLING, capture, tmp_path / "name") == wanted
    assert refused('quic = "block"\n', capture, tmp_path / "all") == wanted | {"other"}


def test_a_hundred_thousand_names_cost_less_than_40_mb(tmp_path: Path, capture: Capture) -> None:
    source = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    ends = (".com", ".co.jp", ".example.org", ".a.b.example")
    listed = ["".join(source.choices(letters, k=source.randint(5, 15))) + source.choice(ends) for _ in range(100_000)]
    (tmp_path / "names.txt").write_text("\n".join(listed))
    policy = '[[category]]\nname = "own"\nfiles = ["names.txt"]\n[[url_category]]\ncategories = ["own"]\n'
    for host in listed[::5000]:
        capture.get(host, f"www.{host}")
    said, with_names = listen(policy, capture, tmp_path)
    assert {one.name for one in said} == set(listed[::5000])
    _, without = listen("", capture, tmp_path / "none")
    assert with_names - without < 40


def test_any_host_is_refused_exactly_when_a_listed_name_covers_it(tmp_path: Path, capture: Capture) -> None:
    source = random.Random()
    labels = ["a", "b", "shop", "x1", "w-w", "_s", "example"]
    names = {".".join(source.choices(labels, k=source.randint(2, 5))) + ".test" for _ in range(12)}
    hosts = {".".join(source.choices(labels, k=source.randint(1, 6))) + ".test" for _ in range(150)}
    hosts |= {"x" + name for name in names} | {"a." + name for name in names} | {name + ".a" for name in names}
    for host in sorted(hosts):
        spelt = "".join(source.choice((letter, letter.upper())) for letter in host)
        capture.get(f"http {host}", spelt)
        capture.dns(f"dns {host}", spelt)
    listed = ", ".join(f'"{name}"' for name in sorted(names))
    policy = f'[[category]]\nname = "own"\ndomains = [{listed}]\n[[url_category]]\ncategories = ["own"]\n'
    covered = {host for host in hosts if any(host == name or host.endswith("." + name) for name in names)}
    said = hear(policy, capture, tmp_path)
    assert sorted(one.name for one in said) == sorted(f"{way} {host}" for host in covered for way in ("http", "dns")), (
        names
    )


def test_a_signature_blocks_by_policy_and_not_where_it_is_excepted(tmp_path: Path, capture: Capture) -> None:
    rule = 'alert http any any -> any any (msg:"t"; flow:to_server; http.uri; content:"/evil"; sid:77; rev:1;)'
    text = '[[signatures]]\naction = "block"\nsids = [77]\n[[exception]]\nid = "lab"\nreason = "r"\nsids = [77]\n'
    text += 'domains = ["lab.test"]\naddresses = ["198.51.100.0/24"]\n'
    capture.get("bad", "x.test", "/evil")
    capture.get("by name", "www.lab.test", "/evil")
    capture.get("by address", "x.test", "/evil", server="198.51.100.7")
    capture.get("by name, elsewhere", "x.test", "/evil?lab.test")
    said = hear(text, capture, tmp_path, signatures=(rule,))
    assert {(one.name, one.action, one.exception) for one in said} == {
        ("bad", "block", ""), ("by name, elsewhere", "block", ""),
        ("by name", "log", "lab"), ("by address", "log", "lab"),
    }  # fmt: skip
