"""One mail, looked at part by part: what is replaced, what is looked at again, and what may go on unseen."""

from __future__ import annotations

import base64
import io
import random
import zlib

import pytest
import yara
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.inspect import mailbox, neutralise
from sekisho.inspect.mailbox import Judgement
from sekisho.inspect.scanner import Finding, Scanner
from sekisho.inspect.streams import imap, mime, pop3
from sekisho.inspect.streams.found import Bytes, Found
from sekisho.inspect.worker import Job, Worker

LIMIT = 8 << 20
EVIL = b"EVIL-CONTENT-1"
DATA = random.Random(3).randbytes(9000)


def attachment(body: bytes, name: str) -> bytes:
    head = f"Content-Type: application/x\r\nContent-Disposition: attachment; filename={name}\r\n"
    encoded = base64.encodebytes(body).replace(b"\n", b"\r\n")
    return head.encode() + b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded


def mail(*parts: bytes, subject: bytes = b"s") -> bytes:
    head = b"From: a@b\r\nSubject: " + subject + b'\r\nContent-Type: multipart/mixed; boundary="b1"\r\n\r\n'
    return head + b"".join(b"--b1\r\n" + part + b"\r\n" for part in parts) + b"--b1--\r\n"


def look(data: Bytes, name: str) -> Finding:
    if EVIL in bytes(data):
        return Finding(["Evil"])
    return Finding(reason="encrypted" if name == "locked.zip" else "")


def judge(stream: bytes, delivered: int = 5, refuse: tuple[str, ...] = (), *, mend: bool = True) -> Judgement:
    (found,) = [f for f in pop3.objects(memoryview(stream), memoryview(b""), limit=LIMIT) if f.letter]
    return mailbox.judge(found, look, delivered=delivered, refuse=refuse, mend=mend, at="now")


def reply(content: bytes) -> bytes:
    return b"+OK\r\n" + content.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def names(stream: bytes, told: Judgement) -> list[str]:
    after = neutralise.patched(stream, told.patches)
    return [part.name for part in mime.contents(after[5:], limit=LIMIT).parts if part.name]


def test_every_infected_part_goes_at_once_and_the_first_one_names_the_verdict() -> None:
    stream = reply(mail(attachment(DATA + EVIL, "a.exe"), attachment(DATA, "b.doc"), attachment(EVIL + DATA, "c.exe")))
    told = judge(stream)
    assert (told.rules, told.name, bytes(told.content)) == (["Evil"], "a.exe", DATA + EVIL)
    assert names(stream, told) == ["sekisho.txt", "b.doc", "sekisho.txt"]
    begin, end = told.taken
    assert base64.encodebytes(DATA + EVIL)[:60] in stream[begin:end] and b"a.exe" in stream[begin:end]


def test_what_policy_refuses_is_replaced_and_what_it_lets_pass_is_only_told() -> None:
    stream = reply(mail(attachment(DATA, "locked.zip"), attachment(DATA, "b.doc")))
    assert judge(stream).patches == [] and judge(stream).reason == "encrypted"
    told = judge(stream, refuse=("encrypted",))
    assert names(stream, told) == ["sekisho.txt", "b.doc"] and told.rules == []


def test_a_fragment_that_policy_does_not_take_goes_as_a_whole() -> None:
    stream = reply(b"From: a@b\r\nContent-Type: message/partial; id=1; number=1\r\n\r\n" + b"text\r\n" * 400)
    assert judge(stream).patches == []
    told = judge(stream, refuse=("unparsable",))
    assert b"text\r\ntext" not in neutralise.patched(stream, told.patches)


def test_what_is_found_in_no_part_takes_all_of_the_mail_with_it() -> None:
    stream = reply(mail(attachment(DATA, "b.doc"), subject=b"x" + EVIL))
    told = judge(stream)
    assert EVIL not in neutralise.patched(stream, told.patches) and told.rules == ["Evil"]


def test_a_box_that_only_watches_plans_nothing() -> None:
    told = judge(reply(mail(attachment(EVIL + DATA, "a.exe"))), mend=False)
    assert told.rules == ["Evil"] and told.patches == [] and not told.more


def test_half_a_file_is_not_called_damaged() -> None:
    stream = reply(mail(attachment(DATA, "a.zip")))[:4000]
    (found,) = [f for f in pop3.objects(memoryview(stream), memoryview(b""), limit=LIMIT) if f.letter]
    told = mailbox.judge(
        found, lambda data, name: Finding(reason="damaged" if name else ""), delivered=5, refuse=("damaged",),
        mend=True, at="now",
    )  # fmt: skip
    assert (told.reason, told.patches) == ("", [])


K = 1 << 10


@pytest.mark.parametrize(
    ("there", "more", "expected"),
    [
        (100 * K, {}, 98 * K),
        (100 * K, {"full": 30 * K}, 0),
        (100 * K, {"looked": 100 * K}, 98 * K),
        (100 * K, {"looked": 100 * K, "stalled": True}, 0),
        (141 * K, {}, 0),
        (100 * K, {"app": "imap", "left": 11 * K}, 98 * K),
        (100 * K, {"app": "imap", "left": 10 * K}, 0),
        (100 * K, {"app": "imap"}, 0),
    ],
)
def test_a_long_mail_goes_on_between_looks_but_for_its_last_bytes(
    there: int, more: dict[str, int], expected: int
) -> None:
    facts: dict[str, object] = {"app": "pop3", "full": 70 * K, "looked": 90 * K, "left": 0, "stalled": False}
    stream = memoryview((b"x" * 76 + b"\r\n") * (there // 78 + 1))[:there]
    assert mailbox.may_pass(stream, **(facts | more)) == expected  # type: ignore[arg-type]  # facts of two types


@pytest.mark.parametrize("end", [b"\n--b1", b"\n.\r\n", b"\nend\r\n", b"\n=yend"])
def test_whatever_ends_in_a_mail_has_it_looked_at(end: bytes) -> None:
    stream = bytearray(b"x" * 100 * K)
    stream[95 * K : 95 * K + len(end)] = end
    assert mailbox.may_pass(memoryview(stream), app="pop3", full=70 * K, looked=90 * K, left=0, stalled=False) == 0
    stream = bytearray(b"x" * 100 * K)
    stream[90 * K - 1 : 90 * K - 1 + len(end)] = end  # across the last look's end
    assert mailbox.may_pass(memoryview(stream), app="pop3", full=70 * K, looked=90 * K, left=0, stalled=False) == 0


def test_a_piece_that_was_answered_goes_whole_while_more_is_certain_to_come() -> None:
    stream = b"x" * 100 * K + b")\r\na7 OK done\r\n"
    assert mailbox.may_pass(
        memoryview(stream), app="imap", full=70 * K, looked=90 * K, left=90 * K, stalled=False
    ) == len(stream)


@pytest.fixture(scope="module")
def worker() -> Worker:
    target = io.BytesIO()
    yara.compile(source='rule Evil { strings: $a = "EVIL-CONTENT-1" condition: $a }').save(file=target)
    target.seek(0)
    return Worker(Scanner(target))


def run(worker: Worker, stream: bytes, app: str = "pop3", **more: int) -> tuple[bytes, list[bool]]:
    """What the receiver has after one look, and which objects were infected."""
    job = Job(1, "stream", len(stream), app, mend=True, **more)  # type: ignore[arg-type]  # all of them numbers
    result = worker.run(job, memoryview(stream))
    assert result.error == ""
    patches = [patch for seen in result.objects for patch in seen.patches]
    return neutralise.patched(stream, patches), [bool(seen.rules) for seen in result.objects if seen.mail]


def test_the_worker_goes_on_behind_an_infected_mail(worker: Worker) -> None:
    mails = [mail(attachment(EVIL + DATA, "a.exe")), mail(attachment(DATA, "b")), mail(attachment(EVIL, "c"))]
    stream = b"".join(map(reply, mails)) + b"+OK bye\r\n"
    after, infected = run(worker, stream)
    assert infected == [True, False, True] and len(after) == len(stream)
    assert run(worker, after)[1] == [False, False, False]
    assert reply(mails[1]) in after and after.endswith(b"+OK bye\r\n")


def test_the_worker_blanks_the_rest_of_a_mail_and_looks_at_the_next(worker: Worker) -> None:
    first, second = reply(mail(attachment(EVIL + DATA, "a.exe"))), reply(mail(attachment(EVIL, "b.exe")))
    after, infected = run(worker, first + second, delivered=4000, blank=5)
    assert infected == [False, True] and after[:4000] == first[:4000]
    assert after[4000 : len(first) - 5].strip() == b"" and after[len(first) - 5 : len(first)] == b"\r\n.\r\n"


def test_what_is_found_in_compressed_imap_can_only_be_cut(worker: Worker) -> None:
    packer = zlib.compressobj(wbits=-15)
    body = mail(attachment(EVIL + DATA, "a.exe"))
    packed = packer.compress(b"* 1 FETCH (BODY[] {%d}\r\n%s)\r\n" % (len(body), body)) + packer.flush(zlib.Z_SYNC_FLUSH)
    result = worker.run(Job(1, "stream", len(packed), "imap", mend=True), memoryview(packed))
    assert [(bool(seen.rules), seen.mail) for seen in result.objects] == [(True, False)]


SHARDS = [
    b"--b1\r\n", b"--b1--", b"\r\n", b"\r\n.\r\n", b"..", EVIL, base64.b64encode(EVIL * 9), b"A: b\r\n", b"+OK\r\n",
    b"Content-Type: multipart/mixed; boundary=b1\r\n", b"Content-Transfer-Encoding: base64\r\n\r\n",
    b"* 1 FETCH (BODY[] {90}\r\n", b"* 1 FETCH (BODY[]<0> {30}\r\n", b")\r\n", b"a OK\r\n",
]  # fmt: skip
streams = st.lists(st.sampled_from(SHARDS) | st.binary(max_size=9), max_size=30).map(b"".join)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["pop3", "imap"]), streams, st.data())
def test_no_stream_breaks_the_worker_or_moves_a_byte_that_was_delivered(
    app: str, stream: bytes, data: st.DataObject
) -> None:
    delivered = data.draw(st.integers(0, len(stream)))
    splitter = pop3.objects if app == "pop3" else imap.objects
    before: list[Found] = list(splitter(memoryview(stream), memoryview(b""), limit=LIMIT))
    patches = []
    for found in before:
        if found.letter:
            told = mailbox.judge(found, look, delivered=delivered, refuse=(), mend=True, at="now")
            patches += told.patches
    after = neutralise.patched(stream, patches)
    assert len(after) == len(stream) and after[:delivered] == stream[:delivered]
    assert all(delivered <= patch.offset <= patch.until <= len(stream) for patch in patches)
    if app == "pop3":
        again = list(splitter(memoryview(after), memoryview(b""), limit=LIMIT))
        ends = [(f.start, f.end) for f in before if f.letter and f.complete]
        assert set(ends) <= {(f.start, f.end) for f in again} or delivered
