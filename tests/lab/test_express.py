"""The express lane carries what the engine let go, and nothing that it should still see."""

from __future__ import annotations

import hashlib
import re
import textwrap

import pytest

from sekisho.lab import layout
from sekisho.lab.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

TINY = """
import socket, sys
body = bytes.fromhex(sys.argv[1])
s = socket.create_server(("10.77.0.1", 8090)); print("listening", flush=True)
c, _ = s.accept(); c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); c.recv(4096)
c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body))
try:
    for i in range(len(body)): c.sendall(body[i:i+1])
    c.shutdown(socket.SHUT_WR); c.recv(1)
except OSError: pass
"""


def riders(lab: Lab) -> int:
    listed = lab.run("box", ["nft", "list", "counter", "netdev", "sekisho", "express"]).stdout.decode()
    found = re.search(r"packets (\d+)", listed)
    assert found, listed
    return int(found[1])


def fetch(lab: Lab, *arguments: str) -> tuple[int, int]:
    """(curl's exit code, bytes it got)."""
    argv = ["curl", "-sk", "-m", "20", "-o", "/dev/null", "-w", "%{exitcode} %{size_download}", *arguments]
    code, size = lab.run("lan", argv, check=False).stdout.decode().split()
    return int(code), int(size)


@pytest.mark.parametrize("host", [layout.SERVER4, f"[{layout.SERVER6}]"])
def test_a_tls_download_rides_and_arrives_whole(whole: Lab, host: str) -> None:
    before = riders(whole)
    got = (
        whole.run("lan", ["sh", "-c", f"curl -skg -m 20 https://{host}/clean/20m.bin | sha256sum"])
        .stdout.decode()
        .split()[0]
    )
    body = (whole.lay.www / "clean" / "20m.bin").read_bytes()
    assert got == hashlib.sha256(body).hexdigest()
    assert riders(whole) - before > 5000


def test_clear_http_never_rides(whole: Lab) -> None:
    before = riders(whole)
    assert fetch(whole, f"http://{layout.SERVER4}/clean/1m.bin") == (0, 1_000_000)
    assert riders(whole) == before


def test_a_new_connection_between_the_ports_of_a_rider_is_inspected(whole: Lab) -> None:
    """Without the SYN leaving the set, a stale entry would carry the malicious answer past both inspectors."""
    port = "45678"
    client, server = layout.CLIENT4, layout.SERVER4
    for name, entry in (("lan4", f"{client} . {port} . {server} . 80"), ("wan4", f"{server} . 80 . {client} . {port}")):
        whole.run("box", ["nft", "add", "element", "netdev", "sekisho", name, f"{{ {entry} timeout 300s }}"])
    code, _ = fetch(whole, "--fail", "--local-port", port, f"http://{server}/bad/1k.bin")
    assert code in (22, 56), "the page of a refused file, or a reset"
    left = whole.run("box", ["nft", "list", "table", "netdev", "sekisho"]).stdout.decode()
    assert f". {port}" not in left and f"{port} ." not in left


def test_one_byte_segments_are_not_taken_for_bare_acknowledgements(whole: Lab) -> None:
    """The gate is spared segments without payload; the match must tell them from the smallest with one."""
    eicar = (whole.lay.www / "bad" / "eicar.com").read_bytes()
    server = whole.popen("wan", ["python3", "-c", textwrap.dedent(TINY), eicar.hex()])
    try:
        assert server.stdout is not None
        assert server.stdout.readline().strip() == b"listening"
        code, size = fetch(whole, f"http://{layout.SERVER4}:8090/x")
    finally:
        server.kill()
        server.wait()
    assert code != 0
    assert size < len(eicar)
