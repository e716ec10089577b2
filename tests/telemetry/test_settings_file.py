"""Enrolment writes its few settings; every other line stays as its owner wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sekisho.appliance.core import settings
from sekisho.appliance.core.errors import RejectedInput
from sekisho.telemetry.enrolment import settings_file

LINK: settings_file.Values = {
    "host": "mq.example",
    "port": 443,
    "hosts": ["mq2.example", "mq3.example"],
    "ca": "/s/ca.pem",
    "cert": "/s/identity.pem",
    "key": "/s/identity.pem",
    "centre": "https://centre.example",
}
OWNERS = """\
# 本店の箱
help_desk = "情報課 内線 123"  # keep
box = "old" # renamed later

[bridge]
lan = "eth7"

[telemetry] # the centre
host = "old.example"
spool_mb = 64
key="x"
# port = 1

[paths]
state = "/tmp/host = 1"
"""


@pytest.mark.parametrize(
    "text", [settings.DEFAULTS.format(box="new-box"), OWNERS, 'box = "b"\n', 'box = "b"\n[paths]\n']
)
def test_only_what_was_decided_changes(text: str) -> None:
    changed = settings_file.enrolled(text, "tokyo-1", "chamber", LINK)
    read, before = settings.parse(changed), settings.parse(text)
    assert (read.box, read.tenant) == ("tokyo-1", "chamber")
    assert (read.telemetry.host, read.telemetry.port, read.telemetry.centre) == (
        "mq.example",
        443,
        "https://centre.example",
    )
    assert read.telemetry.hosts == ("mq2.example", "mq3.example")
    assert (read.telemetry.spool_mb, read.bridge, read.paths) == (
        before.telemetry.spool_mb,
        before.bridge,
        before.paths,
    )
    assert settings_file.enrolled(changed, "tokyo-1", "chamber", LINK) == changed
    kept = [line for line in text.splitlines() if line.startswith("#")]
    assert set(kept) <= set(changed.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        'box = "b"\ntelemetry = { host = "x" }\n',
        'box = "b"\ntelemetry.host = "x"\n',
        'box = "b"\nhelp_desk = """\nbox = 1\n"""\n',
    ],
)
def test_a_file_that_would_be_bent_is_left_alone(text: str) -> None:
    settings.parse(text)
    with pytest.raises(RejectedInput):
        settings_file.enrolled(text, "b", "t", LINK)


def test_owner_and_mode_stay(tmp_path: Path) -> None:
    path = tmp_path / "box.toml"
    path.write_text(OWNERS)
    path.chmod(0o604)
    settings_file.write(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o604)
