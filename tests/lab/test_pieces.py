"""The lab's parts that need no namespace: names, sample files, settings text, port tables."""

from __future__ import annotations

import ipaddress
import os
import socket
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core.errors import RejectedInput
from sekisho.lab import layout, ports, samples, toml
from sekisho.lab.layout import Layout

VALUES = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])),
    st.integers(-(2**60), 2**60),
    st.booleans(),
    st.lists(st.text("abc./:", max_size=8), max_size=4),
)
KEYS = st.text("abcdefgh_", min_size=1, max_size=8)


@pytest.mark.parametrize("name", ["", "Sk", "a/b", "-a", "a" * 40, "..", "a b"])
def test_a_lab_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(RejectedInput):
        Layout(name)


def test_every_path_is_below_the_labs_own_folder() -> None:
    lay = Layout("x")
    paths = [lay.box_run, lay.box_state, lay.box_settings, lay.center_store, lay.www, lay.mail, lay.logs, lay.control]
    assert all(path.is_relative_to(layout.ROOT / "x") for path in paths)


@pytest.mark.parametrize("size", samples.SIZES.values())
def test_a_twin_differs_in_its_last_bytes_only(size: int) -> None:
    clean, bad = samples.clean(size), samples.malicious(size)
    assert len(clean) == len(bad) == size
    assert clean[: -len(samples.EICAR)] == bad[: -len(samples.EICAR)]
    assert bad.endswith(samples.EICAR)
    assert samples.EICAR not in clean


def test_the_test_string_has_its_standard_form() -> None:
    assert len(samples.EICAR) == 68
    assert samples.EICAR.startswith(b"X5O!") and samples.EICAR.endswith(b"$H+H*")


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.dictionaries(KEYS, VALUES, max_size=4))
def test_settings_text_reads_back_as_it_was(top: dict[str, toml.Value], inner: dict[str, toml.Value]) -> None:
    table: toml.Table = {**top, "table": inner}
    assert tomllib.loads(toml.dumps(table)) == {**top, "table": inner}


def test_overrides_go_table_by_table() -> None:
    base: toml.Table = {"a": 1, "t": {"x": 1, "y": 2}}
    assert toml.merged(base, {"t": {"y": 3}, "b": 4}) == {"a": 1, "t": {"x": 1, "y": 3}, "b": 4}


def test_a_process_in_our_own_namespace_is_not_taken_for_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)):
        assert ports.listening(os.getpid()) == set()
    assert ports.listening(2**22 + 1) == set()


def test_the_office_is_home_and_the_servers_are_not() -> None:
    home = [ipaddress.ip_network(text) for text in layout.HOME_NETWORKS]

    def is_home(text: str) -> bool:
        return any(ipaddress.ip_address(text) in network for network in home)

    assert is_home(layout.CLIENT4) and is_home(layout.CLIENT6)
    assert not is_home(layout.SERVER4) and not is_home(layout.SERVER6)
