"""The box's page in the whole lab: reachable from the office and from nowhere else, also with the internet down."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sekisho.appliance.core.settings import load
from sekisho.lab import samples
from sekisho.lab.lab import Lab
from sekisho.lab.layout import BOX4, BOX6, BOX_NAME, CENTER4, CLIENT4, ENROLMENT, SERVER4, Place
from sekisho.portal_agent import certificate
from sekisho.portal_agent.office import certificate_file
from sekisho.telemetry.events import FileVerdict, Health

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

MOST_MIB = 64
PAGE, PAGE6 = f"https://{BOX4}", f"https://[{BOX6}]"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(f"p{os.getpid()}-page") as made:
        made.up()
        yield made


class Visitor:
    """A browser on the office's computer, which trusts the box's certificate and nothing else."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.jar = lab, folder / "jar"
        self.trust = certificate_file(load(lab.lay.box_settings))

    def ask(self, path: str, *more: str) -> tuple[int, bytes]:
        """(status, body)."""
        argv = [
            "curl",
            "-sS",
            "--max-time",
            "20",
            "--cacert",
            str(self.trust),
            "-c",
            str(self.jar),
            "-b",
            str(self.jar),
        ]
        done = self.lab.run("lan", [*argv, "-w", "\n%{http_code}", *more, PAGE + path], check=True)
        body, _, status = done.stdout.rpartition(b"\n")
        return int(status), body

    def post(self, path: str, **form: str) -> tuple[int, bytes]:
        fields = [word for name, value in form.items() for word in ("--data-urlencode", f"{name}={value}")]
        return self.ask(path, "-H", f"Origin: {PAGE}", *fields)

    def sign_in(self) -> str:
        """The form token."""
        settings = str(self.lab.lay.box_settings)
        argv = [sys.executable, "-I", "-m", "sekisho.appliance.cli", "local-page", "label", "--settings", settings]
        label = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        password = re.search(r"^password +(\S+)$", label, re.M)
        assert password is not None and certificate.fingerprint(self.trust) in label
        assert self.post("/sign-in", password=password[1])[0] == 303
        found = re.search(rb'name="csrf" value="([^"]+)"', self.ask("/")[1])
        assert found is not None
        return found[1].decode()


@pytest.fixture
def visitor(lab: Lab, tmp_path: Path) -> Visitor:
    return Visitor(lab, tmp_path)


def reach(lab: Lab, place: Place, url: str, within_s: int = 1) -> int:
    """Curl's exit code."""
    done = lab.run(place, ["curl", "-gksS", "--max-time", str(within_s), "-o", "/dev/null", url])
    return done.returncode


@pytest.mark.parametrize("url", [f"{PAGE}/", f"{PAGE6}/", f"http://{BOX4}/", f"http://[{BOX6}]/"])
def test_the_office_reaches_the_page_and_nobody_else_does(lab: Lab, url: str) -> None:
    assert reach(lab, "lan", url, 20) == 0
    assert reach(lab, "wan", url) == 28, "the internet's side gets no answer at all"
    if BOX4 in url:
        assert reach(lab, "center", url) == 28


KNOCK = """
import sys, threading, time
from scapy.all import AsyncSniffer, Dot1Q, Ether, IP, TCP, conf, fragment, getmacbyip, sendp
conf.verb = 0
box, me, expected = *sys.argv[1:3], int(sys.argv[3])
mac = getmacbyip(box)
def syn(port): return IP(src=me, dst=box) / TCP(sport=port, dport=443, flags="S", options=[("NOP", None)] * 20)
ready, answered = threading.Event(), set()
def note(p):
    if TCP in p and p[TCP].sport == 443 and p[TCP].flags == "SA": answered.add(p[TCP].dport)
AsyncSniffer(iface="eth0", prn=note, store=False, started_callback=ready.set).start()
assert ready.wait(20)
sendp([Ether(dst=mac) / syn(40001), Ether(dst=mac) / Dot1Q(vlan=0) / syn(40002)], iface="eth0")
sendp(Ether(dst=mac, type=0x88A8) / Dot1Q(vlan=0, type=0x0800) / syn(40003), iface="eth0")
sendp([Ether(dst=mac) / piece for piece in fragment(syn(40004), 8)], iface="eth0")
until = time.monotonic() + (10 if expected else 2)
while time.monotonic() < until and len(answered) < (expected or 9): time.sleep(0.05)
print(len(answered))
"""


@pytest.mark.parametrize(("place", "own", "answers"), [("lan", CLIENT4, 4), ("wan", SERVER4, 0)])
def test_priority_tags_and_fragments_do_not_get_around_the_rule(lab: Lab, place: Place, own: str, answers: int) -> None:
    done = lab.run(place, [sys.executable, "-c", KNOCK, BOX4, own, str(answers)], check=True)
    assert int(done.stdout) == answers


def test_the_rule_is_put_back_and_the_page_is_shut_without_it(lab: Lab) -> None:
    doorway = load(lab.lay.box_settings).doorway
    lab.run("box", ["nft", "delete", "table", "bridge", "sekisho_doorway"], check=True)
    lab.wait(lambda: b"sekisho_doorway" in lab.run("box", ["nft", "list", "ruleset"]).stdout, "the rule is away", 20)
    assert reach(lab, "wan", f"{PAGE}/") == 28
    doorway.unlink()
    try:
        done = lab.run("lan", ["curl", "-ks", "-o", "/dev/null", "-w", "%{http_code}", f"{PAGE}/"])
        assert done.stdout == b"503"
    finally:
        doorway.touch()


def test_the_page_says_what_the_box_knows(lab: Lab, visitor: Visitor) -> None:
    lab.wait(lambda: ">つながっています".encode() in visitor.ask("/")[1], "the page does not tell of the link", 30)
    assert "はい。この会社の通信は、いま検査されています。".encode() in visitor.ask("/")[1]


def test_a_stopped_file_is_released_with_a_reason_and_saved(lab: Lab, visitor: Visitor) -> None:
    lab.run("lan", ["curl", "-s", "--max-time", "20", f"http://{SERVER4}:8080/identity/bad/300k.bin"])
    stopped = lab.wait_event(lambda e: isinstance(e, FileVerdict) and e.outcome == "blocked" and bool(e.quarantine))
    assert isinstance(stopped.event, FileVerdict)
    ident = stopped.event.quarantine
    csrf = visitor.sign_in()
    assert ident.encode() in visitor.ask("/quarantine")[1]
    assert visitor.ask(f"/quarantine/{ident}/file")[0] == 409, "not before it is released"
    assert visitor.post(f"/quarantine/{ident}/release", csrf=csrf, reason="", sure="yes")[0] == 303
    assert visitor.ask(f"/quarantine/{ident}/file")[0] == 409, "not without a reason"
    assert visitor.post(f"/quarantine/{ident}/release", csrf=csrf, reason="自社の見積書", sure="yes")[0] == 303
    status, content = visitor.ask(f"/quarantine/{ident}/file")
    assert status == 200
    assert content == samples.malicious(300_000), "the file itself, not the transfer it came in"
    told = lab.wait_event(lambda e: isinstance(e, Health) and (e.part, e.state) == ("quarantine", "released"))
    assert isinstance(told.event, Health) and told.event.detail.startswith(ident)
    assert "見積書" not in told.event.detail, "the owner's reason stays on the box"
    assert "自社の見積書".encode() in visitor.ask(f"/quarantine/{ident}")[1]


def test_what_was_sent_is_shown_as_it_was_sent(lab: Lab, visitor: Visitor) -> None:
    visitor.sign_in()
    lab.run("lan", ["curl", "-s", "--max-time", "20", f"http://{SERVER4}:8080/identity/clean/300k.bin?sekisho-b6"])
    lab.wait(lambda: b"sekisho" in visitor.ask("/sent")[1], "what was sent is not shown", 30)


def test_the_page_fits_a_small_box(lab: Lab, visitor: Visitor) -> None:
    visitor.sign_in()
    for path in ("/", "/devices", "/quarantine", "/sent", "/sent/fields", "/care"):
        assert visitor.ask(path)[0] == 200, path
    told = Path(f"/proc/{lab.pid('portal_agent')}/smaps_rollup").read_text()
    found = re.search(r"^Rss: +([0-9]+) kB", told, re.M)
    assert found is not None
    resident = int(found[1]) >> 10
    print(f"{resident} MiB resident")
    assert resident < MOST_MIB


def test_with_the_internet_down_the_page_works(lab: Lab, visitor: Visitor) -> None:
    lab.run("box", ["ip", "link", "set", "eth-wan", "down"], check=True)
    try:
        visitor.sign_in()
        for path in ("/", "/devices", "/quarantine", "/sent", "/care"):
            assert visitor.ask(path)[0] == 200, path
    finally:
        lab.run("box", ["ip", "link", "set", "eth-wan", "up"], check=True)


def test_a_code_typed_on_the_page_makes_the_box_a_member(tmp_path: Path) -> None:
    with Lab(f"p{os.getpid()}-code") as lab:
        lab.up(portal=True)
        visitor = Visitor(lab, tmp_path)
        csrf = visitor.sign_in()
        assert "まだ見守りセンターに登録していません".encode() in visitor.ask("/")[1]
        argv = [sys.executable, "-I", "-m", "sekisho.appliance.cli", "center", "enrol-code", "--box", BOX_NAME]
        argv += ["--tenant", "default", "--settings", str(lab.lay.center_settings), "--json"]
        code = msgspec.json.decode(subprocess.run(argv, capture_output=True, check=True).stdout)["code"]
        visitor.post("/care/enrol", csrf=csrf, centre=f"{CENTER4}:{ENROLMENT}", code=code)
        errand = [sys.executable, "-I", "-m", "sekisho.portal_agent.errands", "--settings", str(lab.lay.box_settings)]
        lab.run("box", errand, check=True)
        page = visitor.ask("/care")[1].decode()
        assert f"登録しました。センターでの名前: {BOX_NAME}" in page and f"https://{CENTER4}:{ENROLMENT}" in page
        lab.wait(lambda: ">つながっています".encode() in visitor.ask("/")[1], "the page does not tell of the link", 30)
