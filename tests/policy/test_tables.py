"""The shipped tables: names in their one spelling, unambiguous, and found from any host of an application."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core.errors import RejectedInput
from sekisho.policy import applications, categories, names, source


def test_every_application_has_names_in_both_languages_and_hosts_of_its_own() -> None:
    table = applications.table()
    assert len(table) > 60
    listed = [name for known in table.values() for name in known.names]
    assert all(names.canonical(name) == name and "." in name for name in listed)
    assert all(known.ja and known.en and (known.names or known.protocols or known.ja4) for known in table.values())
    shared = {name for name in listed if listed.count(name) > 1}
    assert shared == set()


@pytest.mark.parametrize(
    ("host", "protocol", "said"),
    [
        ("r3---sn-abc.googlevideo.com", "tls", "YouTube"),
        ("WWW.YouTube.COM.", "tls", "YouTube"),
        ("drive.google.com", "tls", "Google Drive"),
        ("www.google.com", "tls", "Google"),
        ("notyoutube.com", "tls", ""),
        ("youtube.com.evil.example", "http", ""),
        ("", "rdp", "Remote Desktop (RDP)"),
        ("com", "", ""),
    ],
)
def test_the_longest_listed_name_decides(host: str, protocol: str, said: str) -> None:
    assert applications.find(host, protocol) == said


@given(st.text(max_size=300))
def test_any_text_may_be_looked_up(text: str) -> None:
    assert isinstance(applications.find(text), str)


def test_every_shipped_category_has_dozens_of_names_and_one_for_the_lab() -> None:
    for name in categories.titles():
        found = categories.collect(source.parse(f'[[url_category]]\ncategories = ["{name}"]'), Path("/nowhere"))[name]
        assert found.unused == 0, name
        assert len(found.domains) >= 10 and any(host.endswith(".sekisho.test") for host in found.domains)
    shipped = {path.stem for path in (categories.SHIPPED / "categories").iterdir()}
    assert shipped == set(categories.titles())


def test_an_owners_category_adds_to_a_shipped_one_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("more.example\n")
    text = '[[category]]\nname = "games"\nfiles = ["more.txt"]\ndomains = ["日本語.example"]\n'
    text += '[[url_category]]\ncategories = ["games"]'
    found = categories.collect(source.parse(text), tmp_path)["games"]
    assert {"more.example", "xn--wgv71a119e.example", "roblox.com"} <= found.domains
    with pytest.raises(RejectedInput, match="sports"):
        categories.collect(source.parse('[[url_category]]\ncategories = ["sports"]'), tmp_path)
