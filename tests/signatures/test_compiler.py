"""A set comes into force only when the real engines proved it; whatever is wrong, the last good set stays."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yara

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.settings import Inspection, Paths, Settings, Signatures
from sekisho.signatures import compiler, model, tester
from sekisho.signatures.samples import EICAR
from sekisho.signatures.sources import SHIPPED

GOOD = 'drop http any any -> any any (msg:"one"; http.uri; content:"/bad"; classtype:trojan-activity; sid:{}; rev:1;)\n'
GOOD_YARA = 'rule one { strings: $a = "very bad indeed" condition: $a }\n'


class Office:
    """A box's directories with rule sources that a test may break."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rules, self.yara = root / "rules", root / "yara"
        self.rules.mkdir()
        self.yara.mkdir()
        (self.rules / "a.rules").write_text(GOOD.format(1))
        (self.yara / "a.yar").write_text(GOOD_YARA)

    @property
    def settings(self) -> Settings:
        return Settings(
            box="b",
            signatures=Signatures(rules_dir=str(self.rules), yara_dir=str(self.yara)),
            paths=Paths(run=str(self.root / "run"), state=str(self.root / "state")),
        )


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def refuse(office: Office, *words: str) -> None:
    """The sources as they now are come not into force, the words are in the reason, and the old set is untouched."""
    before = compiler.current(office.settings)
    with pytest.raises(RejectedInput) as caught:
        compiler.apply(office.settings)
    for word in words:
        assert word in str(caught.value)
    assert compiler.current(office.settings) == before
    kept = compiler.ensure(office.settings)
    assert str(caught.value) in kept.rejection
    if before:
        assert (kept.id, kept.path) == (before.id, before.path)
    assert sorted(path.name for path in (office.settings.sets).glob(".build-*")) == []


def test_the_shipped_set_is_proved_and_put_in_force(tmp_path: Path) -> None:
    settings = Settings(box="b", paths=Paths(run=str(tmp_path / "run"), state=str(tmp_path / "state")))
    info = compiler.ensure(settings)
    shipped = "".join(path.read_text() for path in (SHIPPED / "suricata").glob("*.rules"))
    assert info.suricata_rules == sum(line.startswith(("alert", "drop")) for line in shipped.splitlines())
    assert (info.refused_total, info.rejection) == (0, "")
    loaded = yara.load(str(settings.sets / "current" / "yara.compiled"))
    assert sum(1 for _ in loaded) == info.yara_rules
    assert [match.rule for match in loaded.match(data=EICAR)] == ["sekisho_eicar", "sekisho_eicar_file"]
    written = json.loads((settings.sets / "current" / "set.json").read_bytes())
    assert {"id", "suricata_rules", "yara_rules", "built_at", "refused"} <= set(written)
    assert not (settings.sets / "current").readlink().is_absolute()


def test_the_same_sources_are_not_proved_twice(office: Office) -> None:
    first = compiler.apply(office.settings)
    inode = first.yara_file.stat().st_ino
    assert compiler.ensure(office.settings) == first
    assert first.yara_file.stat().st_ino == inode


def test_other_home_networks_are_proved_anew(office: Office) -> None:
    first = compiler.apply(office.settings)
    moved = office.settings
    other = Settings(
        box="b", inspection=Inspection(home_networks=("10.9.0.0/16",)), signatures=moved.signatures, paths=moved.paths
    )
    assert compiler.apply(other).id != first.id


def test_a_new_set_replaces_the_old_and_the_one_before_it_goes(office: Office) -> None:
    ids = []
    for sid in (1, 2, 3):
        (office.rules / "a.rules").write_text(GOOD.format(sid))
        ids.append(compiler.apply(office.settings).id)
    kept = {path.name for path in office.settings.sets.iterdir() if path.is_dir() and not path.is_symlink()}
    assert kept == set(ids[1:])
    current = compiler.current(office.settings)
    assert current is not None
    assert current.id == ids[2]


def test_the_canary_is_in_every_set_whoever_wrote_it(office: Office) -> None:
    info = compiler.apply(office.settings)
    assert info.yara_rules == 3
    (office.yara / "sekisho-canary.yar").write_text("rule mine { condition: false }")
    assert compiler.apply(office.settings).yara_rules == 3


def test_a_broken_rule_in_a_small_set_is_named_and_refuses_it(office: Office) -> None:
    compiler.apply(office.settings)
    (office.rules / "b.rules").write_text("# mine\n" + GOOD.format(2).replace("http.uri", "http.urr"))
    refuse(office, "b.rules:2", "sid 2", "http.urr")


def test_a_few_rules_refused_in_a_large_set_are_left_out_and_said(office: Office) -> None:
    text = [GOOD.format(sid) for sid in range(1, 402)]
    text[199] = GOOD.format(200).replace("http.uri", "http.urr")
    text[299] = GOOD.format(300).replace("content:", 'content:"' + "x" * 3000 + '"; contnt:')
    (office.rules / "a.rules").write_text("".join(text))
    info = compiler.apply(office.settings)
    assert info.suricata_rules == 399
    assert sorted((rule.sid, rule.where) for rule in info.refused) == [(200, "a.rules:200"), (300, "a.rules:300")]
    loaded = info.suricata_file.read_text()
    assert "sid:200;" not in loaded
    assert loaded.count("\n") == 399


def test_too_many_refused_rules_refuse_the_set(office: Office) -> None:
    compiler.apply(office.settings)
    text = [GOOD.format(sid).replace("http.uri", "http.urr" if sid % 50 == 0 else "http.uri") for sid in range(1, 401)]
    (office.rules / "a.rules").write_text("".join(text))
    refuse(office, "8 of 400 rules", "a.rules:50")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html>404 Not Found</html>\n", ("b.rules:1", "not a Suricata rule")),
        (b"\xff\xfe\x00binary", ("b.rules", "not UTF-8")),
        (GOOD.format(2).encode()[:-40] + b"\\\n", ("b.rules:1", "cut off")),
        (GOOD.format(2).encode() + GOOD.format(3).encode()[:-9], ("b.rules:2", "cut off")),
        (b"#" * 64 + b"\n" + GOOD.format(9000001).encode(), ("b.rules:2", "the box's own")),
    ],
)
def test_a_file_that_is_no_rule_file_is_refused(office: Office, data: bytes, words: tuple[str, ...]) -> None:
    compiler.apply(office.settings)
    (office.rules / "b.rules").write_bytes(data)
    refuse(office, *words)


def test_a_broken_yara_file_refuses_the_set_by_file_and_line(office: Office) -> None:
    compiler.apply(office.settings)
    (office.yara / "b.yar").write_text("rule two\n{\n  condition: nonsense\n}\n")
    refuse(office, "b.yar(3)", "nonsense")


def test_a_yara_file_reads_no_other_file(office: Office) -> None:
    compiler.apply(office.settings)
    (office.yara / "b.yar").write_text('include "/etc/passwd"\n')
    refuse(office, "b.yar", "include")


def test_yara_rules_that_take_clean_files_for_malicious_are_refused(office: Office) -> None:
    compiler.apply(office.settings)
    (office.yara / "b.yar").write_text("rule everything { condition: filesize > 0 }")
    refuse(office, "everything", "b.yar", "clean sample")


@pytest.mark.parametrize("part", ["rules", "yara"])
def test_an_empty_or_missing_directory_is_refused(office: Office, part: str) -> None:
    compiler.apply(office.settings)
    folder = office.root / part
    shutil.rmtree(folder)
    refuse(office, str(folder), "No such file")
    folder.mkdir()
    refuse(office, str(folder), "holds no")


def test_rules_that_are_all_switched_off_are_refused(office: Office) -> None:
    compiler.apply(office.settings)
    (office.rules / "a.rules").write_text("#" + GOOD.format(1))
    refuse(office, "no enabled rule")


def test_a_huge_file_is_refused_unread(office: Office) -> None:
    compiler.apply(office.settings)
    with (office.rules / "b.rules").open("wb") as out:
        out.truncate(50 << 30)
    refuse(office, "b.rules", "larger than")


def test_a_pipe_in_place_of_a_file_is_refused_at_once(office: Office) -> None:
    compiler.apply(office.settings)
    os.mkfifo(office.yara / "b.yar")
    refuse(office, "b.yar", "not a plain file")


def test_too_many_files_are_refused(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.apply(office.settings)
    monkeypatch.setattr("sekisho.signatures.sources.MAX_FILES", 2)
    for name in "bcd":
        (office.yara / f"{name}.yar").write_text(GOOD_YARA)
    refuse(office, "4 files")


def test_a_tester_that_cannot_finish_refuses(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.apply(office.settings)
    (office.rules / "a.rules").write_text(GOOD.format(2))
    monkeypatch.setattr(tester, "TESTER_BYTES", 1 << 20)
    refuse(office, "Testing the rule set")


def test_a_compiler_that_cannot_finish_refuses(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.apply(office.settings)
    (office.rules / "a.rules").write_text(GOOD.format(2))
    monkeypatch.setattr("sekisho.signatures.yara_compile.COMPILER_BYTES", 1 << 20)
    refuse(office, "YARA rules ended without a result")


def test_without_an_engine_nothing_is_proved(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DeviceFault, match="Suricata is not installed"):
        compiler.apply(office.settings)


def test_broken_sources_on_the_first_day_leave_the_shipped_set_in_force(office: Office) -> None:
    (office.rules / "a.rules").write_text("nonsense\n")
    info = compiler.ensure(office.settings)
    assert "not a Suricata rule" in info.rejection
    assert info.suricata_rules > 10
    current = compiler.current(office.settings)
    assert current is not None
    assert current.id == info.id


@pytest.mark.parametrize("name", ["suricata.rules", "yara.compiled", "set.json"])
def test_a_set_damaged_on_disk_is_not_used_and_is_built_again(office: Office, name: str) -> None:
    info = compiler.apply(office.settings)
    path = Path(info.path) / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert compiler.current(office.settings) is None
    mended = compiler.ensure(office.settings)
    assert (mended.id, mended.rejection) == (info.id, "")
    assert compiler.current(office.settings) is not None


def test_leftovers_of_a_power_cut_do_no_harm(office: Office) -> None:
    sets = office.settings.sets
    sets.mkdir(parents=True)
    (sets / ".current.new").symlink_to("half")
    (sets / "half").mkdir()
    (sets / ".build-x").mkdir()
    info = compiler.apply(office.settings)
    kept = sorted(path.name for path in sets.iterdir())
    assert kept == sorted([".lock", "current", info.id])


def test_rules_are_one_per_sid_and_the_higher_revision_wins(office: Office) -> None:
    newer = GOOD.format(1).replace("rev:1", "rev:3").replace("/bad", "/worse")
    (office.rules / "b.rules").write_text(newer + GOOD.format(1).replace("rev:1", "rev:2"))
    info = compiler.apply(office.settings)
    assert (info.suricata_rules, info.suricata_file.read_text()) == (1, newer)


def test_nothing_reaches_the_running_engine_s_own_paths(office: Office) -> None:
    compiler.apply(office.settings)
    assert not (office.root / "run").exists()


def test_the_command_line_proves_shows_and_refuses(office: Office) -> None:
    toml = office.root / "box.toml"
    toml.write_text(
        f'box = "b"\n[signatures]\nrules_dir = "{office.rules}"\nyara_dir = "{office.yara}"\n'
        f'[paths]\nrun = "{office.root}/run"\nstate = "{office.root}/state"\n'
    )

    def run(verb: str) -> subprocess.CompletedProcess[bytes]:
        code = (
            "import argparse, sys; from sekisho.signatures import commands; p = argparse.ArgumentParser();"
            "commands.register(p.add_subparsers()); a = p.parse_args(); sys.exit(a.func(a))"
        )
        argv = [sys.executable, "-I", "-c", code, "signatures", verb, "--settings", str(toml), "--json"]
        return subprocess.run(argv, capture_output=True, check=False, timeout=60)

    assert run("status").returncode == 1
    assert run("check").returncode == 0
    assert not office.settings.sets.exists()
    applied = run("apply")
    assert applied.returncode == 0
    assert json.loads(applied.stdout)["suricata_rules"] == 1
    shown = run("status")
    assert json.loads(shown.stdout)["id"] == json.loads(applied.stdout)["id"]
    assert (shown.returncode, json.loads(shown.stdout)["proven"]) == (1, False), "no inspector says it works with it"
    (office.rules / "a.rules").write_text("nonsense\n")
    refused = run("apply")
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"a.rules:1" in refused.stderr
    assert model.MAX_FILE_BYTES < 1 << 30


@pytest.mark.timeout(240)
@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.full)])
def test_of_twenty_thousand_public_rules_only_the_one_the_engine_refuses_is_lost(office: Office, every: int) -> None:
    archive = Path(__file__).resolve().parents[3] / "shared" / "data" / "rules" / "et-open-2020-04.rules.xz"
    if not archive.exists():
        pytest.skip("the public rules are not on this machine")
    lines = lzma.decompress(archive.read_bytes()).decode().splitlines()
    lines = [line for at, line in enumerate(lines) if at % every == 0 or "sid:2025232;" in line]
    (office.rules / "a.rules").write_text("\n".join(lines) + "\n")
    enabled = sum("sid:" in line and not line.startswith("#") for line in lines)
    info = compiler.apply(office.settings)
    assert (info.suricata_rules, [rule.sid for rule in info.refused]) == (enabled - 1, [2025232])
    assert enabled == 20_117 or every > 1
