"""The page of numbers: charts with their tables, and the same as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
from office import THEM, Office
from playground import FLOW, every_kind

from sekisho.telemetry import events as ev

Ago = Callable[..., str]


@pytest.mark.parametrize("by", ["day", "week", "month", "nonsense"])
def test_what_was_found_is_counted_by_function_and_device(office: Office, ago: Ago, by: str) -> None:
    office.feed(*every_kind(ago(seconds=5)))
    page = office.client().get(f"/statistics?by={by}").text
    row = page.split("機能ごとの数")[1].split("URLフィルター</th>")[1].split("</tr>")[0]
    assert row.count('<td class="number">1</td>') == 2, "one blocked, one let through by an exception"
    assert "DESKTOP-01" in page
    assert page.count("<figure") == 1
    assert page.count("<svg") >= 1
    assert "問題のなかったファイル: 1" in page


def test_nothing_found_is_said_so(office: Office) -> None:
    page = office.client(locale="en").get("/statistics").text
    assert "There were none in this time." in page


def test_the_file_has_the_numbers_of_the_page(office: Office, ago: Ago) -> None:
    office.feed(*(ev.Alert(at=ago(seconds=n), flow=FLOW, action="blocked", count=2) for n in range(3)))
    answer = office.client(locale="en").get("/statistics.csv?by=month")
    assert answer.headers["content-disposition"] == 'attachment; filename="statistics-month.csv"'
    heads, line = list(csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert heads == ["Period from", "Function", "Blocked", "Detected only", "Let through by exception", "Clean files"]
    assert line[1:] == ["Detection of attacks", "6", "0", "0", "0"]


@pytest.mark.parametrize("path", ["/statistics", "/statistics.csv"])
def test_another_customers_numbers_are_not_in_it(office: Office, ago: Ago, path: str) -> None:
    office.feed(ev.Alert(at=ago(seconds=5), flow=FLOW, action="blocked", count=777_777), tenant=THEM)
    assert "777" not in office.client().get(path).text
    assert "777" in office.client("operator", THEM).get(path).text
