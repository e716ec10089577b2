"""The small client that the public conformance suite drives, and what a full disk does to the room."""

from __future__ import annotations

import datetime as dt
import errno
from pathlib import Path

import pytest
from forge import Forge, Memory
from hostile import Hostile, answers_of

from sekisho.appliance.cli import main
from sekisho.signatures.trust import ChannelUnfit, Disk, Trust


def test_a_repository_is_begun_refreshed_and_downloaded_from_and_forgeries_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge = Forge(dt.datetime.now(dt.UTC))
    (tmp_path / "root.json").write_bytes(forge.trusted)
    with Hostile(answers_of(forge.files)) as server:
        here = ["signatures", "tuf-client", "--metadata-dir", str(tmp_path / "md")]
        there = ["--metadata-url", f"{server.url}/metadata", "--target-base-url", f"{server.url}/targets"]
        wanted = ["--target-name", "sig/set.json", "--target-dir", str(tmp_path / "got")]
        assert main([*here, *there, "refresh"]) == 1
        assert main([*here, "init", str(tmp_path / "root.json")]) == 0
        assert server.asked == []
        assert main([*here, *there, "refresh"]) == 0
        assert main([*here, *there, *wanted, "download"]) == 0
        assert b'"number":1' in (tmp_path / "got" / "sig%2Fset.json").read_bytes()
        asked = len(server.asked)
        assert main([*here, *there, *wanted, "download"]) == 0
        assert not [path for path, _ in server.asked[asked:] if path.startswith("/targets")]
        forge.timestamp.version = 0
        server.answers = answers_of({**forge.files, "metadata/timestamp.json": forge.sign("timestamp")})
        capsys.readouterr()
        assert main([*here, *there, "refresh"]) == 1
        assert capsys.readouterr().err.startswith(("rolled_back ", "forged "))


class Full(Disk):
    """Has room for so many more writes."""

    room = 10**9

    def write(self, path: Path, data: bytes, at: int | None = None, mode: int = 0o600) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        super().write(path, data, at, mode)


def test_a_disk_that_fills_up_at_any_write_loses_nothing_and_the_next_refresh_mends_it(tmp_path: Path) -> None:
    forge = Forge()
    disk = Full()
    trust = Trust(tmp_path / "box", forge.trusted, Memory(forge), disk)
    trust.refresh(forge.now.timestamp())
    trust.manifest()
    for room in range(20):
        forge.put_set(room + 2)
        forge.release("sig")
        disk.room, before = room, trust.floors.number
        try:
            trust.refresh(forge.now.timestamp())
            trust.manifest()
        except ChannelUnfit as err:
            assert err.code == "disk_full"
        else:
            break
        assert Trust(tmp_path / "box", forge.trusted, Memory(forge)).floors.number >= before
        disk.room = 10**9
        trust.refresh(forge.now.timestamp())
        assert trust.manifest().number == room + 2
    assert room > 3
