"""Answers that no ordinary server gives: one file, told so that a client and an inspector may read it differently.

Every case is a name and the bytes (or the `Script`) that go to the client. The ideas are those of the public
HTTP Evader cases and of the gaps between RFC 9112 and what clients accept; each file holds the test string and a
word of its own, so that no case is stopped for another one's sake.
"""

from __future__ import annotations

import zlib

from sekisho.lab.evader import Script, plain
from sekisho.lab.samples import EICAR

OK = b"HTTP/1.1 200 OK"
TYPE = b"Content-Type: application/octet-stream"
SAVE = b'Content-Disposition: attachment; filename="file.bin"'
CLOSE = b"Connection: close"

Cases = dict[str, Script]


def body(name: str) -> bytes:
    """The file of this case, about 200 bytes."""
    return EICAR + b" case %08x " % zlib.crc32(name.encode()) + b"the quick brown fox jumps over the lazy dog " * 3


def head(*fields: bytes, status: bytes = OK, eol: bytes = b"\r\n", end: bytes = b"") -> bytes:
    return eol.join((status, TYPE, SAVE, CLOSE, *fields)) + eol + (end or eol)


def length(data: bytes) -> bytes:
    return b"Content-Length: %d" % len(data)


def chunks(
    data: bytes, size: int = 15, *, form: bytes = b"%x\r\n", after: bytes = b"\r\n", last: bytes = b"0\r\n\r\n"
) -> bytes:
    """`data` in chunks; `form` writes a size and ends its line."""
    parts = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(form % len(part) + part + after for part in parts) + last


def chunk_sizes() -> Cases:
    """RFC 9112 7.1: how a chunk's size, its line and the last chunk may be misspelt."""
    chunked = head(b"Transfer-Encoding: chunked")
    forms = {
        "upper": b"%X\r\n", "zeros": b"%020x\r\n", "many-zeros": b"0" * 300 + b"%x\r\n", "0x": b"0x%x\r\n",
        "0X": b"0X%x\r\n",
        "plus": b"+%x\r\n", "minus": b"-%x\r\n", "space": b" %x\r\n", "tab": b"\t%x\r\n",
        "spaces": b" " * 40 + b"%x\r\n",
        "behind-space": b"%x \r\n", "behind-tab": b"%x\t\r\n", "behind-spaces": b"%x" + b" " * 200 + b"\r\n",
        "extension": b"%x;a=b\r\n", "space-extension": b"%x ; a=b\r\n", "quoted-lf": b'%x;a="\n"\r\n',
        "quoted-size": b'%x;a="\r\n5\r\n"\r\n',
        "long-extension": b"%x;" + b"a" * 5000 + b"\r\n", "comma": b"%x,\r\n", "equals": b"%x=1\r\n",
        "dot": b"%x.0\r\n",
        "letter-g": b"%xg\r\n", "letter-x": b"%xx\r\n", "word": b"%x zz\r\n", "two-words": b"%x 1\r\n",
        "underscore": b"%x_\r\n", "h": b"%xh\r\n",
        "cr": b"%x\r\r\n", "crcr": b"%x\r\r\r\n", "nul": b"%x\0\r\n", "lead-nul": b"\0%x\r\n", "vt": b"%x\x0b\r\n",
        "lead-vt": b"\x0b%x\r\n",
        "ff": b"%x\x0c\r\n", "lead-ff": b"\x0c%x\r\n", "nbsp": b"%x\xa0\r\n", "lead-nbsp": b"\xa0%x\r\n",
        "del": b"%x\x7f\r\n",
        "lf": b"%x\n", "lfcr": b"%x\n\r", "cr-only": b"%x\r", "lf-lf": b"%x\n\n", "lead-crlf": b"\r\n%x\r\n",
        "lead-lf": b"\n%x\r\n",
        "lead-crlf-crlf": b"\r\n\r\n%x\r\n", "lead-cr": b"\r%x\r\n", "lead-lf-space": b"\n %x\r\n",
        "quoted": b'"%x"\r\n',
        "overflow64": b"1000000000000000%x\r\n", "overflow32": b"1000000%02x\r\n",
        "wide": b"ffffffffffffffff0000000000000000%02x\r\n",
        "octal": b"%o\r\n", "decimal": b"%d\r\n", "fullwidth": "０%x\r\n".encode(),
    }  # fmt: skip
    made = {f"chunk-size-{name}": chunked + chunks(body(name), form=form) for name, form in forms.items()}
    afters = {
        "lf": b"\n",
        "none": b"",
        "junk": b"xx\r\n",
        "cr": b"\r",
        "crcrlf": b"\r\r\n",
        "lfcr": b"\n\r",
        "two": b"\r\n\r\n",
        "space": b" \r\n",
    }
    made |= {f"chunk-end-{name}": chunked + chunks(body(name), after=after) for name, after in afters.items()}
    lasts = {
        "missing": b"", "bare": b"0", "line": b"0\r\n", "zeros": b"0" * 40 + b"\r\n\r\n", "extension": b"0;a\r\n\r\n",
        "minus": b"-0\r\n\r\n",
        "plus": b"+0\r\n\r\n", "lf": b"0\n\n", "lfcrcrlf": b"0\n\r\r\n", "junk": b"0 junk\r\n\r\n",
        "trailer": b"0\r\nX: y\r\n\r\n",
        "trailers": b"0\r\n" + b"X: y\r\n" * 500 + b"\r\n", "trailer-length": b"0\r\nContent-Length: 5\r\n\r\n",
        "x": b"x\r\n\r\n",
        "trailer-response": b"0\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "0x0": b"0x0\r\n\r\n", "junk-behind": b"0\r\n\r\n" + b"x" * 500,
    }  # fmt: skip
    made |= {f"chunk-last-{name}": chunked + chunks(body(name), last=last) for name, last in lasts.items()}
    made |= {f"chunk-of-{size}": chunked + chunks(body(str(size)), size) for size in (1, 2, 33, 67, 68, 69, 1000)}
    data = body("chunk-longer")
    made["chunk-longer-than-all"] = chunked + b"ffff\r\n" + data
    made["chunk-longer-ends-a-byte-short"] = chunked + b"%x\r\n%s" % (len(data) + 1, data)
    made["chunk-zero-first"] = chunked + b"0\r\n\r\n" + chunks(body("chunk-zero-first"))
    made["chunk-none-at-all"] = chunked + body("chunk-none-at-all")
    made["chunk-empty-lines-first"] = chunked + b"\r\n" * 5 + chunks(body("chunk-empty-lines-first"))
    made["chunk-space-line-first"] = chunked + b" \r\n" + chunks(body("chunk-space-line-first"))
    made["chunk-of-chunks"] = head(b"Transfer-Encoding: chunked, chunked") + chunks(chunks(body("chunk-of-chunks")), 40)
    made["chunk-of-chunks-said-once"] = chunked + chunks(chunks(body("chunk-of-chunks-said-once"), 400), 1000)
    return {name: plain(data) for name, data in made.items()}


def transfer_codings() -> Cases:
    """RFC 9112 6.1: how "this is chunked" can be half said, with and without a length, over either body."""
    values = {
        "plain": b"chunked", "upper": b"CHUNKED", "mixed": b"cHuNkEd", "comma": b"chunked,",
        "lead-comma": b",chunked", "twice": b"chunked, chunked",
        "identity-behind": b"chunked, identity", "identity": b"identity, chunked", "gzip": b"gzip, chunked",
        "semicolon": b"chunked;", "q": b"chunked;q=1",
        "x": b"x-chunked", "xchunked": b"xchunked", "chunkedx": b"chunkedx", "x-space": b"x chunked",
        "quoted": b'"chunked"', "ticks": b"'chunked'",
        "nul": b"chunked\0", "lead-nul": b"\0chunked", "nul-inside": b"chun\0ked", "vt": b"chunked\x0b",
        "lead-vt": b"\x0bchunked", "ff": b"chunked\x0c",
        "lead-ff": b"\x0cchunked", "nbsp": b"chunked\xa0", "del": b"chunked\x7f", "tab": b"\tchunked\t",
        "fold": b"\r\n chunked", "fold-twice": b"\r\n \r\n chunked",
        "fold-lf": b"\n chunked", "fold-tab": b"\r\n\tchunked", "cr": b"\rchunked", "cr-behind": b"chunked\r",
        "half-folded": b"chun\r\n ked", "empty": b"", "lalala": b"lalala",
        "rfc2047": b"=?UTF-8?B?Y2h1bmtlZA==?=", "bom": b"\xef\xbb\xbfchunked", "percent": b"%63hunked",
    }  # fmt: skip
    fields = {name: b"Transfer-Encoding: " + value for name, value in values.items()} | {
        "no-space": b"Transfer-Encoding:chunked", "space-colon": b"Transfer-Encoding : chunked",
        "tab-colon": b"Transfer-Encoding\t: chunked",
        "colon-colon": b"Transfer-Encoding:: chunked", "lower": b"transfer-encoding: chunked",
        "underscore": b"Transfer_Encoding: chunked",
        "name-nul": b"Transfer\0-Encoding: chunked", "name-nul-behind": b"Transfer-Encoding\0: chunked",
        "name-fold": b"Transfer-Encoding\r\n : chunked",
        "lead-space": b" Transfer-Encoding: chunked", "lead-tab": b"\tTransfer-Encoding: chunked",
        "lead-nul": b"\0Transfer-Encoding: chunked",
        "name-cr": b"Transfer-Encoding\r: chunked", "name-vt": b"Transfer-Encoding\x0b: chunked",
        "no-colon": b"Transfer-Encoding chunked", "lead-cr": b"\rTransfer-Encoding: chunked",
        "lf-before": b"X: y\nTransfer-Encoding: chunked", "cr-before": b"X: y\rTransfer-Encoding: chunked",
        "crcrlf-before": b"X: y\r\r\nTransfer-Encoding: chunked",
        "other-first": b"Transfer-Encoding: lalala\r\nTransfer-Encoding: chunked",
        "other-second": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: lalala",
        "identity-first": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "two": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "te": b"TE: chunked",
        "as-content-encoding": b"Content-Encoding: chunked", "x-field": b"X-Transfer-Encoding: chunked",
    }  # fmt: skip
    made: Cases = {}
    for name, field in fields.items():
        data = body(name)
        for kind, sent in (("chunked", chunks(data)), ("plain", data)):
            made[f"te-{name}-{kind}"] = plain(head(field) + sent)
            made[f"te-{name}-{kind}-length"] = plain(head(field, length(sent)) + sent)
    field = b"Transfer-Encoding: chunked"
    for version in (
        b"HTTP/1.0",
        b"HTTP/0.9",
        b"HTTP/2.0",
        b"HTTP/1.01",
        b"http/1.1",
        b"HTTP/1.2",
        b"HTTP/10.1",
        b"ICY",
    ):
        name = version.decode().lower().replace("/", "")
        data = body(name)
        made[f"te-in-{name}-chunked"] = plain(head(field, status=version + b" 200 OK") + chunks(data))
        made[f"te-in-{name}-plain"] = plain(head(field, status=version + b" 200 OK") + data)
    data = body("te-lengths")
    for name, said in (
        ("short", b"10"),
        ("long", b"9999"),
        ("zero", b"0"),
        ("of-plain", b"%d" % len(data)),
        ("minus", b"-1"),
        ("word", b"abc"),
    ):
        made[f"te-length-{name}-chunked"] = plain(head(b"Content-Length: " + said, field) + chunks(data))
        made[f"te-length-{name}-plain"] = plain(head(field, b"Content-Length: " + said) + data)
    return made


def lengths() -> Cases:
    """RFC 9112 6.3: lengths that are wrong, many, or not numbers."""
    made: dict[str, bytes] = {}
    data = body("length")
    right = len(data)
    values = {
        "plus": b"+%d" % right, "minus": b"-%d" % right, "twice-in-one": b"%d, %d" % (right, right),
        "other-in-one": b"%d, 10" % right, "other-first-in-one": b"10, %d" % right,
        "hex": b"0x%x" % right, "letter": b"%da" % right, "dot": b"%d.9" % right, "semicolon": b"%d;" % right,
        "two-words": b"%d 10" % right, "lead-word": b"10 %d" % right,
        "zeros": b"0000000000000000000000%d" % right, "empty": b"", "word": b"abc", "quoted": b'"%d"' % right,
        "brackets": b"(%d)" % right, "tab": b"\t%d\t" % right,
        "nul": b"%d\0" % right, "vt": b"\x0b%d" % right, "overflow64": b"%d" % (2**64 + right),
        "overflow63": b"%d" % (2**63 + right), "overflow32": b"%d" % (2**32 + right),
        "huge": b"9" * 40, "fold": b"\r\n %d" % right, "fold-second": b"10\r\n %d" % right,
        "fold-first": b"%d\r\n 10" % right, "zero": b"0", "one": b"1", "short": b"%d" % (right - 5),
        "half": b"40", "of-the-string": b"68", "long": b"%d" % (right + 1), "far-longer": b"%d" % (right * 100),
        "exponent": b"2e2", "minus-one": b"-1", "fullwidth": "２０８".encode(),
    }  # fmt: skip
    for name, value in values.items():
        made[f"length-{name}"] = head(b"Content-Length: " + value) + data
        made[f"length-{name}-junk"] = head(b"Content-Length: " + value) + data + b"junk " * 40
        kept = head(b"Content-Length: " + value).replace(CLOSE, b"Connection: keep-alive")
        made[f"length-{name}-kept"] = kept + data
    for name, values_ in {
        "small-large": (10, right),
        "large-small": (right, 10),
        "same": (right, right),
        "zero-right": (0, right),
        "right-zero": (right, 0),
    }.items():
        made[f"lengths-{name}"] = head(*(b"Content-Length: %d" % value for value in values_)) + data
    named = {
        "space-colon": b"Content-Length : 10", "colons": b"Content-Length:: 10", "underscore": b"Content_Length: 10",
        "name-nul": b"Content-Length\0: 10", "lead-space": b" Content-Length: 10", "none": b"X: y",
        "lf-before": b"X: y\nContent-Length: 10", "cr-before": b"X: y\rContent-Length: 10",
    }  # fmt: skip
    for name, field in named.items():
        made[f"length-name-{name}"] = head(field) + data
    return {name: plain(sent) for name, sent in made.items()}
