"""No trick of HTTP brings a known file to a client: the public evasion cases and our own, with curl and Chromium.

"Brings" is strict: the 68 bytes of the test string anywhere in what curl wrote to disk, in a saved download or one
left unfinished, in the text of the page, or in what a script could read. A case that no client can read on a
bare bridge proves nothing, so that is counted too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cases
import clients
import pytest
from chromium import Chromium
from server import answering

from sekisho.lab.evader import Script, plain
from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4, SERVER6
from sekisho.lab.samples import EICAR

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

NAMES = sorted(cases.everything())
SAMPLE = [name for name in NAMES if cases.sampled(name)]
PARAMS = [pytest.param(name, marks=() if cases.sampled(name) else pytest.mark.full) for name in NAMES]
BATCH = 60
BATCHES = [
    pytest.param(NAMES[at : at + BATCH], marks=pytest.mark.full, id=f"{at}-{at + BATCH}")
    for at in range(0, len(NAMES), BATCH)
]
VISITED = [
    pytest.param(name, marks=() if cases.sampled(name) else pytest.mark.full)
    for name in NAMES
    if name in cases.captured() or cases.sampled(name)
]


def url(name: str, host: str = SERVER4) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}/{name}"


@pytest.fixture(scope="module", autouse=True)
def _server(box: Lab) -> Iterator[None]:
    with answering(box, {f"GET /{name}": script for name, script in cases.everything().items()} | CLEAN):
        yield


@pytest.fixture(scope="module")
def browser(box: Lab) -> Iterator[Chromium]:
    with Chromium(box) as browser:
        yield browser


def test_the_public_cases_are_here() -> None:
    if not cases.captured():
        pytest.skip(f"the captures are not at hand: {cases.EVADER}")
    assert len(cases.captured()) >= 126


@pytest.mark.parametrize("name", PARAMS)
def test_curl_never_obtains_the_file(box: Lab, name: str, tmp_path: Path) -> None:
    host = SERVER6 if len(name) % 2 else SERVER4
    got = clients.curl_all(box, list(clients.CURLS), [url(name, host)], tmp_path)
    assert [kind for (kind, _), data in got.items() if EICAR in data] == []


@pytest.mark.parametrize("names", [pytest.param(SAMPLE, id="sample"), *BATCHES])
def test_a_script_in_chromium_never_reads_the_file(browser: Chromium, names: list[str]) -> None:
    got = browser.fetch(url(""), [url(name) for name in names])
    assert [name for name in names if EICAR in got[url(name)]] == []


@pytest.mark.parametrize("name", VISITED)
def test_chromium_neither_saves_nor_shows_the_file(browser: Chromium, name: str) -> None:
    left = browser.visit(url(name))
    assert [kind for kind, data in left.items() if EICAR in data] == []


@pytest.mark.parametrize(
    "names", [pytest.param(SAMPLE, id="sample"), pytest.param(NAMES, marks=pytest.mark.full, id="all")]
)
def test_the_tricks_work_where_no_box_is(bare: Lab, names: list[str], tmp_path: Path) -> None:
    """Otherwise the others prove nothing: of every kind of trick some bring the file over a bare bridge."""
    everything = cases.everything()
    with answering(bare, {f"GET /{name}": everything[name] for name in names}), Chromium(bare) as browser:
        got = clients.curl_all(bare, list(clients.CURLS), [url(name) for name in names], tmp_path)
        read = {target for (_, target), data in got.items() if EICAR in data}
        for at in range(0, len(names), BATCH):
            seen = browser.fetch(url(""), [url(name) for name in names[at : at + BATCH]])
            read |= {target for target, data in seen.items() if EICAR in data}
    kinds = Counter(name.split("-")[0] for name in names)
    worked = Counter(name.split("-")[0] for name in names if url(name) in read)
    print(f"{len(read)} of {len(names)} cases bring the file over a bare bridge: {dict(worked)}")
    assert len(read) > len(names) / 3
    assert len(names) < len(NAMES) or [kind for kind in kinds if not worked[kind]] == []


TEXT = b"an ordinary file, nothing in it but words and numbers 0123456789 " * 40
CLEAN: dict[str, Script] = {
    "GET /clean-sized": plain(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(TEXT), TEXT)),
    "GET /clean-closed": plain(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + TEXT),
    "GET /clean-http10": plain(b"HTTP/1.0 200 OK\r\n\r\n" + TEXT),
    "GET /clean-chunked": plain(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(TEXT), TEXT)
    ),
}


@pytest.mark.parametrize("name", sorted(target.removeprefix("GET /") for target in CLEAN))
def test_the_same_server_delivers_what_is_clean_and_plain(
    box: Lab, browser: Chromium, name: str, tmp_path: Path
) -> None:
    assert clients.curl(box, "curl", url(name), tmp_path / "out") == TEXT
    assert browser.fetch(url(""), [url(name)])[url(name)] == TEXT
