"""Every common public list format gives the same names; what is none is counted; hostile files are refused in time."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core.errors import RejectedInput
from sekisho.policy import lists, names

HOSTS = "# a comment\n127.0.0.1 localhost\n0.0.0.0 ads.example.com tracker.example.net # note\n::1 ip6-localhost\n"
PLAIN = "ads.example.com\n*.tracker.example.net\n\n; comment\n"
ADBLOCK = "[Adblock Plus]\n! x\n||ads.example.com^\n||tracker.example.net^$important\n"
RPZ = (
    "$TTL 60\n$ORIGIN rpz.test.\n@ SOA a. b. 1 2 3 4 5\n  NS localhost.\n"
    "ads.example.com CNAME .\n*.ads.example.com CNAME .\ntracker.example.net.rpz.test. 60 IN A 127.0.0.1\n"
    "good.example CNAME rpz-passthru.\n"
)
CSV = 'id,when,host\n1,"2026-01-01 10:00","ads.example.com"\n2,x,tracker.example.net\n'
WANTED = {"ads.example.com", "tracker.example.net"}


def read(tmp_path: Path, data: bytes | str, name: str = "list.txt") -> lists.Names:
    (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return lists.read(name, tmp_path)


@pytest.mark.parametrize("text", [HOSTS, PLAIN, ADBLOCK, RPZ, CSV], ids=["hosts", "plain", "adblock", "rpz", "csv"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_each_format_gives_the_same_names(tmp_path: Path, text: str, pack: object) -> None:
    assert callable(pack)
    assert read(tmp_path, pack(text.encode())).domains == WANTED


def archive(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_ut1_layout_gives_the_part_that_is_asked_for(tmp_path: Path) -> None:
    members = {"bl/adult/domains": b"a.example\n198.51.100.9\n", "bl/adult/urls": b"b.example/x/y.html\n",
               "bl/games/domains": b"c.example\n", "bl/adult/readme": b"d.example\n"}  # fmt: skip
    (tmp_path / "ut1.tar.gz").write_bytes(archive(members))
    whole = lists.read("ut1.tar.gz", tmp_path)
    adult = lists.read("ut1.tar.gz", tmp_path, "adult")
    games = lists.read("ut1.tar.gz#games", tmp_path, "adult")
    assert whole.domains == {"a.example", "c.example"}
    assert (adult.domains, adult.urls, adult.addresses) == (
        {"a.example"}, {("b.example", b"/x/y.html")}, {"198.51.100.9/32"},
    )  # fmt: skip
    assert games.domains == {"c.example"}
    for name, data in members.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert lists.read("bl", tmp_path, "adult") == adult


def test_urls_addresses_and_networks(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "http://Bad.Example/a%20b?q=1\nhttps://whole.example/\nhttp://192.0.2.7/x.exe\n203.0.113.0/24 ; SBL1\n"
        "2001:db8::/32\n192.0.2.99\n24.0.113.0.203.rpz-ip CNAME .\n128.1.zz.db8.2001.rpz-ip CNAME .\n",
    )
    assert found.urls == {("bad.example", b"/a b?q=1"), ("192.0.2.7", b"/x.exe")}
    assert found.domains == {"whole.example"}
    assert found.addresses == {"203.0.113.0/24", "2001:db8::/32", "192.0.2.99/32", "2001:db8::1/128"}


def test_international_names_are_punycode_and_stray_words_are_counted(tmp_path: Path) -> None:
    found = read(
        tmp_path, "日本語.EXAMPLE\nＡＢＣ.example。\ncom\n*.zip\n-\nexa mple\n@@||x.example^\nx.example##.ad\n"
    )
    assert found.domains == {"xn--wgv71a119e.example", "abc.example", "zip"}
    assert found.unused == 5


def test_names_covered_by_another_are_left_out_and_numbers_have_no_parents() -> None:
    assert names.pruned(["a.b.example", "b.example", "ab.example", "c.d.e"]) == {"b.example", "ab.example", "c.d.e"}
    assert list(names.parents("192.0.2.1")) == []
    assert names.by_depth(["b.example", "x.b.test", "a.example"]) == {2: ["a.example", "b.example"], 3: ["x.b.test"]}


def test_an_owners_own_word_must_mean_something() -> None:
    assert lists.from_words(["Bad.Example.", "http://x.example/y"]).domains == {"bad.example"}
    with pytest.raises(ValueError, match="no dot"):
        lists.from_words(["no dot"])


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(b"a.example\n" * 50)[:-20],
        gzip.compress(bytes(lists.MAX_BYTES + 10)),
        archive({"x/domains": b"a.example\n" * 200})[:90],
        archive({"../../evil": b"a.example\n"}),
    ],
    ids=["cut off", "bomb", "cut tar", "tar without lists"],
)
def test_damaged_files_and_bombs_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(RejectedInput):
        read(tmp_path, data)


def test_a_line_without_an_end_is_one_unusable_line(tmp_path: Path) -> None:
    found = read(tmp_path, b"x" * 3_000_000 + b"\na.example\n")
    assert (found.domains, found.unused) == ({"a.example"}, 1)


@given(st.lists(st.one_of(st.text(max_size=60), st.sampled_from(HOSTS.splitlines() + RPZ.splitlines()))))
def test_any_lines_give_canonical_names_or_nothing(lines: list[str]) -> None:
    found = lists._parse(lines, Path("x"))
    assert all(names.canonical(name) == name for name in found.domains)
