"""What the reader of a mail is told in place of what was removed, in Japanese and English, in the room there is.

Names come from strangers: they are cut and stripped of what is not printable, and travel as base64 or not at all,
so that nothing in them can become a header or a delimiter.
"""

from __future__ import annotations

import base64
import quopri
from dataclasses import dataclass

MAX_NAME = 80
MAX_RULES = 3
_HEAD = b'Content-Type: text/plain; charset=utf-8; name="sekisho.txt"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
_PLAIN_HEAD = b"Content-Type: text/plain\r\n\r\n"
_SMALLEST = b"[sekisho: malware removed]"

_LONG = """\
【セキュリティ通知】この位置にあった添付ファイルは、悪意あるものと判定されたため取り除かれました。
ファイル名: {name}
検出名: {rules}
日時: {at}
取り除いた装置: このネットワークのセキュリティ装置 sekisho (関所)
必要なファイルであれば、送信者に電話など別の手段で確認してください。原本は装置に隔離されています。管理者にご相談ください。

[Security notice] The attachment that was here was found to be malicious and has been removed.
File: {name}
Detected as: {rules}
When: {at}
Removed by: sekisho, the security box of this network
If you expected it, ask the sender by other means, a telephone call for example. The original is kept in the box's
quarantine; your administrator can look at it.
"""
_SHORT = """\
添付ファイル {name} は悪意あるもの ({rules}) と判定され、sekisho が取り除きました。管理者にご相談ください。
The attachment {name} was malicious ({rules}) and was removed by sekisho. Ask your administrator.
"""
_BRIEF = "悪意ある添付を削除しました (sekisho). Malicious attachment removed."


@dataclass(frozen=True, slots=True)
class Notice:
    """The facts of one removal."""

    name: str
    """As the mail calls the file; may be empty."""
    rules: tuple[str, ...]
    at: str
    """Date and time as people read it."""

    def texts(self) -> list[str]:
        """From the fullest to the briefest."""
        facts = {
            "name": _printable(self.name) or "-",
            "rules": _printable(", ".join(self.rules[:MAX_RULES])),
            "at": self.at,
        }
        return [_LONG.format_map(facts), _SHORT.format_map(facts), _BRIEF]


def part(notice: Notice, room: int) -> bytes:
    """A MIME part, header fields first, of at most `room` bytes; empty when nothing fits.

    Its content is base64 wherever that fits: white space behind it is no part of the text (RFC 2045 6.8).
    """
    forms = [_HEAD + _base64(text) for text in notice.texts()]
    return _first([*forms, _PLAIN_HEAD + _SMALLEST, b"\r\n" + _SMALLEST], room)


def text(notice: Notice, room: int, encoding: str) -> bytes:
    """Content alone, in the encoding that a header already announced ("base64", "quoted-printable" or "")."""
    if encoding == "base64":
        return _first([_base64(t) for t in (*notice.texts(), _SMALLEST.decode())], room)
    if encoding == "quoted-printable":
        forms = [quopri.encodestring(t.encode()).replace(b"\n", b"\r\n") for t in notice.texts()]
    else:
        forms = [t.encode().replace(b"\n", b"\r\n") for t in notice.texts()]
    return _first([*forms, _SMALLEST], room)


def _first(forms: list[bytes], room: int) -> bytes:
    return next((form for form in forms if len(form) <= room), b"")


def _base64(words: str) -> bytes:
    return base64.encodebytes(words.replace("\n", "\r\n").encode()).replace(b"\n", b"\r\n")


def _printable(words: str) -> str:
    return "".join(c for c in words if c.isprintable())[:MAX_NAME]
