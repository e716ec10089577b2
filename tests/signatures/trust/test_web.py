"""A box reads files from servers and through lines of every kind of bad."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import Answer, Hostile, cut, drip, gzip_bomb, redirect, stall, wrong_range

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.trust import ChannelDown, ChannelRefused, Limits, Web

DATA = bytes(range(256)) * 400
QUICK = Limits(gap_s=0.2, head_s=0.3, small_s=0.4, rate=100_000, window_s=0.3)


@pytest.fixture
def server() -> Iterator[Hostile]:
    with Hostile({}) as made:
        yield made


def read(web: Web, url: str, cap: int = 1 << 20, *, start: int = 0, etag: str = "", bulk: bool = False) -> bytes:
    with web.read(url, cap, start=start, etag=etag, bulk=bulk) as reply:
        assert reply.start == start
        return b"".join(reply.chunks)


def refused(web: Web, url: str, bulk: bool = False) -> str:
    """The code of what went wrong."""
    try:
        read(web, url, bulk=bulk)
    except (ChannelDown, ChannelRefused) as err:
        return err.code
    raise AssertionError("it was taken")


def test_requests_share_one_connection_and_a_server_that_hung_up_meanwhile_is_called_again(server: Hostile) -> None:
    server.answers = {"/a": Answer(DATA), "/b": Answer(b"")}
    web = Web(server.url, limits=Limits())
    assert read(web, f"{server.url}/a") == DATA
    assert read(web, f"{server.url}/b") == b""
    assert read(web, f"{server.url}/a") == DATA
    assert server.connections == 1
    server.answers["/a"] = Answer(DATA, head=b"HTTP/1.1 200 x\r\nContent-Length: %d\r\n\r\n" % len(DATA))
    assert read(web, f"{server.url}/a") == DATA  # the server hangs up after this one
    assert read(web, f"{server.url}/a") == DATA
    assert server.connections == 2


def test_a_file_that_is_not_there_costs_no_new_connection(server: Hostile) -> None:
    server.answers = {"/a": Answer(b"not found\n", 404), "/b": Answer(DATA)}
    web = Web(server.url, limits=Limits())
    assert refused(web, f"{server.url}/a") == "unreachable"
    assert read(web, f"{server.url}/b") == DATA
    assert server.connections == 1


def test_the_rest_of_a_cut_file_is_fetched_from_where_it_broke(server: Hostile) -> None:
    server.answers["/a"] = [cut(DATA, 5000), Answer(DATA, headers={"ETag": '"1"'})]
    web = Web(server.url, limits=Limits())
    got = b""
    with pytest.raises(ChannelDown) as down, web.read(f"{server.url}/a", 1 << 20, bulk=True) as reply:
        for chunk in reply.chunks:
            got += chunk
    assert (down.value.code, got, reply.etag) == ("unreachable", DATA[:5000], '"1"')
    assert got + read(web, f"{server.url}/a", start=5000, etag=reply.etag, bulk=True) == DATA
    assert server.asked[-1][1]["range"] == "bytes=5000-"


def test_a_file_that_changed_meanwhile_is_begun_anew(server: Hostile) -> None:
    server.answers["/a"] = Answer(DATA, headers={"ETag": '"2"'})
    web = Web(server.url, limits=Limits())
    with web.read(f"{server.url}/a", 1 << 20, start=5000, etag='"1"') as reply:
        assert (reply.start, reply.etag, b"".join(reply.chunks)) == (0, '"2"', DATA)


@pytest.mark.parametrize("said", ["bytes 0-102399/102400", "bytes 5000-6000/102400", "bytes 5000-102399/*", "x", ""])
def test_another_part_than_was_asked_for_is_not_taken(server: Hostile, said: str) -> None:
    server.answers["/a"] = wrong_range(DATA, said)
    web = Web(server.url, limits=Limits())
    with pytest.raises(ChannelDown) as down, web.read(f"{server.url}/a", 1 << 20, start=5000, etag='"1"'):
        pass
    assert down.value.code == "bad_answer"


@pytest.mark.parametrize(
    "answer",
    [
        stall(DATA, 0),
        stall(DATA, 3000),
        drip(DATA, 0.02),
        drip(b"", 0.1),
        Answer(DATA, drip=0.05, head=b"HTTP/1.1 200 x\r\n\r\n"),
        Answer(b"", head=b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 60, drip=0.02),
    ],
    ids=["silent", "stalls", "drips", "drips its head", "drips without a length", "drips chunk sizes"],
)
@pytest.mark.parametrize("bulk", [False, True], ids=["small", "large"])
def test_a_slow_server_is_left_after_the_time_it_has(server: Hostile, answer: Answer, bulk: bool) -> None:
    server.answers["/a"] = answer
    began = time.monotonic()
    assert refused(Web(server.url, limits=QUICK), f"{server.url}/a", bulk=bulk) == "slow"
    assert time.monotonic() - began < 4


def test_a_large_file_may_take_as_long_as_it_comes_at_the_least_rate(server: Hostile) -> None:
    server.answers["/a"] = Answer(DATA[:150], drip=0.005)
    slow_line = Limits(gap_s=0.4, head_s=3, small_s=0.5, rate=30, window_s=0.5)
    assert read(Web(server.url, limits=slow_line), f"{server.url}/a", bulk=True) == DATA[:150]
    assert refused(Web(server.url, limits=slow_line), f"{server.url}/a") == "slow"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(DATA, endless=True), "too_large"),
        (Answer(bytes(2 << 20)), "too_large"),
        (Answer(b"", headers={"Content-Length": str(1 << 60)}), "too_large"),
        (gzip_bomb(10 << 20), "bad_answer"),
        (redirect("/a"), "bad_answer"),
        (redirect("https://elsewhere.example/"), "bad_answer"),
        (Answer(b"", 500), "unreachable"),
        (Answer(b"", 404), "unreachable"),
        (Answer(b"", head=b"SSH-2.0-x\r\n\r\n"), "bad_answer"),
        (Answer(b"", head=b"HTTP/1.1 200 x\r\n" + b"a: b\r\n" * 300 + b"\r\n"), "bad_answer"),
        (Answer(b"", head=b"HTTP/1.1 200 " + b"x" * 100_000), "bad_answer"),
        (Answer(b"", head=b""), "unreachable"),
        (Answer(b"zz\r\n", head=b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n"), "unreachable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_the_file_is_not_taken_for_it(server: Hostile, answer: Answer, code: str) -> None:
    server.answers["/a"] = answer
    web = Web(server.url, limits=Limits())
    assert refused(web, f"{server.url}/a") == code
    server.answers["/a"] = Answer(DATA)
    assert read(web, f"{server.url}/a") == DATA


def test_a_file_that_was_not_there_a_moment_ago_is_read_when_it_is(server: Hostile) -> None:
    server.answers["/a"] = [Answer(b"", 404), Answer(DATA)]
    web = Web(server.url, limits=Limits())
    assert refused(web, f"{server.url}/a") == "unreachable"
    assert read(web, f"{server.url}/a") == DATA


def test_who_reads_may_fail_without_the_server_being_blamed(server: Hostile) -> None:
    server.answers["/a"] = Answer(DATA)
    web = Web(server.url, limits=Limits())
    with pytest.raises(OSError, match="disk"), web.read(f"{server.url}/a", 1 << 20):
        raise OSError("disk")


def test_nobody_listens() -> None:
    with Hostile({}) as gone:
        pass
    assert refused(Web(gone.url, limits=Limits()), f"{gone.url}/a") == "unreachable"


@pytest.mark.parametrize(
    "url", ["http://updates.example", "ftp://updates.example", "updates", "https://", "http://8.8.8.8"]
)
def test_only_https_is_an_address_of_a_channel(url: str) -> None:
    with pytest.raises(RejectedInput, match="https"):
        Web(url)


def test_a_certificate_file_that_is_none_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    with pytest.raises(RejectedInput, match="channel_ca"):
        Web("https://updates.example", ca=str(tmp_path / "ca.pem"))
