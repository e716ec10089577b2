"""Mails that carry one file each, in all the ways that some mail program opens and many a scanner does not."""

from __future__ import annotations

import base64
import binascii
import quopri

CTE = b"Content-Transfer-Encoding: base64"
QP = b"Content-Transfer-Encoding: quoted-printable"


def multipart(part: bytes, boundary: bytes = b"b1", header: bytes = b"", end: bytes = b"\r\n--b1--\r\n") -> bytes:
    head = header or b'Content-Type: multipart/mixed; boundary="' + boundary + b'"\r\n'
    return (
        b"From: a@b\r\nSubject: x\r\nMIME-Version: 1.0\r\n" + head + b"\r\npreamble\r\n--b1\r\n"
        b"Content-Type: text/plain\r\n\r\nhello\r\n--b1\r\n" + part + end
    )


def attachment(encoding: bytes, body: bytes) -> bytes:
    return b"Content-Type: application/x; name=a.exe\r\n" + encoding + b"\r\n\r\n" + body


def yenc(data: bytes) -> bytes:
    out = b"".join(
        b"=" + bytes([(c + 106) & 255]) if (c + 42) & 255 in b"\0\r\n=" else bytes([(c + 42) & 255]) for c in data
    )
    return b"=ybegin line=128 size=%d name=a.exe\r\n" % len(data) + out + b"\r\n=yend size=1\r\n"


def cases(secret: bytes) -> dict[str, bytes]:
    """By name; the file is `secret`."""
    b64 = base64.encodebytes(secret).replace(b"\n", b"\r\n")
    uu = b"begin 644 a.exe\r\n" + b"".join(
        binascii.b2a_uu(secret[i : i + 45]).replace(b"\n", b"\r\n") for i in range(0, len(secret), 45)
    ) + b"`\r\nend\r\n"  # fmt: skip
    junked = b"!*".join(b64[i : i + 7] for i in range(0, len(b64), 7))
    chunked = b"".join(base64.b64encode(secret[i : i + 100]) + b"\r\n" for i in range(0, len(secret), 100))
    inner = multipart(attachment(CTE, b64))
    return {
        "plain": multipart(attachment(CTE, b64)),
        "no final boundary": multipart(attachment(CTE, b64), end=b""),
        "line feeds alone": multipart(attachment(CTE, b64)).replace(b"\r\n", b"\n"),
        "upper case and comments": multipart(attachment(b"CONTENT-TRANSFER-ENCODING : (x) BASE64 ;", b64)),
        "folded header": multipart(attachment(b"Content-Transfer-Encoding:\r\n\t base64", b64)),
        "encoding said twice": multipart(attachment(b"Content-Transfer-Encoding: 7bit\r\n" + CTE, b64)),
        "encoding lies": multipart(attachment(b"Content-Transfer-Encoding: 7bit", b64)),
        "encoding unknown": multipart(attachment(b"Content-Transfer-Encoding: x-y", b64)),
        "quoted-printable lies": multipart(attachment(QP, b64)),
        "no header": multipart(b"\r\n" + b64),
        "boundary not declared": multipart(attachment(CTE, b64), header=b"Content-Type: multipart/mixed\r\n"),
        "boundary declared wrongly": multipart(attachment(CTE, b64), b"other"),
        "boundary in pieces": multipart(
            attachment(CTE, b64), header=b'Content-Type: multipart/mixed; boundary*0="b"; boundary*1="1"\r\n'
        ),
        "junk in base64": multipart(attachment(CTE, junked)),
        "padding in the middle": multipart(attachment(CTE, chunked)),
        "short lines": multipart(attachment(b"", base64.b64encode(secret).replace(b"A", b"\r\nA"))),
        "one long line": multipart(attachment(CTE, base64.b64encode(secret))),
        "quoted-printable": multipart(attachment(QP, quopri.encodestring(secret))),
        "undeclared quoted-printable": multipart(attachment(b"", quopri.encodestring(secret))),
        "uuencode": multipart(attachment(b"Content-Transfer-Encoding: x-uuencode", uu)),
        "uuencode in text": multipart(b"Content-Type: text/plain\r\n\r\nsee below\r\n" + uu),
        "yenc": multipart(attachment(b"", yenc(secret))),
        "8bit": multipart(attachment(b"Content-Transfer-Encoding: binary", secret)),
        "single part": b"From: a@b\r\n" + attachment(CTE, b64),
        "mail in mail": multipart(b"Content-Type: message/rfc822\r\n\r\n" + inner.replace(b"b1", b"b2")),
        "mail in base64": multipart(attachment(CTE, base64.encodebytes(inner))),
        "same boundary twice": multipart(b"Content-Type: message/rfc822\r\n\r\n" + inner),
        "data url": multipart(
            b"Content-Type: text/html\r\n\r\n<a href=data:x;base64," + base64.b64encode(secret) + b">x</a>"
        ),
        "in the preamble": b"Content-Type: multipart/mixed; boundary=b1\r\n\r\n" + b64 + b"\r\n--b1--\r\n",
        "in the epilogue": multipart(b"Content-Type: text/plain\r\n\r\nx", end=b"\r\n--b1--\r\n" + b64),
        "section alone": b64,
    }  # fmt: skip
