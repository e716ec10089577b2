"""Everything the openers load on first use, loaded before the worker gives up its right to open files."""

from __future__ import annotations

import codecs
import contextlib
import io
import time
import zipfile
import zlib

from sekisho.inspect.containers import walk
from sekisho.inspect.containers.budget import Budget

_CODECS = (
    "ascii latin-1 utf-8 utf-8-sig utf-7 utf-16 utf-16-le utf-16-be utf-32-le cp437 cp850 cp932 cp936 cp949 cp950 "
    "cp1250 cp1251 cp1252 cp1253 cp1254 euc_jp euc_kr shift_jis iso2022_jp iso2022_kr gb2312 gbk gb18030 big5 "
    "iso8859_2 iso8859_15 koi8_r unicode_escape raw_unicode_escape quopri base64 uu idna punycode"
)
"""Names of members and of mails come in these; another one is shown with replacement signs."""


def warm() -> None:
    """Open one small file of each kind."""
    for name in _CODECS.split():
        with contextlib.suppress(LookupError):
            codecs.lookup(name)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("表.txt", b"text")
    tar = b"x".ljust(257, b"\0") + b"ustar\x0000"
    samples = [packed.getvalue(), tar.ljust(1024, b"\0"), zlib.compress(b"x"), b"7z\xbc\xaf\x27\x1c".ljust(64, b"\0")]
    samples += [b"Rar!\x1a\x07\x01\0".ljust(64, b"\0"), b"Rar!\x1a\x07\0".ljust(64, b"\0"), b"MSCF\0\0\0\0".ljust(64)]
    samples += [b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".ljust(2048, b"\0"), b"\x1f\x8b\x08" + bytes(20)]
    samples += [b"\x28\xb5\x2f\xfd" + bytes(9), b"BZh9" + bytes(9), b"\xfd7zXZ\0" + bytes(9), b"\x5d\0\0" + bytes(20)]
    samples += [b"%PDF-1.4\n<< /ASCII85Decode >>stream\nabc~>endstream", b"{\\rtf1 " + b"d0cf11e0" * 16, b"QUJD" * 60]
    samples += [b"Subject: =?iso-2022-jp?B?GyRCTX0bKEI=?=\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\ntext"]
    samples += [b"\x1f\x9d\x90" + bytes(9), b"\x04\x22\x4d\x18" + bytes(9), b"LZIP" + bytes(30)]
    samples += [bytes(0x8001) + b"CD001".ljust(4096, b"\0")]
    for sample in samples:
        budget = Budget(len(sample), 1 << 20, 100, 2, time.monotonic() + 5)
        for _ in walk.members(sample, "x", budget):
            pass
