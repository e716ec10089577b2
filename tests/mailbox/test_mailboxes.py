"""Infected mailboxes, from a real Dovecot to real clients: every session ends well, and no infected file arrives."""

from __future__ import annotations

import email
import email.policy
import os
import sys
from collections.abc import Callable, Iterator
from email.message import EmailMessage

import msgspec
import pytest
from bent import cases

from sekisho.appliance.core.settings import load
from sekisho.inspect.quarantine import Quarantine
from sekisho.inspect.streams import mime
from sekisho.lab import mailboxes
from sekisho.lab.client import Part, marked, message
from sekisho.lab.client_mail import Fetched, Imap, Pop
from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4, SERVER6
from sekisho.lab.samples import EICAR, malicious
from sekisho.telemetry.events import FileVerdict

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

MAILS: tuple[list[Part], ...] = (
    [("bad", 1_000)],
    [("clean", 2_000)],
    [("clean", 700), ("bad", 30_000), ("clean", 900)],
    [("bad", 300_000), ("clean", 900)],
    [("clean", 30_000)],
)
LONG: tuple[list[Part], ...] = ([("clean", 50_000)], [("bad", 5_000_000)], [("clean", 3_000_000)])
WHOLE = "BODY.PEEK[]"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(f"x{os.getpid()}-mailbox") as lab:
        lab.up()
        yield lab


class Box:
    """One user's mailbox, new for each test."""

    number = 0

    def __init__(self, lab: Lab, mails: tuple[list[Part], ...]) -> None:
        Box.number += 1
        self.lab, self.user, self.parts = lab, f"u{Box.number}", mails
        self.mails = [message(parts, f"{self.user}.{n}") for n, parts in enumerate(mails)]
        for mail in self.mails:
            mailboxes.deliver(lab.lay, self.user, mail)

    def fetch(self, task: Pop | Imap) -> list[bytes]:
        argv = [sys.executable, "-I", "-m", "sekisho.lab.client_mail"]
        ran = self.lab.run("lan", argv, stdin=msgspec.json.encode(task), timeout_s=100, check=True)
        self.got = msgspec.json.decode(ran.stdout, type=Fetched)
        assert (self.got.end, self.got.error) == ("whole", "")
        return self.got.contents

    def content(self, mail: int, part: int) -> bytes:
        kind, size = self.parts[mail][part]
        return marked(kind == "bad", size, f"{self.user}.{mail}.{part}.")

    def verdicts(self, app: str, count: int) -> list[FileVerdict]:
        def mine() -> list[FileVerdict]:
            events = [stored.event for stored in self.lab.events()]
            return [
                e for e in events if isinstance(e, FileVerdict) and (e.flow.dst_port, e.app) == (self.got.port, app)
            ]

        self.lab.wait(lambda: len(mine()) >= count, f"{count} verdicts of {app}", 20)
        return mine()


def read(content: bytes) -> tuple[EmailMessage, dict[str, bytes]]:
    mail = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    return mail, {str(p.get_filename()): p.get_payload(decode=True) or b"" for p in mail.walk() if p.get_filename()}  # type: ignore[misc]


def check(box: Box, contents: list[bytes]) -> None:
    assert len(contents) == len(box.mails)
    for number, (sent, came) in enumerate(zip(box.mails, contents, strict=True)):
        assert len(came) == len(sent)
        if all(kind == "clean" for kind, _ in box.parts[number]):
            assert came == sent
            continue
        mail, files = read(came)
        assert (mail["From"], mail["Subject"]) == ("tanaka@office.test", "invoice")
        text = mail.get_body(("plain",))
        assert text is not None and "files attached" in text.get_content()
        told = files["sekisho.txt"].decode()
        assert "sekisho" in told and ("malicious" in told or "悪意" in told)
        for part, (kind, _) in enumerate(box.parts[number]):
            name = f"{kind}-{part}.bin"
            if kind == "clean":
                assert files[name] == box.content(number, part)
            else:
                original = box.content(number, part)
                assert files.get(name, b"")[: len(original)] != original
                assert EICAR not in b"".join(files.values())


HOW: dict[str, Callable[[str], Pop | Imap]] = {
    "pop3": lambda user: Pop(SERVER4, user),
    "pop3, v6": lambda user: Pop(SERVER6, user),
    "pop3, all asked for at once": lambda user: Pop(SERVER4, user, pipelined=True),
    "pop3, small window": lambda user: Pop(SERVER4, user, receive_buffer=4096),
    "imap": lambda user: Imap(SERVER4, user, [WHOLE]),
    "imap, v6": lambda user: Imap(SERVER6, user, [WHOLE]),
    "imap, all headers, then all mails": lambda user: Imap(SERVER4, user, ["BODY.PEEK[HEADER]", WHOLE]),
    "imap, in pieces": lambda user: Imap(SERVER4, user, [""], piece=65536),
    "imap, in small pieces": lambda user: Imap(SERVER4, user, [""], piece=9000),
    "imap, in pieces of unknown number": lambda user: Imap(SERVER4, user, [""], piece=32768, sized=False),
}


@pytest.mark.parametrize("how", HOW)
def test_every_mail_of_a_mailbox_comes_and_no_infected_file_does(how: str, lab: Lab) -> None:
    box = Box(lab, MAILS)
    check(box, box.fetch(HOW[how](box.user))[-len(MAILS) :])


@pytest.mark.parametrize("how", ["pop3", pytest.param("imap", marks=pytest.mark.full), "imap, in pieces"])
def test_a_long_infected_attachment_ends_early_and_the_next_mail_comes(how: str, lab: Lab) -> None:
    box = Box(lab, LONG)
    check(box, box.fetch(HOW[how](box.user)))


def test_a_section_that_is_the_infected_file_becomes_the_notice(lab: Lab) -> None:
    box = Box(lab, ([("bad", 40_000)], [("clean", 40_000)]))
    bad, clean = box.fetch(Imap(SERVER4, box.user, ["BODY.PEEK[2]"]))
    assert clean in box.mails[1] and len(clean) == len(bad)
    _, files = read(b"Content-Type: x/y; name=a\r\nContent-Transfer-Encoding: base64\r\n\r\n" + bad)
    assert EICAR not in files["a"]
    assert b"sekisho" in files["a"] and "悪意".encode() in files["a"], (
        "as long a notice as what had not gone on has room for"
    )


@pytest.mark.parametrize("how", ["pop3", "imap"])
def test_no_bent_mail_brings_its_file(how: str, lab: Lab) -> None:
    bent = cases(malicious(1_500))
    box = Box(lab, ())
    for mail in bent.values():
        mailboxes.deliver(lab.lay, box.user, mail)
    came = box.fetch(HOW[how](box.user))
    assert len(came) == len(bent)
    for name, content in zip(bent, came, strict=True):
        forms = [content, *(bytes(part.body) for part in mime.contents(content, limit=1 << 20).parts)]
        assert not any(EICAR in form for form in forms), name


@pytest.mark.parametrize(("hook", "port"), [("output", "dport"), ("input", "sport")])
def test_what_is_sent_again_is_what_was_put_in_its_place(hook: str, port: str, lab: Lab) -> None:
    """On the client's side of the box every 25th packet is lost: acknowledgements on their way out, or mails."""
    box = Box(lab, (*MAILS, [("bad", 400_000)]))
    chain = f"chain c {{\n type filter hook {hook} priority 0\n tcp {port} 110 numgen inc mod 25 == 0 drop\n}}"
    lab.run("lan", ["nft", "-f", "-"], stdin=f"table inet lossy {{\n{chain}\n}}\n".encode(), check=True)
    try:
        check(box, box.fetch(Pop(SERVER4, box.user)))
    finally:
        lab.run("lan", ["nft", "delete table inet lossy"], check=True)


@pytest.mark.parametrize("kind", ["pop3", "imap"])
def test_a_session_that_turns_to_tls_goes_on_unhindered(kind: str, lab: Lab) -> None:
    box = Box(lab, ([("clean", 3_000)], [("bad", 2_000_000)]))
    ca = str(lab.lay.web_ca)
    task = Pop(SERVER4, box.user, ca=ca) if kind == "pop3" else Imap(SERVER4, box.user, [WHOLE], ca=ca)
    assert box.fetch(task) == box.mails  # nobody in between can read it
    assert box.got.seconds < 10


@pytest.mark.parametrize(("how", "app"), [("pop3", "pop3"), ("imap", "imap")])
def test_the_centre_learns_what_was_removed_and_the_original_is_kept(how: str, app: str, lab: Lab) -> None:
    box = Box(lab, MAILS)
    box.fetch(HOW[how](box.user))
    told = box.verdicts(app, len(MAILS))
    assert len(told) == len(MAILS)
    blocked = [e for e in told if e.outcome == "blocked"]
    assert [(e.reason, e.file_name, e.size) for e in blocked] == [
        ("neutralised", "bad-0.bin", 1_000),
        ("neutralised", "bad-1.bin", 30_000),
        ("neutralised", "bad-0.bin", 300_000),
    ]  # fmt: skip
    assert all(e.rules and e.mail_subject == "invoice" and e.mail_from == "tanaka@office.test" for e in blocked)
    assert {e.outcome for e in told} == {"blocked", "clean"}
    config = load(lab.lay.box_settings)
    kept = Quarantine(config.quarantine_dir, max_bytes=1 << 30, keep_days=1, writer=False)
    target = lab.lay.root / f"original-{app}"
    entry = next(e for e in kept.entries() if e.sha256 == blocked[1].sha256)
    kept.release(entry.id, target, "test")
    _, files = read(target.read_bytes())
    assert files["bad-1.bin"] == box.content(2, 1)
