"""Looks at one mail on its way to a mailbox program and says what to put in place of what is malicious in it.

Runs in scan workers. Every part in every form is looked at, not only up to the first hit: what is not to be seen
must go all at once. What was planned is looked at again before it is believed; if the rest of the mail still matches,
more of it goes, in the end all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from sekisho.inspect import neutralise
from sekisho.inspect.neutralise import Patch
from sekisho.inspect.notice import Notice
from sekisho.inspect.scanner import Finding
from sekisho.inspect.streams import mime
from sekisho.inspect.streams.found import Bytes, Found
from sekisho.inspect.streams.letter import Letter
from sekisho.inspect.streams.mime import Part

SHORT = 4096
"""Encoded content that is short is looked at as it travels as well."""

SAID_EARLY = ("unparsable", "encrypted")
OFTEN = 64 << 10
"""A mail shorter than this is looked at whole every time."""
OVERLAP = 256
TAIL = 2048
"""What is held back of a mail that goes on without a look at all of it."""
_ENDS = re.compile(rb"\n(?:--|\.\r?\n|end\r?\n|=yend|====)")
"""Delimiter, end of a POP3 reply, of uuencode and yEnc."""
_ANSWERED = re.compile(rb"\)\r\n[!-~]{1,64} OK [^\r\n]*\r\n\Z")
Look = Callable[[Bytes, str], Finding]
"""(content, name) to what is found in it."""


@dataclass(slots=True)
class Judgement:
    """What is to be said and done about one mail."""

    rules: list[str] = field(default_factory=list)
    inner: str = ""
    reason: str = ""
    name: str = ""
    content: Bytes = b""
    """What decided, or the whole mail as it is read."""
    patches: list[Patch] = field(default_factory=list)
    more: bool = False
    """All of the mail that is still to come must become filler."""
    taken: tuple[int, int] = (0, 0)
    """Where in the stream the original of what decided lies, header fields included."""


def judge(found: Found, look: Look, *, delivered: int, refuse: Collection[str], mend: bool, at: str) -> Judgement:
    """Look at a mail; with `mend`, plan what replaces what matched a rule or has a reason in `refuse`.

    `delivered` is a place in the stream, `at` the time as people read it.
    """
    letter = found.letter
    told = Judgement(content=found.parts[0] if found.parts else b"", reason="unparsable" if found.trouble else "")
    if letter is None:
        return told
    hits = _hits(letter, found, look, refuse, told)
    if not told.rules and told.reason in refuse and not hits:
        hits = [None]
    if not hits:
        return told
    told.taken = _range(letter, hits[0])
    if mend:
        notice = Notice(told.name, tuple(told.rules or [told.reason]), at)
        told.patches, told.more = neutralise.plan(letter, hits, delivered, notice)
        if letter.finished and delivered <= letter.stream_at(0) and not _clean(letter, told.patches, look):
            told.patches, told.more = neutralise.plan(letter, [None], delivered, notice)
            if not _clean(letter, told.patches, look):
                told.patches = neutralise.blank(letter, delivered)
    return told


def may_pass(stream: memoryview, *, app: str, full: int, looked: int, left: int, stalled: bool) -> int:
    """How many bytes of an unfinished mail may go on before all of it is looked at again; 0 = look now.

    `full` and `looked` are how much was there at the last whole look and at the last look, `left` how much of the
    mail was then still to come. A long mail is looked at whole when it has doubled, when something in it ends, and
    when its sender has stopped: looking each time its sender waits for a window costs the square of its length. Its
    last bytes stay, unless the client has to ask for more first (IMAP, in pieces).
    """
    there = len(stream)
    if full < OFTEN or stalled or there >= 2 * full or (app == "imap" and there - looked >= left):
        return 0
    fresh = bytes(stream[max(0, looked - OVERLAP) :])
    if _ENDS.search(fresh):
        return 0
    return there if app == "imap" and _ANSWERED.search(fresh) else there - TAIL


def rest(letter: Letter, delivered: int) -> Judgement:
    """What is there of a mail of which the beginning has been replaced."""
    return Judgement(patches=neutralise.blank(letter, delivered), more=not letter.finished)


def _hits(letter: Letter, found: Found, look: Look, refuse: Collection[str], told: Judgement) -> list[Part | None]:
    """The parts to be replaced; None is the mail as a whole. Fills in what they are."""
    hits: list[Part | None] = []
    raw = look(_undecoded(letter), "")
    for part in letter.parts:
        finding = look(part.body, part.name)
        reason = finding.reason
        if not letter.finished and part.end >= len(letter.carrier) - letter.keep and reason not in SAID_EARLY:
            reason = ""  # half an archive is damaged, and no more can be said of it
        told.reason = told.reason or reason
        if finding.rules or reason in refuse:
            hits.append(part)
            if not told.rules and (finding.rules or len(hits) == 1):
                told.rules, told.inner, told.name = finding.rules, finding.inner, part.name
                told.content = part.body
    if raw.rules and not told.rules:
        told.rules, told.inner = raw.rules, raw.inner
        told.content, told.name = found.parts[0], ""
        hits = [None]
    told.reason = "" if told.rules else told.reason or raw.reason
    return hits


def _undecoded(letter: Letter) -> bytes:
    """The mail without the base64 that is looked at as what it decodes to: it is most of a mail, and slow to match."""
    kept, at = [], 0
    for part in letter.parts:
        long = part.encoding == "base64" and part.end - part.start > SHORT and part.start >= at
        if long and len(part.body) * 3 // 2 >= part.end - part.start:
            kept.append(letter.carrier[at : part.start])
            at = part.end
    kept.append(letter.carrier[at:])
    return b"".join(kept)


def _range(letter: Letter, part: Part | None) -> tuple[int, int]:
    """As far as it lies in one stretch."""
    begin, end = (part.head, part.end) if part is not None else (0, len(letter.carrier))
    stop = next((start for start, _ in letter.spans if start > begin), end)
    at = letter.stream_at(begin)
    return at, at + min(end, stop) - begin


def _clean(letter: Letter, patches: list[Patch], look: Look) -> bool:
    """What the reader will have matches nothing."""
    carrier = bytearray(letter.carrier)
    for patch in patches:
        at = letter.carrier_at(patch.offset)
        carrier[at : at + patch.until - patch.offset] = patch.whole()
    text = bytes(carrier[: len(carrier) - letter.keep])
    forms = [text, *(part.body for part in mime.contents(text, limit=2 * len(text) + 4096).parts)]
    return not any(look(form, "").rules for form in forms)


def digest(content: Bytes) -> str:
    """SHA-256 in hex; empty for nothing."""
    return hashlib.sha256(content).hexdigest() if len(content) else ""
