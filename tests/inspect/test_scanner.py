"""The scanner's interface: what is remembered, what is never remembered, what a rule may know of a member."""

from __future__ import annotations

import gzip
import io
import time
import zlib
from pathlib import Path

import yara
from confined import EICAR, EXTERNALS, Confined
from packing import zipped

from sekisho.inspect.scanner import Finding, Limits, Scanner

SLOW = "rule Slow { condition: for all i in (0..3000000) : (uint8(i % 10) >= 0) and filesize < 0 }"
NEVER = "rule Never { condition: for all i in (0..100000000) : (uint8(i % 10) >= 0) and filesize < 0 }"


def scanner(source: str) -> Scanner:
    compiled = io.BytesIO()
    yara.compile(source=source, externals=EXTERNALS).save(file=compiled)
    compiled.seek(0)
    return Scanner(compiled)


def look(it: Scanner, data: bytes, name: str = "a.bin", seconds: float = 30.0) -> tuple[Finding, float]:
    """(what is found, CPU seconds it took)."""
    began = time.process_time()
    finding = it.look(data, name=name, limits=Limits(time.monotonic() + seconds))
    return finding, time.process_time() - began


def test_a_file_seen_before_is_not_matched_again() -> None:
    it = scanner(SLOW)
    first, cost = look(it, b"some content")
    assert first.rules == []
    assert cost > 0.05
    again, later = look(it, b"some content")
    assert again == first
    assert later < cost / 5


def test_a_member_seen_before_is_not_matched_again() -> None:
    it = scanner(SLOW)
    _, cost = look(it, zipped(("logo", b"content")))
    _, both = look(it, zipped(("logo", b"content"), ("logo2", b"content")))
    assert both < cost * 0.9, "the second archive is new, its member is not"


def test_another_name_is_another_file() -> None:
    it = scanner('rule Named { condition: extension == "exe" and filename contains "invoice" }')
    assert look(it, b"x" * 50, "photo.jpg")[0].rules == []
    assert look(it, b"x" * 50, "invoice.exe")[0].rules == ["Named"]
    assert look(it, zipped(("invoice.EXE", b"x" * 50)), "photo.zip")[0].inner == "invoice.EXE"


def test_what_ran_out_of_time_is_looked_at_again() -> None:
    it = scanner(NEVER)
    for _ in range(2):
        finding, _ = look(it, b"content", seconds=1.0)
        assert (finding.rules, finding.reason) == ([], "timeout")


def test_a_listed_hash_needs_no_rule_and_is_found_inside_too() -> None:
    bad = b"a file that no rule knows"
    compiled = io.BytesIO()
    yara.compile(source="rule Nothing { condition: false }", externals=EXTERNALS).save(file=compiled)
    compiled.seek(0)
    digest = bytes.fromhex(look(scanner("rule N { condition: false }"), bad)[0].sha256)
    it = Scanner(compiled, digest)
    assert look(it, bad)[0].rules == ["known_file"]
    assert look(it, gzip.compress(bad), "a.txt.gz")[0].inner == "a.txt"
    assert look(it, b"another")[0].rules == []


def test_every_reason_is_told_and_the_first_counts() -> None:
    it = scanner("rule N { condition: false }")
    encrypted = b"%PDF-1.7\ntrailer << /Encrypt 5 0 R >>"
    broken = gzip.compress(bytes(range(256)) * 9)[:-90]
    finding, _ = look(it, zipped(("a.pdf", encrypted), ("b.gz", broken)))
    assert (finding.reason, finding.reasons) == ("encrypted", ["encrypted", "damaged"])


def test_private_rules_are_not_told() -> None:
    it = scanner("private rule Helper { condition: true } rule Found { condition: Helper and filesize > 3 }")
    assert look(it, b"content")[0].rules == ["Found"]


def test_a_container_beyond_the_memory_is_an_outcome_and_its_raw_form_was_matched(tmp_path: Path) -> None:
    worker = Confined(tmp_path, memory_mb=200)
    try:
        grows = zlib.compress(bytes(110 << 20))
        seen = worker.look(zipped(("a", grows), ("b", grows + b"1")))
        assert seen.reason in ("too_large", "bomb", "damaged")
        assert worker.look(zipped(("bad", EICAR))).inner == "bad"
        assert worker.pool.lost == 0
    finally:
        worker.close()
