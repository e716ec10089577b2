"""What other boxes found malicious is stopped by a running worker, and let pass again when it is withdrawn."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yara

from sekisho.appliance.core.known import BY_FLEET
from sekisho.inspect.fleet import Listed, Published
from sekisho.inspect.scanner import Limits, Scanner

FILE = b"a file that no rule knows"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bad.bin"


@pytest.fixture
def published(path: Path) -> Iterator[Published]:
    made = Published(path)
    yield made
    made.close()


def put(path: Path, *files: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(b"".join(sorted(hashlib.sha256(file).digest() for file in files)))
    new.rename(path)


def scanner(published: Published) -> Scanner:
    rules = io.BytesIO()
    yara.compile(source='rule EVIL { strings: $a = "EVIL" condition: $a }').save(file=rules)
    rules.seek(0)
    return Scanner(rules, fleet=Listed(published.fd))


def look(one: Scanner, data: bytes) -> list[str]:
    return one.look(data, name="f", limits=Limits(time.monotonic() + 10)).rules


def test_it_is_stopped_as_soon_as_the_list_says_so_and_passes_again_when_it_does_not(
    path: Path, published: Published
) -> None:
    one = scanner(published)
    assert look(one, FILE) == []
    put(path, FILE, b"another")
    assert published.refresh()
    assert look(one, FILE) == [BY_FLEET]
    put(path, b"another")
    assert published.refresh()
    assert look(one, FILE) == []


def test_our_own_rules_go_before(path: Path, published: Published) -> None:
    one = scanner(published)
    assert look(one, b"EVIL") == ["EVIL"]
    put(path, b"EVIL")
    published.refresh()
    assert look(one, b"EVIL") == ["EVIL"]


def test_nothing_changes_while_the_file_does_not(path: Path, published: Published) -> None:
    assert not published.refresh()
    put(path, FILE)
    assert published.refresh() and not published.refresh()


def test_a_damaged_file_leaves_the_last_list(path: Path, published: Published) -> None:
    put(path, FILE)
    published.refresh()
    path.write_bytes(b"x" * 33)
    assert not published.refresh()
    assert hashlib.sha256(FILE).digest() in Listed(published.fd)
