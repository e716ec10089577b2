"""Building a set with the real engines: what comes out is what a box takes, or nothing comes out."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.settings import Paths, Settings, Signatures
from sekisho.signatures import archive, compiler, delta
from sekisho.signatures.depot import checking
from sekisho.signatures.depot.tree import Tree
from sekisho.signatures.model import Rule
from sekisho.signatures.press import budget, corpora, engines, recipe, yaraset
from sekisho.signatures.published import Baseline, Manifest
from sekisho.signatures.sources import SHIPPED
from sekisho.signatures.tester import engine_config

OWN_RULES = [
    line for line in (SHIPPED / "suricata/sekisho.rules").read_text().splitlines() if line[:1] not in ("#", "")
]


def manifest(centre: Any, number: int) -> Manifest:
    return msgspec.json.decode((centre.sets / f"{number}/set.json").read_bytes(), type=Manifest)


def content(centre: Any, number: int) -> dict[str, bytes]:
    return archive.read((centre.sets / f"{number}/{number}.tar").read_bytes())


def test_a_set_is_laid_out_as_it_is_published(two_sets: Any) -> None:
    told = manifest(two_sets, 2)
    folder = two_sets.sets / "2"
    assert {path.name for path in folder.iterdir()} == {"2.tar", "2.tar.zst", "1-2.zst", "set.json", "build.json"}
    whole = (folder / "2.tar").read_bytes()
    assert (told.number, told.length, told.sha256) == (2, len(whole), hashlib.sha256(whole).hexdigest())
    packed = (folder / Path(told.path).name).read_bytes()
    assert len(packed) == told.packed
    assert delta.decompress(packed, told.length) == whole
    assert tarfile.is_tarfile(folder / "2.tar")


def test_the_delta_leads_from_the_set_before(two_sets: Any) -> None:
    (way,) = manifest(two_sets, 2).deltas
    old = (two_sets.sets / "1/1.tar").read_bytes()
    assert (way.base, way.base_sha256, way.path) == (1, manifest(two_sets, 1).sha256, "sig/1-2.zst")
    made = (two_sets.sets / "2/1-2.zst").read_bytes()
    assert way.length == len(made) < manifest(two_sets, 2).packed
    assert delta.apply(old, made, 1 << 20) == (two_sets.sets / "2/2.tar").read_bytes()


def test_our_own_rules_are_always_in_as_they_are_written(two_sets: Any) -> None:
    found = content(two_sets, 2)
    assert sorted(found["rules/sekisho.rules"].decode().splitlines()) == sorted(OWN_RULES)
    assert {f"yara/{path.name}" for path in (SHIPPED / "yara").iterdir()} <= found.keys()


def test_policy_is_in_the_rules(two_sets: Any) -> None:
    rules = content(two_sets, 1)["rules/first.rules"].decode().splitlines()
    assert [line.split()[0] for line in rules] == ["drop"] * 5 + ["alert"]


def test_new_drops_are_those_the_set_before_did_not_let_drop_or_that_match_something_else(two_sets: Any) -> None:
    assert manifest(two_sets, 1).new_drops == [1, 2, 3, 4, 5]
    assert manifest(two_sets, 2).new_drops == [2, 6, 7]
    assert manifest(two_sets, 2).urgent == []


def test_the_baseline_goes_with_the_set(two_sets: Any) -> None:
    assert msgspec.json.decode(content(two_sets, 1)["baseline.json"], type=Baseline).boxes == 0
    assert msgspec.json.decode(content(two_sets, 2)["baseline.json"], type=Baseline).sids == {4: 2.5}


def test_a_box_counts_what_the_manifest_says(two_sets: Any, tmp_path: Path) -> None:
    archive.unpack(two_sets.sets / "2/2.tar", tmp_path / "set")
    info = compiler.check(
        Settings(
            box="b",
            signatures=Signatures(rules_dir=str(tmp_path / "set/rules"), yara_dir=str(tmp_path / "set/yara")),
            paths=Paths(run=str(tmp_path / "run"), state=str(tmp_path / "state")),
        )
    )
    told = manifest(two_sets, 2)
    assert (info.suricata_rules, info.yara_rules, info.refused_total) == (told.rules, told.yara, 0)
    assert told.rules == len(OWN_RULES) + 6


def test_the_engine_was_measured(two_sets: Any) -> None:
    result = json.loads((two_sets.sets / "2/build.json").read_text())
    assert 20 < manifest(two_sets, 2).memory_mb == result["memory_mb"] <= result["peak_mb"] < 200
    assert 5 < result["yara_mb"] <= result["yara_peak_mb"] + 5 < 200


def test_the_same_recipe_makes_the_same_bytes_and_no_new_set(two_sets: Any, tmp_path: Path) -> None:
    again = two_sets.build("--baseline", two_sets.root / "baseline.json")
    assert (again["number"], again["sha256"]) == (0, manifest(two_sets, 2).sha256)
    assert not (two_sets.sets / "3").exists()
    elsewhere = two_sets.run(
        "build", "--recipe", two_sets.root / "sets.toml", "--out", tmp_path / "sets", "--previous", two_sets.sets / "1",
        "--baseline", two_sets.root / "baseline.json",
    )  # fmt: skip
    assert elsewhere.returncode == 0, elsewhere.stderr
    for name in ("2.tar", "2.tar.zst", "1-2.zst"):
        assert (tmp_path / "sets/2" / name).read_bytes() == (two_sets.sets / "2" / name).read_bytes()


def test_a_source_that_shrank_overnight_refuses_the_set_unless_that_is_meant(two_sets: Any) -> None:
    whole = (two_sets.root / "first.rules").read_text()
    try:
        two_sets.recipe("max_removed = 0.05\n" + two_sets.RECIPE)
        two_sets.rules(*whole.splitlines(keepends=True)[:-2])
        assert "2 of the" in two_sets.refused("--baseline", two_sets.root / "baseline.json")
    finally:
        two_sets.recipe(two_sets.RECIPE)
        two_sets.rules(whole)


def test_what_was_built_the_depot_signs(two_sets: Any, tmp_path: Path) -> None:
    (tmp_path / "targets/sig").mkdir(parents=True)
    checked = checking.check(Tree(tmp_path), two_sets.sets / "1", datetime.now(UTC))
    assert set(checked.files) == {"sig/1.tar.zst", "sig/set.json"}
    checked = checking.check(Tree(tmp_path), two_sets.sets / "2", datetime.now(UTC))
    assert checked.left_out == [1], "set 1 was not published here"


def test_broken_rules_refuse_the_set_by_name(centre: Any) -> None:
    centre.rules('alert http any any -> any any (msg:"x"; nonsense; sid:5;)\n')
    assert "sid 5" in centre.refused()


def test_a_broken_yara_file_among_few_refuses_the_set_and_among_many_is_left_out(centre: Any) -> None:
    def broken() -> yaraset.Taken:
        (centre.root / "repo/rules/broken.yar").write_text("rule broken { condition: nothing }")
        work = Path(tempfile.mkdtemp(dir=centre.root))
        return yaraset.taken(recipe.load(centre.root / "sets.toml"), work)

    with pytest.raises(RejectedInput, match="repo--broken"):
        broken()
    centre.yara(*(f"n{number}" for number in range(60)))
    (centre.root / "repo/rules/greedy.yar").write_text("rule greedy { condition: true }")
    centre.recipe(centre.RECIPE + "\n[corpora]\nclean = 'office'\n")
    (centre.root / "office/letters").mkdir(parents=True)
    (centre.root / "office/letters/offer").write_text("n7 is very bad indeed, our customer says")
    found = broken()
    assert [why.partition(":")[0] for why in found.broken] == ["repo--broken.yar", "repo--greedy.yar", "repo--n7.yar"]
    assert len([file for file in found.sources if file.name.startswith("repo--")]) == 59


def decided(centre: Any, more: str, place: str) -> engines.Decided:
    centre.recipe(centre.RECIPE + more)
    work = centre.root / place
    work.mkdir()
    return engines.decided(recipe.load(centre.root / "sets.toml"), Settings(box="b"), work)


BUDGET = """
[budget]
memory_mb = {}
[[budget.leave_out]]
sids = [6]
[[budget.leave_out]]
categories = ["ET BULK"]
[[budget.leave_out]]
sids = [1]
"""


def test_over_budget_groups_go_least_worth_first_until_it_fits_and_are_named(centre: Any) -> None:
    one = 'alert tcp any any -> any any (msg:"ET BULK {n}"; content:"{h}"; pcre:"/{h}.*{h}/"; sid:{n};)\n'
    bulk = [one.format(n=n, h=hashlib.sha256(n.to_bytes(2)).hexdigest()) for n in range(1000, 3500)]
    centre.rules(centre.rule(1), centre.rule(6), *bulk)
    whole = decided(centre, BUDGET.format(400), "whole")
    assert whole.left_out == []
    fits = decided(centre, BUDGET.format(whole.weight.rest_mb - 2), "fits")
    assert fits.left_out == ["sids: 6", "categories: ET BULK"]
    assert fits.weight.rest_mb <= whole.weight.rest_mb - 2
    assert [source.data.count(b"\n") for source in fits.sources] == [1, len(OWN_RULES)]


def test_when_nothing_fits_there_is_no_set(centre: Any) -> None:
    with pytest.raises(RejectedInput, match="does not fit"):
        decided(centre, BUDGET.format(20), "work")


def test_an_engine_that_loads_other_rules_than_it_was_given_measures_nothing(centre: Any, tmp_path: Path) -> None:
    rules = [
        Rule(1, 1, "x", centre.rule(1).strip()),
        Rule(2, 1, "x", "alert http any any -> any any (nonsense; sid:2;)"),
    ]
    with pytest.raises(RejectedInput, match="0 of the 2 rules"):
        budget.weigh(rules, engine_config(Settings(box="b"), tmp_path), tmp_path)
    with pytest.raises(RejectedInput, match="0 of the 2 rules"):
        budget.weigh(rules, "%YAML 1.1\n---\n", tmp_path)


def test_an_engine_that_does_not_start_measures_nothing(tmp_path: Path) -> None:
    with pytest.raises(RejectedInput, match="does not start"):
        budget.weigh([], "no configuration", tmp_path)


def test_captures_decide(centre: Any, new_capture: Any, write_capture: Callable[[Path, Any], Path]) -> None:
    def capture(folder: str, uri: str) -> None:
        made = new_capture()
        made.tcp(80, [(">", f"GET {uri} HTTP/1.1\r\nHost: a\r\n\r\n".encode()), ("<", b"HTTP/1.1 204 No\r\n\r\n")])
        (centre.root / folder).mkdir(exist_ok=True)
        write_capture(centre.root / folder / f"{uri.strip('/')}.pcap", made)

    tried = '\n[corpora]\ndetect = "attacks"\nbenign = "office"\n'
    capture("attacks", "/5")
    capture("office", "/6")
    assert decided(centre, tried, "good").captures == 2
    capture("office", "/4")
    with pytest.raises(RejectedInput, match=r"4\.pcap, by sid 4"):
        decided(centre, tried, "drops")
    (centre.root / "office/4.pcap").unlink()
    capture("attacks", "/nothing")
    with pytest.raises(RejectedInput, match=r"does not detect nothing\.pcap"):
        decided(centre, tried, "deaf")


def test_a_capture_of_which_the_engine_has_nothing_to_say_is_honest_traffic_and_one_it_cannot_read_is_not(
    centre: Any, new_capture: Any, write_capture: Callable[[Path, Any], Path]
) -> None:
    (centre.root / "office").mkdir()
    made = new_capture()
    made.tcp(9, [(">", b"hello")])
    write_capture(centre.root / "office/quiet.pcap", made)
    tried = '\n[corpora]\nbenign = "office"\n'
    assert decided(centre, tried, "quiet").captures == 1
    for number, data in enumerate((b"", b"no capture", (centre.root / "office/quiet.pcap").read_bytes()[:24])):
        (centre.root / "office/quiet.pcap").write_bytes(data)
        with pytest.raises(DeviceFault, match=r"quiet\.pcap is not a capture"):
            decided(centre, tried, f"broken{number}")


def test_a_corpus_that_vanished_proves_nothing(centre: Any) -> None:
    centre.recipe(centre.RECIPE + '\n[corpora]\nbenign = "gone"\n')
    assert "gone" in centre.refused()


def test_files_yara_must_find_decide(centre: Any) -> None:
    (centre.root / "malware").mkdir()
    (centre.root / "malware/a.bin").write_text("this one is very bad indeed")
    (centre.root / "work").mkdir()
    taken = yaraset.taken(recipe.load(centre.root / "sets.toml"), centre.root / "work")
    corpora.malicious(str(centre.root / "malware"), taken.compiled)
    (centre.root / "malware/b.bin").write_text("nobody knows this")
    with pytest.raises(RejectedInput, match=r"do not find b\.bin"):
        corpora.malicious(str(centre.root / "malware"), taken.compiled)


@pytest.mark.parametrize("baseline", ["[]", '{"sids": {"x": 1}}', '{"sids": {"1": -1}}', ""])
def test_a_baseline_that_is_none_is_refused(centre: Any, baseline: str) -> None:
    (centre.root / "baseline.json").write_text(baseline)
    if baseline:
        assert "baseline" in centre.refused("--baseline", centre.root / "baseline.json")
    else:
        assert centre.refused("--baseline", centre.root / "missing.json")


def test_a_table_for_people(two_sets: Any) -> None:
    done: Any = two_sets.run(
        "build",
        "--recipe",
        two_sets.root / "sets.toml",
        "--out",
        two_sets.sets,
        "--baseline",
        two_sets.root / "baseline.json",
    )
    assert "nothing is new" in done.stdout
