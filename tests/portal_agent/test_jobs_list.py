"""What the centre had asked of the box, on the box's own page and by its command: who signed, what, when."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from pagebox import Box, Browser

from sekisho.appliance import cli
from sekisho.appliance.core.jobs import Job, Kind, State
from sekisho.portal_agent import words
from sekisho.portal_agent.jobs import shown
from sekisho.portal_agent.jobs.book import Book, Entry


def asked(box: Box) -> None:
    made = Job(id="01JD3Z9V7M2Q4W8X6Y5T3R1P0N", boxes=["box-1"], kind="quarantine.release", nbf=1, exp=2)
    entry = Entry(
        job=made, digest="", signers=("sato", "tanaka"), state="FAILED", why="refused", detail="<b>no such entry</b>",
        at="2026-11-21T10:00:00.000000Z",
    )  # fmt: skip
    shown.show(box.settings, Book(entries=(entry,)), b"")


def test_the_owner_sees_who_signed_what_and_what_became_of_it(box: Box, owner: Browser) -> None:
    assert "作業を受け持つプログラムが、まだ動いていません" in owner.get("/care").text
    asked(box)
    page = owner.get("/care").text
    assert "隔離解除の記録" in page and "sato, tanaka" in page and "できませんでした" in page
    assert "<b>no such" not in page


def test_the_command_lists_them(box: Box, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "box.toml"
    path.write_text(f'box = "box-1"\n[paths]\nrun = "{box.settings.run}"\nstate = "{box.settings.state}"\n')
    assert cli.main(["box", "jobs", "--settings", str(path)]) == 3
    asked(box)
    assert cli.main(["box", "jobs", "--settings", str(path)]) == 0
    assert "signed by sato, tanaka" in capsys.readouterr().out
    assert cli.main(["box", "jobs", "--settings", str(path), "--json"]) == 0
    assert '"state":"FAILED"' in capsys.readouterr().out


def test_every_kind_and_state_has_its_words() -> None:
    has = words.sentences()
    assert {kind.replace(".", "_") for kind in get_args(Kind)} == set(has["job_kind"])
    assert set(get_args(State)) == set(has["job_state"])
