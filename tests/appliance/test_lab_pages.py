"""A refused request on the whole box: engine, gate and last line together, with real clients and servers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.appliance.core.settings import load
from sekisho.inspect import pages
from sekisho.lab import scenes, toml
from sekisho.lab.lab import Lab
from sekisho.lab.layout import CLIENT_MAC, SERVER4, SERVER6
from sekisho.signatures.sources import SHIPPED
from sekisho.telemetry.events import Alert

pytestmark = pytest.mark.lab

DESK = "情報課 内線 123"
MARK = "nfq_set_mark:{:#x}/0xf00400"
RULES = "\n".join(
    f'alert {head} (msg:"no {sid}"; flow:established,to_server; {what} {MARK.format(why << 20 | 0x400)}; sid:{sid};)'
    for sid, why, head, what in (
        (9199001, 2, "http any any -> any any", 'http.host; content:"blocked.sekisho.test";'),
        (9199002, 3, "http any any -> any any", 'http.uri; content:"forbidden";'),
        (9199003, 2, "tls any any -> any any", 'tls.sni; content:"blocked.sekisho.test";'),
    )
)
SERVERS = {"4": SERVER4, "6": f"[{SERVER6}]"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    rules = tmp_path_factory.mktemp("rules")
    shutil.copytree(SHIPPED / "suricata", rules, dirs_exist_ok=True)
    (rules / "refuse.rules").write_text(RULES + "\n")
    with Lab(f"x{os.getpid()}-page") as made:
        signatures: toml.Table = {"rules_dir": str(rules)}
        made.up({"signatures": signatures, "policy": {"file": str(rules / "policy.toml")}, "help_desk": DESK})
        yield made


def curl(lab: Lab, *arguments: str) -> tuple[int, str, float]:
    """(exit code, output, seconds)."""
    began = time.monotonic()
    done = lab.run("lan", ["curl", "-sS", "--max-time", "10", *arguments], timeout_s=20)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace"), time.monotonic() - began


def free(lab: Lab, port: int, *arguments: str) -> tuple[int, str]:
    """Curl from this port, once the client's kernel has let go of it."""
    for _ in range(50):
        code, text, _ = curl(lab, "--local-port", str(port), *arguments)
        if code != 45:
            return code, text
        time.sleep(0.1)
    raise AssertionError(f"port {port} is not free")


def shows(text: str, why: int) -> bool:
    japanese, english = pages.WHY[why]
    return japanese in text and english in text and bool(re.search(r"<b>\d{4}-\d{6}-\d{5}</b>", text))


def open_at_the_server(lab: Lab) -> list[str]:
    done = lab.run("wan", ["ss", "-Htn", "state", "established", "( sport = :80 or sport = :443 )"])
    return done.stdout.decode().splitlines()


@pytest.mark.parametrize("family", SERVERS)
def test_a_refused_host_shows_its_page_at_once_and_frees_the_server(lab: Lab, family: str) -> None:
    for _ in range(5):
        code, text, took = curl(lab, "-i", "-H", "Host: blocked.sekisho.test", f"http://{SERVERS[family]}/")
        assert (code, shows(text, 2)) == (0, True), text
        assert text.startswith("HTTP/1.1 403") and took < 1
    lab.wait(lambda: not open_at_the_server(lab), "the server still has a connection", 10)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser on this machine")
def test_a_browser_shows_the_page(lab: Lab, tmp_path: Path) -> None:
    argv = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    shown = lab.run("lan", [*argv, f"http://{SERVER4}/forbidden"], timeout_s=60).stdout.decode()
    assert "表示できません" in shown and shows(shown, 3), shown


def test_every_function_has_its_own_page(lab: Lab) -> None:
    text = curl(lab, f"http://{SERVER4}/forbidden")[1]
    assert shows(text, 3) and text.count(DESK) == 2, "whom to ask, in both languages"


def test_an_upload_to_a_refused_place_ends_with_the_page(lab: Lab, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(bytes(3 << 20))
    for more in (["-H", "Expect:"], []):
        code, text, took = curl(lab, *more, "--data-binary", f"@{body}", f"http://{SERVER4}/forbidden")
        assert shows(text, 3), (code, text)
        assert took < 3


def test_head_and_a_browsers_long_request_are_answered(lab: Lab) -> None:
    code, text, took = curl(lab, "-I", f"http://{SERVER4}/forbidden")
    assert (code, text.startswith("HTTP/1.1 403")) == (0, True), text
    cookie = ["-H", f"Cookie: {'c' * 4000}"]
    code, text, took = curl(lab, *cookie, "-H", "Host: blocked.sekisho.test", f"http://{SERVER4}/")
    assert (code, shows(text, 2)) == (0, True), text
    assert took < 1


def test_a_later_request_on_the_same_connection_is_refused_and_the_first_answered(lab: Lab) -> None:
    code, text, took = curl(lab, "-i", f"http://{SERVER4}/hello.txt", f"http://{SERVER4}/forbidden")
    assert (code == 0 and "HTTP/1.1 404" in text.split("403")[0]) or "200 OK" in text, text
    assert shows(text, 3) and took < 1


@pytest.mark.parametrize("family", SERVERS)
def test_a_refused_server_name_is_reset_at_once_and_frees_the_server(lab: Lab, family: str) -> None:
    for _ in range(5):
        name = "blocked.sekisho.test"
        code, text, took = curl(lab, "-k", "--connect-to", f"{name}:443:{SERVERS[family]}:443", f"https://{name}/")
        assert code == 35 and "reset" in text.lower(), text
        assert took < 1
    lab.wait(lambda: not open_at_the_server(lab), "the server still has a connection", 10)
    assert curl(lab, "-k", f"https://{SERVERS[family]}/")[0] == 0, "other names pass"


@pytest.mark.parametrize("first", ["http", "https"])
def test_the_next_connection_between_the_same_ports_is_neither_refused_nor_unseen(lab: Lab, first: str) -> None:
    """An engine that takes the old session for open does not look at the new one; a kernel that does refuses it."""
    name = "blocked.sekisho.test"
    refused = ["-k", "--connect-to", f"{name}:443:{SERVER4}:443", f"https://{name}/"]
    if first == "http":
        refused = [f"http://{SERVER4}/forbidden"]
    for port in range(42000, 42010) if first == "http" else range(43000, 43010):
        code, text = free(lab, port, *refused)
        assert shows(text, 3) if first == "http" else code == 35, text
        code, text = free(lab, port, f"http://{SERVER4}/forbidden")
        assert shows(text, 3), f"the new connection on {port} was not inspected, or could not be made: {text}"
        assert free(lab, port, f"http://{SERVER4}/post") == (0, "ok\n")


def test_what_is_not_refused_is_untouched_and_malice_still_stopped(lab: Lab) -> None:
    assert scenes.infected(lab, SERVER4).ok


def enforce(lab: Lab, text: str) -> None:
    """A new policy, as its owner would bring it: the file, and the word to read it."""
    file = load(lab.lay.box_settings).policy.file
    Path(file).write_text(text)
    lab.kill("appliance", signal.SIGHUP)


def in_force(lab: Lab, rule: str) -> bool:
    return rule in lab.run("box", ["nft", "list", "table", "inet", "sekisho_firewall"]).stdout.decode()


def test_a_firewall_rule_ends_a_download_that_the_engine_had_let_go_and_the_centre_hears(lab: Lab) -> None:
    (lab.lay.www / "slow.bin").write_bytes(bytes(64 << 20))
    argv = ["curl", "-sS", "-k", "--limit-rate", "4M", "-o", "/dev/null", f"https://{SERVER4}/slow.bin"]
    download = lab.popen("lan", argv)
    lab.wait(lambda: riding(lab), "the download does not ride", 10)
    enforce(lab, '[[firewall]]\nname = "no-tls"\naction = "block"\nservices = ["tcp/443"]\n')
    lab.wait(lambda: in_force(lab, "sk firewall-no-tls"), "the rule is not in force", 30)
    assert download.wait(5) == 56, "reset, and at once"
    code, text, took = curl(lab, "-k", f"https://{SERVERS['6']}/")
    assert code == 7 and took < 1, text
    stored = lab.wait_event(lambda event: isinstance(event, Alert) and event.policy == "no-tls", timeout_s=10)
    assert isinstance(stored.event, Alert)
    assert (stored.event.function, stored.event.action, stored.event.flow.mac) == ("firewall", "blocked", CLIENT_MAC)
    assert not open_at_the_server(lab)
    enforce(lab, "")
    lab.wait(lambda: not in_force(lab, "sk firewall-no-tls"), "the rule is still in force", 30)
    assert curl(lab, "-k", f"https://{SERVER4}/")[0] == 0


def riding(lab: Lab) -> bool:
    listed = lab.run("box", ["nft", "list", "set", "netdev", "sekisho", "wan4"]).stdout.decode()
    return f"{SERVER4} . 443" in listed


def test_an_isolated_device_is_told_so_by_a_page_where_it_had_a_connection(lab: Lab) -> None:
    """A browser's kept connection: its next request is answered, new connections are refused."""
    talk = lab.popen("lan", [sys.executable, "-c", KEPT, SERVER4])
    assert talk.stdout is not None and talk.stdout.readline().strip() == b"HTTP/1.1 200 OK"
    enforce(lab, f'[[isolation]]\nname = "sick"\ndevices = ["{CLIENT_MAC}"]\n')
    lab.wait(lambda: in_force(lab, "sk isolation-sick"), "the isolation is not in force", 30)
    os.kill(talk.pid, signal.SIGUSR1)
    said = talk.communicate(timeout=10)[0].decode()
    assert said.startswith("HTTP/1.1 403") and shows(said, 6), said
    assert curl(lab, f"http://{SERVER4}/")[0] == 7
    enforce(lab, "")
    lab.wait(lambda: not in_force(lab, "sk isolation-sick"), "the isolation is still in force", 30)
    assert curl(lab, f"http://{SERVER4}/post")[:2] == (0, "ok\n")


KEPT = """
import signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
peer = socket.create_connection((sys.argv[1], 80))
ask = b"GET /post HTTP/1.1\\r\\nHost: a.test\\r\\n\\r\\n"
peer.sendall(ask)
print(peer.recv(4096).decode().splitlines()[0], flush=True)
signal.sigwait([signal.SIGUSR1])
peer.sendall(ask)
while data := peer.recv(4096):
    sys.stdout.buffer.write(data)
"""


@pytest.mark.parametrize("family", SERVERS)
def test_a_bad_file_none_of_which_has_arrived_is_replaced_by_a_page(lab: Lab, family: str) -> None:
    for _ in range(5):
        code, text, took = curl(lab, "-i", f"http://{SERVERS[family]}/bad/eicar.com")
        assert (code, shows(text, pages.FILE)) == (0, True), text
        assert "EICAR" not in text and took < 1
    lab.wait(lambda: not open_at_the_server(lab), "the server still has a connection", 10)


def test_without_the_gate_a_refused_request_is_reset_instead(lab: Lab) -> None:
    lab.stop("inspect")
    try:
        code, text, took = curl(lab, f"http://{SERVER4}/forbidden")
        assert code == 56 and "reset" in text.lower(), text
        assert took < 1
    finally:
        lab.start("inspect")
        lab.wait(lab.inspecting, "the box does not inspect", 30)
