"""The lab's centre hands out what it signed, to the box, over the way a box has."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pytest

from sekisho.lab import sets
from sekisho.lab.lab import Lab

pytestmark = [pytest.mark.lab]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(f"ld{os.getpid()}-c") as made:
        made.up(channel=True, stopped=["signatures"])
        yield made


def test_a_published_set_and_the_way_from_the_one_before_it_are_there_for_the_box(lab: Lab) -> None:
    lab.channel.publish(1, sets.small())
    newer = lab.channel.publish(2, sets.of_day(sets.small(), 1, changed=2, added=1))
    assert [way.base for way in newer.deltas] == [1]
    chain = lab.channel.tree.chain()
    for path, length in ((newer.path, newer.packed), (newer.deltas[0].path, newer.deltas[0].length)):
        digest = chain.sig.signed.targets[path].hashes["sha256"]
        url = f"{lab.channel.url}/targets/sig/{digest}.{path.removeprefix('sig/')}"
        got = lab.run("box", ["curl", "-sf", "--cacert", str(lab.lay.authority / "ca.crt"), url], check=True).stdout
        assert hashlib.sha256(got).hexdigest() == digest
        asked = lab.channel.asked()[-1]
        assert (asked.status, len(got)) == (200, length)
        assert length < asked.sent < length + 1000, "bytes are counted with their heads"
    assert lab.run("box", ["curl", "-sf", lab.channel.url]).returncode == 60, "only with the lab's own authority"
