"""Root installs what the keyholders signed, whatever the firmware daemon hands it: it may be somebody else's by now."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from releases import HERE, Centre, release
from repository import Depot
from tuf.api.metadata import Metadata, Signature, Targets

from sekisho.appliance.core.settings import Firmware, Settings
from sekisho.firmware import errands, proof, rauc, wishes
from sekisho.firmware import stage as staging
from sekisho.firmware.proof import Proof
from sekisho.firmware.published import Release, release_path
from sekisho.firmware.source import Source
from sekisho.firmware.stage import remove, staged
from sekisho.signatures.depot.rotate import rotate
from sekisho.signatures.trust import Evidence, Folder, offline

OTHER = "arm64" if HERE == "amd64" else "amd64"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the minute in which pip fills a virtual environment."""
    monkeypatch.setattr(staging, "_install", lambda *_: None)


@pytest.fixture
def box(centre: Centre, tmp_path: Path) -> Settings:
    firmware = Firmware(hardware=HERE, releases=str(tmp_path / "releases"), link=str(tmp_path / "venv"))
    return msgspec.structs.replace(centre.settings(), firmware=firmware)


def offered(centre: Centre, box: Settings) -> Release:
    """What an honest daemon does: the newest release is fetched, with its proof."""
    source = Source(box, way=Folder(centre.depot.tree.directory))
    found = source.refresh()
    source.fetch(found)
    return found


def wish(box: Settings, found: Release) -> wishes.Outcome:
    return errands.done(box, wishes.Numbered("stage-1", wishes.Stage(found.name)))


def there(box: Settings) -> list[str]:
    """Names of everything in the directory of releases, whole or half made."""
    releases = Path(box.firmware.releases)
    return sorted(path.name for path in releases.glob("*") if path.is_dir()) if releases.is_dir() else []


def handed(box: Settings, found: Release) -> Proof:
    return msgspec.json.decode(proof._path(box, found.name).read_bytes(), type=Proof)


def hand(box: Settings, found: Release, bundle: Path, evidence: Evidence, text: bytes = b"") -> None:
    """What a hostile daemon can do: any proof, any bundle, under any name."""
    path = proof._path(box, found.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(msgspec.json.encode(Proof(evidence, text or msgspec.json.encode(found))))
    download = box.firmware_state / "download"
    download.mkdir(exist_ok=True)
    (download / found.sha256).write_bytes(bundle.read_bytes())


def with_list(evidence: Evidence, made: Metadata[Targets]) -> Evidence:
    return msgspec.structs.replace(evidence, role=made.to_bytes())


@pytest.fixture
def evil(tmp_path: Path) -> tuple[Release, Path]:
    """A bundle as sound as any but for its makers."""
    (tmp_path / "evil").mkdir()
    found = release(tmp_path / "evil", 9, extra={"engine/bin/suricata": b"evil"})
    return found, tmp_path / "evil" / Path(found.path).name


def listing(centre: Centre, found: Release) -> Targets:
    """A list of `fw` that names `found` for this hardware."""
    listed = centre.listed()
    centre.put(listed, release_path(HERE), msgspec.json.encode(found))
    return listed


def signed_by(centre: Centre, listed: Targets, *roles: str) -> Metadata[Targets]:
    """By all keys of other delegations."""
    made, judge = Metadata(listed), centre.depot.tree.chain().targets.signed
    for role in roles:
        keys = [judge.get_key(keyid) for keyid in judge.get_delegated_role(role).keyids]
        for signer in centre.depot.ring.signers(role, keys, 2):
            made.sign(signer, append=True)
    return made


def test_what_two_keyholders_signed_is_staged_and_asked_for_again_costs_nothing(centre: Centre, box: Settings) -> None:
    centre.publish(1)
    found = offered(centre, box)
    for _ in range(2):
        told = wish(box, found)
        assert (told.word, told.said) == ("done", found.name), told.said
    assert there(box) == [found.name]
    centre.publish(2)
    newer = offered(centre, box)
    assert wish(box, newer).word == "done"
    assert there(box) == [found.name, newer.name]


def test_a_release_that_is_replaced_in_the_channel_while_it_is_fetched_is_still_staged(
    centre: Centre, box: Settings
) -> None:
    centre.publish(1)
    first = offered(centre, box)
    centre.publish(2)
    Source(box, way=Folder(centre.depot.tree.directory)).refresh()
    assert wish(box, first).word == "done"


def test_a_box_follows_its_keyholders_through_their_new_keys(centre: Centre, box: Settings) -> None:
    """From the root it was made with; what is out of date is the daemon's matter, not root's."""
    for number, role in enumerate(("root", "targets", "fw", "root"), 1):
        centre.publish(number)
        assert wish(box, offered(centre, box)).word == "done", role
        rotate(centre.depot.tree, centre.depot.ring, role, centre.depot.root / f"new{number}", centre.depot.now)
        centre.depot.ring.places.insert(0, centre.depot.root / f"new{number}")
    centre.publish(9)
    last = offered(centre, box)
    assert wish(box, last).word == "done"
    assert len(handed(box, last).evidence.roots) >= 3


Forge = Callable[[Centre, Evidence, Release, Path], Evidence]


def by_nobody(centre: Centre, honest: Evidence, found: Release, _: Path) -> Evidence:
    return with_list(honest, Metadata(listing(centre, found)))


def by_the_former_signatures(centre: Centre, honest: Evidence, found: Release, _: Path) -> Evidence:
    former = Metadata[Targets].from_bytes(honest.role)
    return with_list(honest, Metadata(listing(centre, found), former.signatures))


def by_one_of_three(centre: Centre, honest: Evidence, found: Release, _: Path) -> Evidence:
    return with_list(honest, centre.signed(listing(centre, found), signers=1))


def by_one_of_three_twice(centre: Centre, honest: Evidence, found: Release, _: Path) -> Evidence:
    made = centre.signed(listing(centre, found), signers=1)
    (one,) = made.signatures.values()
    terms = centre.depot.tree.chain().targets.signed.get_delegated_role("fw")
    made.signatures = {keyid: Signature(keyid, one.signature) for keyid in terms.keyids}
    return with_list(honest, made)


def by_the_keys_of_the_sets(centre: Centre, honest: Evidence, found: Release, _: Path) -> Evidence:
    return with_list(honest, signed_by(centre, listing(centre, found), "sig"))


def by_the_keys_of_the_operators(centre: Centre, honest: Evidence, found: Release, _: Path) -> Evidence:
    return with_list(honest, signed_by(centre, listing(centre, found), "sig", "operators"))


def without_a_list_that_names_it(centre: Centre, honest: Evidence, found: Release, _: Path) -> Evidence:
    return honest


def in_the_list_of_targets(centre: Centre, honest: Evidence, found: Release, _: Path) -> Evidence:
    """Every file is in its place, and of another kind."""
    return msgspec.structs.replace(honest, role=honest.targets)


def by_another_centre(centre: Centre, honest: Evidence, found: Release, folder: Path) -> Evidence:
    other = Centre(Depot(folder / "other"))
    made = other.signed(listing(other, found))
    return Evidence([other.depot.trusted], other.depot.tree.chain().targets.to_bytes(), made.to_bytes())


def by_a_root_of_another_centre(centre: Centre, honest: Evidence, found: Release, folder: Path) -> Evidence:
    other = Centre(Depot(folder / "other"))
    rotate(other.depot.tree, other.depot.ring, "targets", other.depot.root / "new", other.depot.now)
    other.depot.ring.places.insert(0, other.depot.root / "new")
    chain = other.depot.tree.chain()
    return Evidence([chain.root.to_bytes()], chain.targets.to_bytes(), other.signed(listing(other, found)).to_bytes())


def with_nonsense(centre: Centre, honest: Evidence, found: Release, _: Path) -> Evidence:
    return Evidence([b"{}", b"\xff"], b"[" * 100_000, b"")


@pytest.mark.parametrize(
    "forge",
    [
        by_nobody, by_the_former_signatures, by_one_of_three, by_one_of_three_twice, by_the_keys_of_the_sets,
        by_the_keys_of_the_operators, without_a_list_that_names_it, in_the_list_of_targets, by_another_centre,
        by_a_root_of_another_centre, with_nonsense,
    ],
    ids=lambda forge: forge.__name__,
)  # fmt: skip
def test_attack_a_release_that_is_signed(
    centre: Centre, box: Settings, evil: tuple[Release, Path], forge: Forge, tmp_path: Path
) -> None:
    centre.publish(1)
    honest = handed(box, offered(centre, box)).evidence
    hand(box, *evil, forge(centre, honest, evil[0], tmp_path))
    told = wish(box, evil[0])
    assert told.word == "refused", told.said
    assert there(box) == [] and not (Path(box.firmware.releases) / "reached.json").exists()


def test_attack_a_delegation_that_lists_what_it_may_not_sign(
    centre: Centre, box: Settings, evil: tuple[Release, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if root asked for it by mistake: the keyholders of targets said which paths each may sign."""
    centre.publish(1)
    honest = handed(box, offered(centre, box)).evidence
    hand(box, *evil, by_the_keys_of_the_sets(centre, honest, *evil))
    monkeypatch.setattr(proof, "FW", "sig")
    assert wish(box, evil[0]).word == "refused" and there(box) == []


def test_attack_a_root_that_does_not_follow_the_one_before(centre: Centre, box: Settings) -> None:
    for number in (1, 2):
        rotate(centre.depot.tree, centre.depot.ring, "targets", centre.depot.root / f"new{number}", centre.depot.now)
        centre.depot.ring.places.insert(0, centre.depot.root / f"new{number}")
    centre.publish(1)
    found = offered(centre, box)
    kept = handed(box, found)
    assert len(kept.evidence.roots) >= 2
    for roots in ([], kept.evidence.roots[-1:]):
        cut = msgspec.structs.replace(kept.evidence, roots=roots)
        hand(box, found, centre.bundle(found), cut, kept.release)
        assert wish(box, found).word == "refused" and there(box) == []
    hand(box, found, centre.bundle(found), kept.evidence, kept.release)
    assert wish(box, found).word == "done"


def test_attack_the_proof_of_one_release_under_the_name_of_another(
    centre: Centre, box: Settings, evil: tuple[Release, Path]
) -> None:
    centre.publish(1)
    honest = offered(centre, box)
    kept = handed(box, honest)
    hand(box, *evil, kept.evidence, kept.release)
    assert wish(box, evil[0]).word == "refused" and there(box) == []
    (box.firmware_state / "download" / honest.sha256).write_bytes(evil[1].read_bytes())
    assert wish(box, honest).word == "refused", "signed, and another bundle under it"
    assert there(box) == []


@pytest.mark.parametrize("listed_for", [OTHER, HERE])
def test_attack_a_release_that_is_signed_for_other_hardware(centre: Centre, box: Settings, listed_for: str) -> None:
    centre.publish(1)
    evidence = handed(box, offered(centre, box)).evidence
    folder = centre.depot.root / "foreign"
    folder.mkdir()
    foreign = release(folder, 9, hardware=OTHER)
    listed = centre.listed()
    listed.targets.pop(release_path(HERE))
    centre.put(listed, release_path(listed_for), msgspec.json.encode(foreign))
    hand(box, foreign, folder / Path(foreign.path).name, with_list(evidence, centre.signed(listed)))
    assert wish(box, foreign).word == "refused" and there(box) == []


def test_attack_an_older_release_that_was_once_signed(centre: Centre, box: Settings) -> None:
    """The way back is to a release that still lies staged, and there is no other; whatever the daemon forgot."""
    older = centre.publish(1)
    offered(centre, box)
    kept = handed(box, older)
    centre.publish(2)
    newer = offered(centre, box)
    assert wish(box, newer).word == "done"
    hand(box, older, centre.bundle(older), kept.evidence, kept.release)
    told = wish(box, older)
    assert told.word == "refused" and "older" in told.said
    remove(newer, Path(box.firmware.releases))
    assert wish(box, older).word == "refused" and there(box) == []


def test_the_way_back_to_what_lies_staged_needs_no_proof(centre: Centre, box: Settings) -> None:
    for counter in (1, 2):
        centre.publish(counter)
        assert wish(box, offered(centre, box)).word == "done"
    first, second = staged(Path(box.firmware.releases))
    for path in (box.firmware_state / "proofs").iterdir():
        path.unlink()
    assert wish(box, first.release).word == "done"
    remove(first.release, Path(box.firmware.releases))
    assert wish(box, first.release).word == "fault"
    assert there(box) == [second.path.name]


@pytest.mark.parametrize("role", ["fw", "targets"])
def test_attack_a_keyholder_whose_key_was_taken_away(centre: Centre, box: Settings, role: str) -> None:
    """With the metadata of the time when it still counted, and two keys of that time."""
    centre.publish(1)
    old = handed(box, offered(centre, box)).evidence
    stolen = centre.signed(listing(centre, made := _built(centre, 9)))
    rotate(centre.depot.tree, centre.depot.ring, role, centre.depot.root / "new", centre.depot.now)
    centre.depot.ring.places.insert(0, centre.depot.root / "new")
    centre.publish(2)
    newest = offered(centre, box)
    assert wish(box, newest).word == "done"
    before = there(box)
    for roots in (old.roots, handed(box, newest).evidence.roots):
        evidence = msgspec.structs.replace(with_list(old, stolen), roots=roots)
        hand(box, made, centre.bundle(made), evidence)
        assert wish(box, made).word == "refused" and there(box) == before


def _built(centre: Centre, counter: int) -> Release:
    folder = centre.depot.root / "releases" / str(counter)
    folder.mkdir(parents=True)
    return release(folder, counter)


def test_attack_a_proof_that_is_swapped_while_root_reads(
    centre: Centre, box: Settings, evil: tuple[Release, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    centre.publish(1)
    honest = offered(centre, box)
    kept, judge = handed(box, honest), offline.listed

    def listed(*given: Any) -> Any:
        hand(box, honest, evil[1], kept.evidence, msgspec.json.encode(evil[0]))
        found = judge(*given)
        hand(box, honest, evil[1], kept.evidence, msgspec.json.encode(evil[0]))
        return found

    monkeypatch.setattr(proof, "listed", listed)
    assert wish(box, honest).word == "refused", "its bundle is another one by now"
    assert there(box) == []
    (box.firmware_state / "download" / honest.sha256).write_bytes(centre.bundle(honest).read_bytes())
    hand(box, honest, centre.bundle(honest), kept.evidence, kept.release)
    monkeypatch.setattr(proof, "listed", judge)
    assert wish(box, honest).word == "done"


@pytest.mark.parametrize("which", ["proof", "bundle"])
@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "too large", "gone"])
def test_attack_something_else_than_a_file_where_root_reads(
    centre: Centre, box: Settings, which: str, kind: str, tmp_path: Path
) -> None:
    centre.publish(1)
    found = offered(centre, box)
    path = proof._path(box, found.name) if which == "proof" else box.firmware_state / "download" / found.sha256
    path.rename(tmp_path / "elsewhere")
    match kind:
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "too large":
            path.write_bytes((tmp_path / "elsewhere").read_bytes())
            os.truncate(path, (proof.PROOF_CAP if which == "proof" else 1 << 30) + 1)
    assert wish(box, found).word == "fault"
    assert there(box) == []


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"{" * 5000, b'{"evidence":1,"release":""}', b"\xff" * 100])
def test_a_proof_that_is_none_is_refused(centre: Centre, box: Settings, data: bytes) -> None:
    centre.publish(1)
    found = offered(centre, box)
    proof._path(box, found.name).write_bytes(data)
    assert wish(box, found).word == "refused" and there(box) == []


def test_a_root_of_trust_that_others_may_write_is_none(centre: Centre, box: Settings) -> None:
    centre.publish(1)
    found, path = offered(centre, box), Path(box.signatures.root)
    path.chmod(0o664)
    assert wish(box, found).word == "fault"
    path.chmod(0o640)
    os.chown(path, 12345, -1)
    assert wish(box, found).word == "fault" and there(box) == []
    os.chown(path, 0, -1)
    path.write_bytes(b"{}")
    assert wish(box, found).word == "fault" and there(box) == []


def test_what_root_remembers_counts_when_it_is_damaged_too(centre: Centre, box: Settings) -> None:
    centre.publish(1)
    found = offered(centre, box)
    Path(box.firmware.releases).mkdir()
    (Path(box.firmware.releases) / "reached.json").write_bytes(b"torn")
    told = wish(box, found)
    assert told.word == "fault" and "remembers" in told.said and there(box) == []


def test_attack_an_image_that_is_not_released_never_reaches_a_slot(
    centre: Centre, box: Settings, evil: tuple[Release, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = list[Path]()

    class Slots:
        def install(self, bundle: Path) -> None:
            written.append(bundle)

        def inactive(self) -> str:
            return "B"

    monkeypatch.setattr(rauc, "Slots", Slots)
    centre.publish(1)
    honest = offered(centre, box)
    evidence = handed(box, honest).evidence
    hand(box, *evil, by_one_of_three(centre, evidence, evil[0], Path()))
    assert errands.done(box, wishes.Numbered("install-1", wishes.Install(evil[0].name))).word == "refused"
    bundle = box.firmware_state / "download" / honest.sha256
    signed = bundle.read_bytes()
    bundle.write_bytes(signed[::-1])
    told = errands.done(box, wishes.Numbered("install-2", wishes.Install(honest.name)))
    assert told.word == "refused" and "not that of release" in told.said
    assert written == []
    bundle.write_bytes(signed)
    assert errands.done(box, wishes.Numbered("install-3", wishes.Install(honest.name))).word == "done"
    assert written == [bundle]
