"""The same file under every content coding, rightly and wrongly named, whole and damaged; charsets and parts."""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import struct
import subprocess
import zlib
from collections.abc import Callable

from tricks import Cases, body, chunks, head, length

from sekisho.lab.evader import plain
from sekisho.lab.samples import EICAR

GZIP_HEAD = b"\x1f\x8b\x08%c\0\0\0\0\0\x03"


def raw(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def brotli(data: bytes) -> bytes:
    """Packed by Node, whose library is the format's own."""
    code = "process.stdout.write(require('zlib').brotliCompressSync(require('fs').readFileSync(0)))"
    return subprocess.run(["node", "-e", code], input=data, capture_output=True, check=True, timeout=20).stdout


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-19", "-c"], input=data, capture_output=True, check=True, timeout=20).stdout


def codings() -> Cases:
    """RFC 9110 8.4: every name over every coding."""
    packed: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress, "zlib": zlib.compress, "raw": raw,
        "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE), "xz": lzma.compress, "bz2": bz2.compress,
        "br": brotli, "zstd": zstd, "gzip-gzip": lambda data: gzip.compress(gzip.compress(data)),
        "gzip-raw": lambda data: raw(gzip.compress(data)),
        "raw-gzip": lambda data: gzip.compress(raw(data)),
        "zlib-zlib": lambda data: zlib.compress(zlib.compress(data)), "plain": lambda data: data,
        "gzip-3": lambda data: gzip.compress(gzip.compress(gzip.compress(data))),
        "br-gzip": lambda data: gzip.compress(brotli(data)),
    }  # fmt: skip
    sent = {kind: pack(body(kind)) for kind, pack in packed.items()}
    names = {
        "gzip": b"gzip", "x-gzip": b"x-gzip", "upper": b"GZIP", "deflate": b"deflate", "x-deflate": b"x-deflate",
        "upper-deflate": b"Deflate", "br": b"br", "upper-br": b"BR",
        "zstd": b"zstd", "lzma": b"lzma", "x-lzma": b"x-lzma", "xz": b"xz", "bzip2": b"bzip2",
        "compress": b"compress", "identity": b"identity", "none": b"none", "aws": b"aws-chunked",
        "gzip-gzip": b"gzip, gzip", "gzip-deflate": b"gzip, deflate", "deflate-gzip": b"deflate, gzip",
        "deflate-deflate": b"deflate,deflate", "gzip-3": b"gzip,gzip,gzip", "br-gzip": b"br, gzip",
        "identity-gzip": b"identity, gzip", "gzip-identity": b"gzip, identity", "comma": b"gzip,",
        "lead-comma": b", gzip", "commas": b",,gzip,,", "q": b"gzip;q=1", "semicolon": b"deflate;",
        "quoted": b'"gzip"', "nul": b"gzip\0", "lead-nul": b"\0gzip", "vt": b"\x0bgzip", "ff": b"gzip\x0c",
        "nbsp": b"gzip\xa0", "tab": b"\tgzip\t", "fold": b"\r\n gzip", "fold-lf": b"\n gzip",
        "fold-comma": b"deflate\r\n ,\r\n ", "cr": b"\rgzip", "rfc2047": b"=?UTF-8?B?Z3ppcA==?=", "empty": b"",
        "word": b"lalala", "gzipx": b"gzipx", "gz": b"gz", "zip": b"zip",
    }  # fmt: skip
    fields = {name: (b"Content-Encoding: " + value,) for name, value in names.items()} | {
        "absent": (), "no-space": (b"Content-Encoding:gzip",), "space-colon": (b"Content-Encoding : gzip",),
        "tab-colon": (b"Content-Encoding\t: gzip",), "colons": (b"Content-Encoding:: gzip",),
        "name-nul": (b"Content\0-Encoding: gzip",), "name-nul-behind": (b"Content-Encoding\0: gzip",),
        "name-ff": (b"Content-Encoding\x0c: gzip",), "underscore": (b"Content_Encoding: gzip",),
        "lead-space": (b" Content-Encoding: gzip",), "lf-before": (b"X: y\nContent-Encoding: gzip",),
        "cr-before": (b"X: y\rContent-Encoding: gzip",), "name-fold": (b"Content-Encoding\r\n : gzip",),
        "two-gzip": (b"Content-Encoding: gzip", b"Content-Encoding: gzip"),
        "gzip-then-deflate": (b"Content-Encoding: gzip", b"Content-Encoding: deflate"),
        "deflate-then-gzip": (b"Content-Encoding: deflate", b"Content-Encoding: gzip"),
        "gzip-then-identity": (b"Content-Encoding: gzip", b"Content-Encoding: identity"),
        "identity-then-gzip": (b"Content-Encoding: identity", b"Content-Encoding: gzip"),
        "gzip-deflate-then-gzip": (b"Content-Encoding: gzip,deflate", b"Content-Encoding: gzip"),
        "as-transfer": (b"Transfer-Encoding: gzip",), "as-transfer-chunked": (b"Transfer-Encoding: gzip, chunked",),
    }  # fmt: skip
    made: Cases = {}
    for name, field in fields.items():
        for kind, data in sent.items():
            over = chunks(data) if name == "as-transfer-chunked" else data
            made[f"ce-{name}-over-{kind}"] = plain(head(*field, length(over)) + over)
    for kind in ("gzip", "zlib", "raw", "br", "zstd", "gzip-gzip"):
        said = {"zlib": b"deflate", "raw": b"deflate", "gzip-gzip": b"gzip, gzip"}.get(kind, kind.encode())
        line = b"Content-Encoding: " + said
        made[f"ce-chunked-{kind}"] = plain(head(line, b"Transfer-Encoding: chunked") + chunks(sent[kind], 7))
        made[f"ce-by-close-{kind}"] = plain(head(line) + sent[kind])
        made[f"ce-bytewise-{kind}"] = plain(head(line, length(sent[kind])), *(bytes([byte]) for byte in sent[kind]))
        made[f"ce-cut-short-{kind}"] = plain(head(line, length(sent[kind])) + sent[kind][:-2])
        made[f"ce-junk-behind-{kind}"] = plain(head(line) + sent[kind] + b"junk" * 30)
        made[f"ce-junk-before-{kind}"] = plain(head(line) + b"junk" + sent[kind])
        made[f"ce-newline-before-{kind}"] = plain(head(line) + b"\r\n" + sent[kind])
    return made


def damaged() -> Cases:
    """RFC 1950-1952: flags, checksums and ends that a strict reader refuses and a lenient one skips."""
    data = body("damaged")
    good = gzip.compress(data, 9, mtime=0)
    deflated, tail = good[10:-8], good[-8:]
    crc, size = struct.unpack("<II", tail)
    whole = GZIP_HEAD % 0
    bodies = {
        "extra": GZIP_HEAD % 4 + b"\x05\0abcde" + deflated + tail,
        "long-extra": GZIP_HEAD % 4 + b"\xff\xff" + b"e" * 65535 + deflated + tail,
        "name": GZIP_HEAD % 8 + b"file\0" + deflated + tail,
        "long-name": GZIP_HEAD % 8 + b"f" * 70000 + b"\0" + deflated + tail,
        "comment": GZIP_HEAD % 16 + b"word\0" + deflated + tail, "head-crc": GZIP_HEAD % 2 + b"xx" + deflated + tail,
        "all-flags": GZIP_HEAD % 31 + b"\x02\0ab" + b"f\0" + b"c\0" + b"xx" + deflated + tail,
        "flag-32": GZIP_HEAD % 32 + deflated + tail, "flag-64": GZIP_HEAD % 64 + deflated + tail,
        "flag-128": GZIP_HEAD % 128 + deflated + tail, "text-flag": GZIP_HEAD % 1 + deflated + tail,
        "flag-32-stray": whole[:3] + b"\x24" + whole[4:] + b"\0\0" + deflated + tail,
        "method": whole[:2] + b"\x07" + whole[3:] + deflated + tail,
        "crc": whole + deflated + struct.pack("<II", crc ^ 0xFFFFFFFF, size),
        "size": whole + deflated + struct.pack("<II", crc, size ^ 0xFF),
        "no-tail": whole + deflated, "half-tail": whole + deflated + tail[:4],
        "zero-tail": whole + deflated + b"\0" * 8, "members": gzip.compress(data[:40]) + gzip.compress(data[40:]),
        "empty-member-first": gzip.compress(b"") + good, "many-empty-members": gzip.compress(b"") * 50 + good,
        "member-after-junk": gzip.compress(data[:40]) + b"junk" + gzip.compress(data[40:]),
        "members-zeros-between": gzip.compress(data[:40]) + b"\0" * 8 + gzip.compress(data[40:]),
        "stored": whole + _stored(data) + tail, "stored-bytewise": whole + _stored(data, 1) + tail,
        "empty-blocks": whole + b"\x00\x00\x00\xff\xff" * 300 + deflated + tail,
        "sync-flushed": whole + _flushed(data, zlib.Z_SYNC_FLUSH) + tail,
        "full-flushed": whole + _flushed(data, zlib.Z_FULL_FLUSH) + tail,
        "partial-flushed": whole + _flushed(data, zlib.Z_PARTIAL_FLUSH) + tail, "not-final": whole + _unended(data),
        "not-final-tail": whole + _unended(data) + tail, "behind-junk-head": b"\0" + good,
        "error-behind": whole + _unended(data) + b"\xff" * 50, "fixed": whole + _fixed(data) + tail,
        "huffman-only": whole + _fixed(data, zlib.Z_HUFFMAN_ONLY) + tail,
    }  # fmt: skip
    zlibbed = zlib.compress(data)
    bodies_z = {
        "adler": zlibbed[:-4] + b"abcd", "no-adler": zlibbed[:-4], "head-check": b"\x78\x00" + zlibbed[2:],
        "dictionary": b"\x78\xbb\0\0\0\0" + zlibbed[2:], "window": b"\x08\x1d" + zlibbed[2:],
        "method": b"\x77\x85" + zlibbed[2:], "twice": zlibbed + zlibbed, "raw-junk": raw(data) + b"junk" * 10,
        "raw-not-final": _unended(data), "stored": _stored(data), "gzip-head-cut": good[2:],
        "raw-after-empty": b"\x00\x00\x00\xff\xff" * 3 + raw(data), "raw-looks-zlib": b"\x78\x9c" + raw(data),
    }  # fmt: skip
    made = {f"gzip-{name}": head(b"Content-Encoding: gzip", length(sent)) + sent for name, sent in bodies.items()}
    made |= {f"gzip-{name}-by-close": head(b"Content-Encoding: gzip") + sent for name, sent in bodies.items()}
    made |= {
        f"deflate-{name}": head(b"Content-Encoding: deflate", length(sent)) + sent for name, sent in bodies_z.items()
    }
    return {name: plain(sent) for name, sent in made.items()}


def _stored(data: bytes, size: int = 50) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    last = len(parts) - 1
    return b"".join(
        struct.pack("<BHH", number == last, len(part), len(part) ^ 0xFFFF) + part for number, part in enumerate(parts)
    )


def _flushed(data: bytes, how: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [packer.compress(data[at : at + 20]) + packer.flush(how) for at in range(0, len(data), 20)]
    return b"".join(parts) + packer.flush()


def _unended(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)


def _fixed(data: bytes, strategy: int = zlib.Z_FIXED) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 8, strategy)
    return packer.compress(data) + packer.flush()


def charsets_and_parts() -> Cases:
    """Text whose letters are not bytes, and files wrapped in MIME parts or told to be a piece of one."""
    data = body("parts")
    made: dict[str, bytes] = {"mime-none": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + data}
    for charset in (
        "utf-16",
        "utf-16le",
        "utf-16be",
        "utf-32",
        "utf-7",
        "utf-8-sig",
        "cp037",
        "iso2022_jp",
        "shift_jis",
    ):
        sent = data.decode().encode(charset)
        shown = charset.replace("-sig", "").replace("cp037", "ibm037")
        for mark in ("", "-unsaid"):
            kind = b"text/plain" if mark else b"text/html; charset=" + shown.encode()
            made[f"charset-{charset}{mark}"] = (
                b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nConnection: close\r\n%s\r\n\r\n%s" % (kind, length(sent), sent)
            )
    boundary = b"--b\r\nContent-Type: application/octet-stream\r\n\r\n%s\r\n--b--\r\n" % data
    coded = (
        b"--b\r\nContent-Transfer-Encoding: base64\r\nContent-Type: application/octet-stream\r\n\r\n%s\r\n--b--\r\n"
        % base64.encodebytes(data)
    )
    for subtype in ("mixed", "byteranges", "x-mixed-replace", "related", "form-data", "alternative"):
        for name, wrapped in (("part", boundary), ("base64", coded)):
            made[f"multipart-{subtype}-{name}"] = (
                b"HTTP/1.1 200 OK\r\nContent-Type: multipart/%s; boundary=b\r\nConnection: close\r\n%s\r\n\r\n%s"
                % (subtype.encode(), length(wrapped), wrapped)
            )
    size = len(data)
    for name, said in {
        "whole": b"bytes 0-%d/%d" % (size - 1, size),
        "star": b"bytes 0-%d/*" % (size - 1),
        "lie": b"bytes 500-%d/9000" % (500 + size - 1),
        "none": b"",
        "unit": b"pages 1-2/3",
    }.items():
        for status in (b"HTTP/1.1 206 Partial Content", b"HTTP/1.1 200 OK", b"HTTP/1.1 416 No"):
            made[f"range-{name}-{status[9:12].decode()}"] = (
                head(b"Content-Range: " + said, length(data), status=status) + data
            )
    return {name: plain(sent) for name, sent in made.items()} | {"eicar-alone": plain(head(length(EICAR)) + EICAR)}
