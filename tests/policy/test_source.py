"""The policy file: the commented one is valid as it stands and with every line in force; mistakes are named."""

from __future__ import annotations

import datetime as dt
import re
from importlib import resources
from pathlib import Path

import msgspec
import pytest

from sekisho.appliance.core.errors import RejectedInput
from sekisho.policy import model, source

SHIPPED = (resources.files("sekisho.policy") / "shipped" / "policy.toml").read_text()


def uncommented() -> str:
    return re.sub(r"^# (?=[a-z_]+ = |\[\[)", "", SHIPPED, flags=re.M)


def test_the_commented_file_is_the_empty_policy_and_shows_every_table() -> None:
    assert source.parse(SHIPPED) == model.Policy()
    full = source.parse(uncommented())
    shown = {field.name for field in msgspec.structs.fields(full) if getattr(full, field.name)}
    assert shown == {field.name for field in msgspec.structs.fields(full)}


def test_no_file_is_an_empty_policy_and_a_huge_one_is_refused(tmp_path: Path) -> None:
    assert source.load(tmp_path / "none.toml") == model.Policy()
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * (source.MAX_POLICY_BYTES + 1))
    with pytest.raises(RejectedInput, match="larger"):
        source.load(huge)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[group]]\nname = "a"', "neither devices nor kinds"),
        ('[[group]]\nname = "a"\ndevices = ["nonsense"]', "nonsense"),
        ('[[group]]\nname = "A b"\ndevices = ["10.0.0.1"]', "name"),
        ('[[url_category]]\ncategories = ["adult"]\ngroups = ["x"]', "no group 'x'"),
        ('[[url_category]]\ncategories = ["adult"]\nschedule = "x"', "no schedule 'x'"),
        ('[[url_category]]\ncategories = ["adult"]\naction = "drop"', "drop"),
        ('[[schedule]]\nname = "a"\ntimes = ["mon 25:00-26:00"]', "25:00"),
        ('[[firewall]]\nname = "a"\nservices = ["tcp/0"]', "tcp/0"),
        ('[[firewall]]\nname = "a"\nservices = ["sctp/1"]', "sctp/1"),
        ('[[firewall]]\nname = "a"\nremote = ["x.example"]', "x.example"),
        ('[[isolation]]\nname = "a"', "names no device"),
        ('[[exception]]\nid = "a"\nreason = "b"', "either a function or sids"),
        ('[[exception]]\nid = "a"\nreason = ""\nsids = [1]', "reason"),
        ('[[exception]]\nid = "a"\nreason = "b"\nfunction = "firewall"\ndomains = ["a.example"]', "not names"),
        ('[[signatures]]\naction = "block"', "needs sids"),
        ('zone = "Mars/Olympus"', "Mars/Olympus"),
        ("colour = 1", "colour"),
        ("=", "policy"),
    ],
)
def test_a_mistake_is_refused_and_named(text: str, said: str) -> None:
    with pytest.raises(RejectedInput, match=re.escape(said)):
        source.parse(text)


def test_networks_macs_and_services_have_one_spelling() -> None:
    assert source.network("192.168.1.77/24") == "192.168.1.0/24"
    assert source.network("2001:DB8::1") == "2001:db8::1/128"
    assert source.mac("AA-BB-CC-00-11-22") == "aa:bb:cc:00:11:22"
    assert source.service("udp/1000-2000") == model.Service("udp", 1000, 2000)


def test_a_date_ends_with_its_day_in_the_policys_zone() -> None:
    zone = dt.timezone(dt.timedelta(hours=9))
    text = '[[exception]]\nid = "a"\nreason = "b"\nsids = [1]\nexpires = '
    day, moment = (source.parse(text + end).exception[0].expires for end in ("2031-03-31", "2031-03-31T12:00:00Z"))
    assert day is not None and moment is not None
    assert source.end_of(day, zone) == dt.datetime(2031, 4, 1, tzinfo=zone)
    assert source.end_of(moment, zone) == dt.datetime(2031, 3, 31, 12, tzinfo=dt.UTC)
