"""The page instead of what was refused: fits, is whole, says why in two languages, carries nobody's text unescaped."""

from __future__ import annotations

import http.client
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.inspect import pages
from sekisho.policy import model

HEADER = Path(pages.__file__).with_name("gate.h")


class _Wire:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self.data)


def received(data: bytes) -> tuple[http.client.HTTPResponse, str]:
    """The page as an HTTP client reads it."""
    response = http.client.HTTPResponse(cast(Any, _Wire(data)))
    response.begin()
    body = response.read()
    assert len(body) == int(response.headers["content-length"])
    assert data.endswith(body), "nothing follows the body"
    return response, body.decode()


class Shape(HTMLParser):
    """The elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, attrs))


PLAIN = Shape(received(pages.page(0))[1]).seen


@pytest.mark.parametrize("why", pages.WHY)
def test_every_page_is_a_whole_response_that_nobody_keeps(why: int) -> None:
    response, text = received(pages.page(why))
    assert response.status == 403
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert (response.headers["cache-control"], response.headers["connection"]) == ("no-store", "close")
    japanese, english = pages.WHY[why]
    assert text.index(japanese) < text.index(english)
    assert text.count(pages.REFERENCE.decode()) == 1


def test_every_function_of_the_policy_has_its_own_page() -> None:
    assert set(model.FUNCTIONS.values()) <= set(pages.WHY)
    assert len({words for pair in pages.WHY.values() for words in pair}) == 2 * len(pages.WHY)
    assert pages.page(9) == pages.page(0)


def test_the_gate_looks_for_the_same_reference_and_takes_pages_of_this_size() -> None:
    header = HEADER.read_text()
    assert f'#define GATE_REFERENCE "{pages.REFERENCE.decode()}"' in header
    assert f"GATE_PAGE_MAX = {pages.MAX_PAGE_BYTES}" in header


@given(st.integers(0, 15), st.text())
def test_any_contact_fits_and_changes_no_element(why: int, contact: str) -> None:
    page = pages.page(why, contact)
    assert len(page) <= pages.MAX_PAGE_BYTES
    _, text = received(page)
    assert Shape(text).seen == PLAIN


@given(st.sampled_from("<>&\"'情😀\r\n"), st.integers(0, 200))
def test_the_widest_characters_fit(character: str, count: int) -> None:
    assert len(pages.page(2, character * count)) <= pages.MAX_PAGE_BYTES


def test_who_to_ask_is_named_in_both_languages() -> None:
    _, text = received(pages.page(1, "情報課 内線 123"))
    assert text.count("情報課 内線 123") == 2
