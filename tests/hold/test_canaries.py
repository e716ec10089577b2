"""What people write, sign in with and send stays in the office: no byte of it reaches the broker or waits to.

Canary strings go out in every place a user's secrets are in, through real clients, past rules that fire on the
very requests which carry them. Then every place on the way to the centre is searched, for each canary as it is,
in base64 (at any alignment) and in hex.
"""

from __future__ import annotations

import base64
import datetime as dt
import html
import itertools
import re
import secrets
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from litestar.testing import TestClient

from sekisho.appliance.core.settings import load
from sekisho.center import customers, pki, settings
from sekisho.center.database import Database
from sekisho.center.notify.letter import Entry, Letter
from sekisho.center.notify.message import render_html, render_text
from sekisho.center.notify.told import tell
from sekisho.center.notify.view import view
from sekisho.center.portal import accounts, sessions
from sekisho.center.portal.app import create_app
from sekisho.center.portal.rendering import COOKIE, MENU
from sekisho.center.portal.rights import may
from sekisho.lab import layout
from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4, SERVER6, SHAPES
from sekisho.lab.samples import EICAR
from sekisho.telemetry.events import Alert, Event, FileVerdict, Mail, Web
from sekisho.telemetry.spool_view import SpoolView

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

RUN = secrets.token_hex(6)
SECRETS = (
    "mail-body", "mail-attachment", "mail-bad-attachment", "mail-subject", "smtp-password", "form", "form-alert",
    "json", "cookie", "basic-user", "basic-password", "bearer", "url-user", "url-password", "query", "fragment",
    "referer", "download", "bad-download", "upload", "bad-upload", "ftp-password", "ftp-file", "ftp-bad-file",
)  # fmt: skip
PUBLIC = ("path", "file-name", "host")
"""The positive control: these may leave, and the search must find them."""

LISTEN = """
import sys
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from sekisho.telemetry import batches
ca, cert, key, host, port, target = sys.argv[1:]
out = open(target, "ab", buffering=0)
client = mqtt.Client(CallbackAPIVersion.VERSION2)
client.tls_set(ca, cert, key)
client.on_connect = lambda client, *_: client.subscribe("sk/#", 1)
client.on_subscribe = lambda *_: (print("listening", flush=True))

def heard(_client, _data, message):
    head, _, lines = message.payload.partition(b"\\n")
    lines = batches.expand(lines) if b'"zstd"' in head else lines
    out.write(b"%s %s\\n%s\\n" % (message.topic.encode(), head, lines))

client.on_message = heard
client.connect(host, int(port))
client.loop_forever()
"""


def canary(name: str) -> str:
    return f"Canary{name.replace('-', '').title()}{RUN}"


def forms(name: str) -> list[bytes]:
    """How a canary could look in bytes."""
    plain = canary(name).encode()
    found = [plain.lower(), plain.hex().encode()]
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + plain)
        found.append(
            text[4 if shift else 0 : len(text) // 4 * 4 - 4].lower()
        )  # without the ends, which neighbours share
    return found


@pytest.fixture(scope="module")
def heard(lab: Lab) -> Iterator[Path]:
    """Every message that any client publishes at the broker, as a file that grows."""
    probe = pki.issue(lab.lay.center / "pki", "probe")
    with (lab.lay.center / "broker" / "acl").open("a") as acl:
        acl.write("\nuser probe\ntopic read sk/#\n")
    lab.kill("mosquitto", signal.SIGHUP)
    target = lab.lay.root / "heard"
    files = [str(path) for path in (probe.ca, probe.cert, probe.key)]
    argv = [sys.executable, "-I", "-c", LISTEN, *files, layout.CENTER4, str(layout.MQTT), str(target)]
    process = lab.popen("center", argv)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield target
    finally:
        process.kill()
        process.wait()


def sample(lab: Lab, name: str, *, bad: bool, folder: str = "") -> Path:
    """A file that holds its canary in the middle, offered by the servers where `folder` says so."""
    path = (lab.lay.www / folder if folder else lab.lay.root) / f"{name}-{canary('file-name')}.bin"
    path.write_bytes(b"A" * 3000 + canary(name).encode() + b"Z" * 3000 + (EICAR if bad else b""))
    return path


def curl(lab: Lab, *argv: str) -> None:
    lab.run("lan", ["curl", "-gs", "--max-time", "1", "-o", "/dev/null", *argv])


@pytest.fixture(scope="module")
def told(lab: Lab, heard: Path) -> Path:
    """All traffic has been sent and everything about it is at the centre; gives what the broker was given."""
    headers = [
        *("-H", f"Cookie: sid={canary('cookie')}; b=2", "-H", f"Referer: http://x/?q={canary('referer')}"),
        *("-H", f"Host: {canary('host')}.example"),
    ]
    credentials = f"{canary('basic-user')}:{canary('basic-password')}"
    query = f"?token={canary('query')}&{canary('query')}&a=1#{canary('fragment')}"
    place = f"{canary('path')}/page"
    signs = (
        ["-u", credentials],
        ["-H", f"Authorization: Bearer {canary('bearer')}"],
        ["--data", f"name={canary('form')}&x=1"],
        ["--json", f'{{"secret": "{canary("json")}"}}'],
    )
    for host, sign in itertools.product((SERVER4, f"[{SERVER6}]"), signs):
        user = f"{canary('url-user')}:{canary('url-password')}@" if "-u" not in sign else ""
        for path in (place, f"sk-c2/checkin/{place}", "post"):  # passed, dropped by a rule, taken
            curl(lab, *headers, *sign, f"http://{user}{host}/{path}{query}")
    # An absolute URL in the request line itself, as a proxy's client sends it.
    url = f"http://{canary('url-user')}:{canary('url-password')}@www.example/{place}{query}"
    curl(lab, *headers, "--request-target", url, f"http://{SERVER4}/")
    curl(lab, "--data", f"cmd=eval(base64_decode&x={canary('form-alert')}", f"http://{SERVER4}/{place}")
    for name, bad in (("download", False), ("bad-download", True)):
        curl(
            lab,
            *headers,
            f"http://{SERVER4}/{sample(lab, name, bad=bad, folder='clean').relative_to(lab.lay.www)}{query}",
        )
    for name, bad in (("upload", False), ("bad-upload", True)):
        curl(lab, "-F", f"f=@{sample(lab, name, bad=bad)}", f"http://{SERVER4}:{SHAPES}/upload{query}")
    mails(lab)
    files(lab)
    wait_for_all(lab)
    return heard


def mails(lab: Lab) -> None:
    who = ["--from", "tanaka@office.test", "--to", "suzuki@partner.test", "--server", SERVER4, "--timeout", "5"]
    text = ["--header", f"Subject: {canary('mail-subject')}", "--body", f"Dear all,\n{canary('mail-body')}\n"]
    for attached in ([("mail-attachment", False)], [("mail-attachment", False), ("mail-bad-attachment", True)]):
        argv = [word for name, bad in attached for word in ("--attach", f"@{sample(lab, name, bad=bad)}")]
        # The subject of a mail that was found to be malicious may leave, and only that one's.
        subject = text if len(attached) == 1 else text[2:]
        lab.run("lan", ["swaks", *who, *subject, *argv])
    login = ["--auth-user", "tanaka", "--auth-password", canary("smtp-password"), "--auth", "PLAIN", "--auth-optional"]
    lab.run("lan", ["swaks", *who, *text, *login])


def files(lab: Lab) -> None:
    for name, bad, passive in (("ftp-file", False, "on"), ("ftp-bad-file", True, "off")):
        offered = sample(lab, name, bad=bad, folder="clean").relative_to(lab.lay.www)
        target = lab.lay.root / name
        orders = (
            f"set net:max-retries 1; set net:timeout 5; set xfer:clobber yes; set ftp:passive-mode {passive}; "
            f"open -u anonymous,{canary('ftp-password')} ftp://{SERVER4}; get {offered} -o {target}"
        )
        lab.run("lan", ["lftp", "-c", orders])


def wait_for_all(lab: Lab) -> None:
    def file(outcome: str, app: str) -> None:
        lab.wait_event(
            lambda event: isinstance(event, FileVerdict) and (event.outcome, event.app) == (outcome, app), 15
        )

    for app in ("http", "smtp", "ftp-data"):
        file("clean", app)
        file("blocked", app)
    lab.wait_event(lambda event: isinstance(event, Mail))
    lab.wait_event(lambda event: isinstance(event, Web))
    lab.wait_event(lambda event: isinstance(event, Alert) and event.sid == 9000130)

    def empty() -> bool:
        spool = SpoolView(load(lab.lay.box_settings).spool)
        try:
            return not sum(lane.rows for lane in spool.waiting())
        finally:
            spool.close()

    lab.wait(empty, "events still wait on the box")


def places(lab: Lab, told: Path) -> dict[str, bytes]:
    """Every file that leaves the box, waits to leave it, or is kept by the centre."""
    box = load(lab.lay.box_settings)
    found = [told, *box.spool.parent.iterdir(), *box.journals.iterdir()]
    found += [path for path in (lab.lay.center / "broker").iterdir() if path.suffix == ".db"]
    found += [path for path in lab.lay.center.iterdir() if path.name.startswith(lab.lay.center_store.name)]
    found += [path for path in lab.lay.logs.iterdir() if path.stem in ("telemetry", "mosquitto", "center", "inspect")]
    found += [path for path in lab.lay.logs.iterdir() if path.stem == "appliance"]
    try:
        return {str(path.relative_to(lab.lay.root)): path.read_bytes().lower() for path in found if path.is_file()}
    except FileNotFoundError:  # renamed meanwhile
        return places(lab, told)


def test_no_canary_leaves_the_box_or_waits_to(lab: Lab, told: Path) -> None:
    lab.kill("mosquitto", signal.SIGUSR1)  # writes its memory to disk
    lab.wait(lambda: any(path.suffix == ".db" for path in (lab.lay.center / "broker").iterdir()), "no broker memory")
    found = {
        (name, place)
        for place, data in places(lab, told).items()
        for name in SECRETS
        if any(form in data for form in forms(name))
    }
    assert found == set()


@pytest.mark.parametrize("name", PUBLIC)
def test_the_search_finds_what_may_leave(lab: Lab, told: Path, name: str) -> None:
    searched = places(lab, told)
    plain = forms(name)[0]
    for place in ("heard", "center/center.db"):
        data = b"".join(content for path, content in searched.items() if path.startswith(place))
        assert plain in data, place


def mail_texts(lab: Lab) -> bytes:
    """Every event that people can be told of, as the most important there is: its mail, plain text and HTML."""
    found = []
    for event in events(lab):
        told = tell("box-1", msgspec.structs.replace(event, stars=3)) if hasattr(event, "stars") else None
        if told is not None:
            letter = Letter(kind="alert", tenant="t1", at=event.at, entries=[Entry(told, 1, event.at, event.at)])
            shown = view(letter)
            found += [shown.subject, render_text(shown), render_html(shown)]
    return "\n".join(found).lower().encode()


def test_no_canary_is_in_a_mail_and_what_may_be_is(lab: Lab, told: Path) -> None:
    mails = mail_texts(lab)
    assert [name for name in SECRETS if any(form in mails for form in forms(name))] == []
    assert [name for name in ("path", "file-name") if forms(name)[0] not in mails] == []


FILES = (".csv", ".pdf", "/export")
"""Addresses that are saved, not read; what they hold is on a page as well."""
FILTERS = 3


def portal_pages(lab: Lab, folder: Path) -> bytes:
    """Every page of the portal that links lead the customer's administrator to, in one piece."""
    now = dt.datetime.now(dt.UTC)
    portal = settings.Portal(cert="", key="", origin="https://portal.example", proof_key=str(folder / "proof.key"))
    broker = settings.BrokerLink("localhost", "", "", "")
    store = str(lab.lay.center_store)
    database = Database(store)
    with database.transaction() as db:
        customers.add(db, layout.TENANT)
        account = accounts.make(db, "owner@shop.example", "admin", tenant=layout.TENANT, now=now)
        secret = sessions.begin(db, account, now)
    database.close()
    found: dict[str, bytes] = {}
    seen: Counter[str] = Counter()
    app = create_app(settings.CenterSettings(broker=broker, store=store, portal=portal))
    with TestClient(app, base_url=portal.origin) as client:
        client.cookies.set(COOKIE, secret)
        waiting = [path for _, path, right in MENU if may("admin", right)]
        while waiting:
            path = waiting.pop()
            if path in found:
                continue
            answer = client.get(path)
            assert answer.status_code == 200, path
            found[path] = answer.content
            links = {html.unescape(link) for link in re.findall(r'href="(/[^"#]*)"', answer.text)}
            for link in sorted(links - found.keys()):
                place, _, asked = link.partition("?")
                seen[place] += bool(asked)  # of a page's filters a few: they show a part of what it shows
                if not place.startswith("/static/") and not place.endswith(FILES) and seen[place] <= FILTERS:
                    waiting.append(link)
    print(f"{len(found)} pages")
    return b"\n".join(found.values()).lower()


def test_no_canary_is_on_a_page_of_the_portal_and_what_may_be_is(lab: Lab, told: Path, tmp_path: Path) -> None:
    """The alerts, the log, the cases and the month's report among them."""
    pages = portal_pages(lab, tmp_path)
    assert [name for name in SECRETS if any(form in pages for form in forms(name))] == []
    assert [name for name in PUBLIC if forms(name)[0] not in pages] == []


def test_the_rules_fired_on_the_requests_that_carried_the_canaries(lab: Lab, told: Path) -> None:
    sids = {event.sid for event in events(lab) if isinstance(event, Alert)}
    assert {9000100, 9000124, 9000130} <= sids
    assert any(
        isinstance(event, Alert) and canary("path") in event.url and event.sid == 9000100 for event in events(lab)
    )


def test_the_traffic_really_carried_every_canary(lab: Lab, told: Path) -> None:
    """What the servers received holds them: a search for what was never sent proves nothing."""
    sink = b"".join(path.read_bytes() for path in lab.lay.mail.iterdir())
    assert canary("mail-body").encode() in sink
    assert any(form in sink.replace(b"\r\n", b"").lower() for form in forms("mail-attachment"))
    uploads = b"".join(path.read_bytes() for path in lab.lay.uploads.iterdir())
    assert canary("upload").encode() in uploads
    assert canary("bad-upload").encode() not in uploads
    assert any(isinstance(e, FileVerdict) and e.outcome == "clean" and e.app == "ftp-data" for e in events(lab))


def events(lab: Lab) -> list[Event]:
    return [row.event for row in lab.events()]
