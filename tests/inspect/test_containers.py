"""Containers, opened by a real worker behind its closed door: what lies inside is found, what is not opened is said."""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import os
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import packing
import pytest
from confined import EICAR, Confined
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import zipped

from sekisho.inspect.containers import ole, walk
from sekisho.inspect.containers.budget import Budget

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Confined]:
    worker = Confined(tmp_path_factory.mktemp("confined"))
    yield worker
    worker.close()


def inside(worker: Confined, data: bytes, name: str = "file.bin") -> str:
    """Where the test string was found; a file in which it can be read as it is would prove nothing."""
    assert EICAR not in data
    seen = worker.look(data, name)
    assert seen.rules == ["Eicar"], f"not found: {seen.reason or 'clean'}"
    return seen.inner


def reason(worker: Confined, data: bytes, name: str = "file.bin") -> str:
    seen = worker.look(data, name)
    assert seen.rules == []
    return seen.reason


PACKED = gzip.compress(EICAR)
"""The test string as it cannot be read in a container that only stores."""
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd.compress,
    "lzma": lambda d: lzma.compress(d, lzma.FORMAT_ALONE), "zz": zlib.compress,
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(COMPRESS))
def test_a_compressed_file_is_opened(worker: Confined, kind: str) -> None:
    packed = COMPRESS[kind](b"EICAR-STAND" * 9 + EICAR)
    assert inside(worker, packed, f"invoice.doc.{kind}") == "invoice.doc"
    assert inside(worker, COMPRESS[kind](packing.tarred(("a", bytes(999)), ("b.exe", PACKED))), "all.tgz")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_is_opened_whatever_its_method(worker: Confined, method: int) -> None:
    assert inside(worker, zipped(("clean.txt", b"x"), ("dir/bad.exe", EICAR), method=method)) == "bad.exe"


@pytest.mark.parametrize(
    "arguments",
    [("--format=7zip",), ("--format=iso9660",), ("--format=newc",), ("--format=pax",), ("--format=ar",),
     ("--format=zip", "--options", "zip:compression=deflate"), ("-z", "--format=ustar"), ("-Z", "--format=pax"),
     ("--lz4", "--format=pax"), ("--lzip", "--format=pax")],
)  # fmt: skip
def test_what_a_real_archiver_makes_is_opened(worker: Confined, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert "member.bin" in inside(worker, packing.bsdtar(tmp_path, PACKED, *arguments))


def test_archives_by_their_published_formats_are_opened(worker: Confined) -> None:
    assert inside(worker, packing.rar5("a.gz", PACKED)) == "a.gz/a"
    assert inside(worker, packing.rar4("a.gz", PACKED)) == "a.gz/a"
    assert inside(worker, packing.cab("a.gz", PACKED)) == "a.gz/a"


def test_archives_inside_others_are_opened(worker: Confined, tmp_path: Path) -> None:
    data = packing.bsdtar(tmp_path, zipped(("b.gz", PACKED)), "--format=7zip", name="a.zip")
    assert inside(worker, gzip.compress(packing.rar5("c.7z", data)), "d.rar.gz").endswith("a.zip/b.gz/b")


@pytest.mark.parametrize("program", [b"MZ" + bytes(5000), b"\xff\xd8\xff\xe0" + bytes(9000), b"PK\x03\x04junk" * 9])
def test_an_archive_behind_something_else_is_opened(worker: Confined, tmp_path: Path, program: bytes) -> None:
    seven = packing.bsdtar(tmp_path, EICAR * 50, "--format=7zip")
    for archive in (zipped(("a", EICAR)), seven, packing.rar5("a.gz", PACKED), packing.cab("a.gz", PACKED)):
        assert inside(worker, program + archive + b"appended" * 50)


def local(name: bytes, data: bytes, *, method: int = 8, flags: int = 0, packed: int | None = None) -> bytes:
    size = len(data) if packed is None else packed
    return struct.pack("<4sHHHIIIIHH", b"PK\x03\x04", 20, flags, method, 0, 0, size, size, len(name), 0) + name + data


def central(name: bytes, size: int, offset: int, *, method: int = 8, flags: int = 0) -> bytes:
    fields = (20, 20, flags, method, 0, 0, size, size, len(name), 0, 0, 0, 0, 0, offset)
    return struct.pack("<4sHHHHIIIIHHHHHII", b"PK\x01\x02", *fields) + name


def ended(body: bytes, *directory: bytes) -> bytes:
    joined = b"".join(directory)
    return body + joined + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, len(directory), len(directory),
                                       len(joined), len(body), 0)  # fmt: skip


def raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


BAD, CLEAN = raw(EICAR), raw(b"clean" * 9)
DISAGREEING = {
    "no directory": local(b"a", BAD),
    "the directory names another member only": ended(
        local(b"a", CLEAN) + local(b"b", BAD), central(b"a", len(CLEAN), 0)
    ),
    "sizes only behind the data": local(b"a", BAD, flags=8, packed=0),
    "the directory says stored": ended(local(b"a", BAD), central(b"a", len(BAD), 0, method=0)),
    "the local header says stored": ended(local(b"a", BAD, method=0), central(b"a", len(BAD), 0)),
    "both say an unknown method": ended(local(b"a", BAD, method=77), central(b"a", len(BAD), 0, method=77)),
    "the directory claims the next member's bytes": ended(
        local(b"a", CLEAN, packed=5000) + local(b"b", BAD), central(b"a", 5000, 0)
    ),
    "names differ": ended(local(b"a.txt", BAD), central(b"b.exe", len(BAD), 0)),
    "two directories": ended(
        ended(local(b"b", BAD), central(b"b", len(BAD), 0)) + local(b"a", CLEAN), central(b"a", len(CLEAN), 0)
    ),
    "a flag says encrypted, and it is not": ended(
        local(b"a", BAD), central(b"a", len(BAD), 0, flags=1)
    ),
    "a signature that is not one": ended(
        local(b"a", BAD).replace(b"PK\x03\x04", b"PK\x03\x05"), central(b"a", len(BAD), 0)
    ),
    "cut off": zipped(("a", EICAR + bytes(99)), ("b", b"x" * 999))[:150],
}  # fmt: skip


@pytest.mark.parametrize("how", sorted(DISAGREEING))
def test_a_zip_that_programs_read_differently_is_read_in_every_way(worker: Confined, how: str) -> None:
    assert inside(worker, DISAGREEING[how]) in ("a", "b", "a.txt", "b.exe")


def test_documents_are_opened(worker: Confined) -> None:
    text = b"\0Attribute VB_Name = \"M\"\r\n' EICAR STANDARD ANTIVIRUS EICAR-STAN EICAR-STANDARD-ANTI\r\n' "
    source = text[1:] + EICAR
    module = b"\xff" * 900 + packing.macro(source)
    office = packing.compound(("VBA_Module", module), ("Other", bytes(9000)))
    assert EICAR not in module
    assert ole.decompressed(packing.macro(source)) == source
    assert inside(worker, office) == "VBA_Module.vba"
    assert inside(worker, packing.compound(("Data", PACKED))) == "Data/Data"
    assert inside(worker, zipped(("word/vbaProject.bin", office)), "a.docm").startswith("vbaProject.bin/")
    for filters, data in (
        (b"/FlateDecode", zlib.compress(EICAR)),
        (b"[/ASCIIHexDecode /FlateDecode]", zlib.compress(EICAR).hex().encode() + b">"),
        (b"[/ASCII85Decode /FlateDecode]", base64.a85encode(zlib.compress(EICAR)) + b"~>"),
        (b"/AHx", EICAR.hex().encode() + b">"),
    ):
        pdf = b"%%PDF-1.7\n1 0 obj\n<< /Length 9 /Filter %b >>\nstream\r\n%b\nendstream\nendobj\n" % (filters, data)
        inside(worker, pdf, "a.pdf")
    assert inside(worker, b"{\\rtf1{\\object\\objdata " + office.hex().encode() + b"}}", "a.rtf")


def test_mails_and_forms_and_pages_are_opened(worker: Confined) -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"] = "=?iso-2022-jp?B?GyRCQEE1YRsoQg==?=", "a@example.test"
    mail.set_content("text")
    mail.add_attachment(zipped(("bad.exe", EICAR)), maintype="application", subtype="zip", filename="請求書.zip")
    assert inside(worker, mail.as_bytes(), "saved.eml").endswith("bad.exe")
    assert inside(worker, zipped(("m.eml", mail.as_bytes()))).startswith("m.eml/")
    form = b'--x1\r\nContent-Disposition: form-data; name="f"; filename="a.zip"\r\n\r\n%b\r\n--x1--\r\n'
    assert inside(worker, form % zipped(("bad.exe", EICAR)))
    page = b"<html><script>var file = atob('%b')</script>" % base64.b64encode(zipped(("a.exe", EICAR * 3)))
    assert inside(worker, page, "index.html") == "index/a.exe"


def test_what_is_encrypted_is_said_to_be(worker: Confined, tmp_path: Path) -> None:
    for how in ("zipcrypt", "aes128", "aes256"):
        options = ("--format=zip", "--options", f"zip:encryption={how}", "--passphrase", "x")
        assert reason(worker, packing.bsdtar(tmp_path, EICAR, *options)) == "encrypted"
    assert reason(worker, packing.rar5("a", EICAR[::-1], secret=True)) == "encrypted"
    assert reason(worker, packing.rar5("a", EICAR[::-1], secret_names=True)) == "encrypted"
    assert reason(worker, packing.rar4("a", EICAR[::-1], secret=True)) == "encrypted"
    assert reason(worker, packing.compound(("EncryptedPackage", b"x"), ("EncryptionInfo", b"x"))) == "encrypted"
    assert reason(worker, packing.compound(("WordDocument", bytes(11) + b"\x01"))) == "encrypted"
    assert reason(worker, packing.compound(("Workbook", b"\x09\x08\x04\0abcd\x2f\0\x02\0"))) == "encrypted"
    assert reason(worker, b"%PDF-1.7\ntrailer << /Encrypt 5 0 R >>") == "encrypted"
    nested = zipped(("a.rar", packing.rar5("a", b"x", secret=True)))
    assert reason(worker, nested) == "encrypted"


def test_a_match_beside_something_encrypted_wins(worker: Confined) -> None:
    seen = worker.look(zipped(("a.rar", packing.rar5("a", b"x", secret=True)), ("b", EICAR)))
    assert (seen.rules, seen.inner, seen.reason) == (["Eicar"], "b", "")


def test_what_cannot_be_read_is_said_to_be_damaged(worker: Confined, tmp_path: Path) -> None:
    seven = packing.bsdtar(tmp_path, bytes(9000), "--format=7zip")
    assert reason(worker, seven.rstrip(b"\0")[:-9]) == "damaged"
    assert reason(worker, gzip.compress(bytes(range(256)) * 9)[:-100]) == "damaged"
    assert reason(worker, ole.MAGIC + bytes(2000)) == "damaged"
    broken = bytearray(zipped(("a", bytes(range(256)) * 20)))
    broken[40] ^= 0xFF
    assert reason(worker, bytes(broken)) in ("damaged", "")


def test_ordinary_files_are_clean_without_a_reason(worker: Confined) -> None:
    office = zipped(("[Content_Types].xml", b"<xml/>" * 99), ("word/document.xml", b"<w>" * 999), ("empty", b""))
    for data in (
        b"text",
        office,
        Path(sys.executable).resolve().read_bytes()[: 4 << 20],
        bytes(100_000),
        gzip.compress(b"x" * 9999),
        zipped(("d/", b"")),
        zipped(),
        packing.tarred(("a", b"x"), ("b", b"")),
    ):
        assert reason(worker, data) == ""  # fmt: skip


def test_the_files_of_this_system_are_opened_without_complaint() -> None:
    """A few of every kind it has: what ordinary programs wrote is neither damaged nor a bomb nor encrypted."""
    kinds: dict[str, list[Path]] = {}
    for root in (Path("/usr/share"), Path("/usr/lib/python3")):
        for folder, _, names in os.walk(root):
            for path in (Path(folder, name) for name in sorted(names)[:40]):
                if path.is_file() and not path.is_symlink() and 0 < path.stat().st_size < 1 << 20:
                    kinds.setdefault(path.suffix.lower()[:8], []).append(path)
    assert len(kinds) > 20
    complaints = {}
    for path in (path for paths in kinds.values() for path in paths[:: max(1, len(paths) // 3)][:3]):
        budget = Budget(path.stat().st_size, 128 << 20, 5000, 6, time.monotonic() + 20)
        for _ in walk.members(path.read_bytes(), path.name, budget):
            pass
        if budget.reasons:
            complaints[str(path)] = budget.reasons
    assert complaints == {}


def nest(data: bytes, levels: int) -> bytes:
    for level in range(levels):
        data = zipped((f"{level}.zip", data))
    return data


def test_the_published_depth_is_opened_and_more_is_told(worker: Confined) -> None:
    assert inside(worker, nest(zipped(("bad", EICAR)), 5)).endswith("/bad")
    assert reason(worker, nest(zipped(("bad", EICAR)), 6)) == "depth"


BOMBS: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "zeros": (lambda: gzip.compress(bytes(150 << 20), 1), ("bomb",)),
    "zeros in layers": (lambda: gzip.compress(gzip.compress(bytes(150 << 20), 1), 9), ("bomb",)),
    "16 to the fifth": (lambda: _spread(5), ("bomb", "too_large")),
    "a crowd of members": (lambda: zipped(*((str(n), b"") for n in range(60_000))), ("too_large",)),
    "a crowd of streams": (lambda: gzip.compress(b"x") * 60_000, ("too_large",)),
    "a crowd in a tar": (lambda: packing.tarred(*((str(n), b"") for n in range(20_000))), ("too_large",)),
    "members on top of each other": (lambda: _overlapping(), ("bomb", "too_large")),
    "a tar that claims to be huge": (lambda: _huge_tar(), ("damaged",)),
    "xz with a giant dictionary": (lambda: lzma.compress(bytes(99), filters=[{"id": lzma.FILTER_LZMA2,
                                   "dict_size": 1 << 30}]), ("damaged",)),
    "places that look like members": (lambda: b"PK\x03\x04" * 2_000_000, ("too_large", "timeout", "damaged")),
    "places that look like archives": (lambda: (b"Rar!\x1a\x07\0" + b"7z\xbc\xaf\x27\x1cMSCF\0\0\0\0") * 200_000,
                                       ("damaged",)),
    "a page of base64": (lambda: b"<html>" + (b"QUJD" * 50 + b" ") * 60_000, ("too_large",)),
}  # fmt: skip


def _spread(levels: int) -> bytes:
    data = zipped(("0", bytes(140 << 20)))
    for level in range(levels):
        data = zipped(*((f"{level}-{n}.zip", data + bytes([n])) for n in range(16)))
    return data


def _overlapping() -> bytes:
    kernel = raw(bytes(1 << 20))
    body = local(b"a", kernel)
    return ended(body, *(central(b"%d" % n, len(kernel), 0) for n in range(4000)))


def _huge_tar() -> bytes:
    whole = bytearray(packing.tarred(("a", b"x" * 512)))
    whole[124:136] = b"77777777777\0"
    whole[148:156] = b" " * 8
    whole[148:156] = b"%06o\0 " % sum(whole[:512])
    return bytes(whole)


@pytest.mark.parametrize("bomb", sorted(BOMBS))
def test_a_bomb_costs_bounded_time_and_memory(worker: Confined, bomb: str) -> None:
    make, outcomes = BOMBS[bomb]
    data = make()
    began = worker.cpu_s()
    assert reason(worker, data) in outcomes
    assert worker.cpu_s() - began < 8
    assert worker.rss_mb() < 400
    assert worker.pool.lost == 0
    assert inside(worker, zipped(("bad", EICAR))) == "bad"


def test_a_file_that_contains_itself_ends() -> None:
    """Nothing new lies deeper: each content is looked at once."""
    budget = Budget(100, 1 << 20, 100, 6, time.monotonic() + 5)
    data = zipped(("a", b"same" * 20), ("b", b"same" * 20), ("c", gzip.compress(b"same" * 20)))
    assert [m.name for m in walk.members(data, "x", budget)] == ["a", "c"]
    assert budget.reasons == []


def test_names_are_no_paths_and_bounded() -> None:
    budget = Budget(100, 1 << 20, 100, 6, time.monotonic() + 5)
    data = zipped(("../../etc/passwd", b"1"), ("C:\\x\\y.exe", b"2"), ("n" * 9999, b"3"))
    assert [m.name[:9] for m in walk.members(data, "x", budget)] == ["passwd", "y.exe", "n" * 9]
    assert all(len(m.path) <= walk.MAX_NAME for m in walk.members(data, "x", budget))


SEEDS = [
    zipped(("a", b"text" * 99), ("b.zip", zipped(("c", b"d")))), gzip.compress(b"abc" * 99),
    packing.rar4("a", b"x" * 50), packing.cab("a", b"x" * 50), packing.rar5("a", b"x" * 50, secret=True),
    packing.compound(("Workbook", b"\x09\x08\x04\0"), ("Data", packing.macro(b"Attribute x" * 9))),
    b"%PDF-1.4 <</Filter /FlateDecode>>stream\n" + zlib.compress(b"xyz" * 99) + b"endstream",
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nQUJD\r\n--x--\r\n",
    packing.tarred(("a", b"x" * 700)), b"{\\rtf1 " + b"d0cf11e0" * 40, b"<html>" + b"QUJD" * 60,
]  # fmt: skip


@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6), st.data())
@settings(max_examples=200, deadline=None)
def test_no_broken_container_raises(seed: bytes, changes: list[tuple[int, int]], more: st.DataObject) -> None:
    data = bytearray(seed)
    for at, value in changes:
        data[at % len(data)] = value
    data = data[: more.draw(st.integers(1, len(data)))]
    budget = Budget(len(data), 1 << 20, 200, 4, time.monotonic() + 5)
    for member in walk.members(bytes(data), "x", budget):
        assert len(member.content) <= (1 << 20) + 1


@pytest.mark.parametrize("around", [0, 300, 100_000])
def test_a_small_file_among_zeros_is_found_in_base64(worker: Confined, around: int) -> None:
    page = b"<script>x='" + base64.b64encode(EICAR + bytes(around + 120)) + b"'</script>"
    assert worker.look(page).rules
