"""Every attack of TUF's list (1.0.34, section 1.5.2) and the wrong clocks of boxes, each by its name.

Every test ends the same: what the box believed before is what it believes after, and honest news is taken again.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import pytest
from forge import Forge, Memory
from hostile import Answer, Hostile, answers_of, drip, stall
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Metadata, TargetFile

from sekisho.signatures.depot.roles import ISSUED, ROLES
from sekisho.signatures.published import MANIFEST
from sekisho.signatures.trust import ChannelDown, ChannelRefused, ChannelUnfit, Floors, Folder, Limits, Trust, Web

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
QUICK = Limits(gap_s=0.3, head_s=0.4, small_s=0.5)


class Box:
    """A box whose clock is right unless it is told otherwise."""

    def __init__(self, forge: Forge, directory: Path) -> None:
        self.forge = forge
        self.source = Memory(forge)
        self.trust = Trust(directory, forge.trusted, self.source)
        self.take()

    def take(self, clock: dt.datetime | None = None, confirmed: bool = True) -> int:
        """The number of the newest set."""
        at = (clock or self.source.forge.now).timestamp()
        self.trust.refresh(at, at if confirmed and clock is None else None)
        return self.trust.manifest().number

    def refuses(self, evil: Forge, *codes: str) -> None:
        """And is as before."""
        held = self.trust.floors.number
        self.source.forge = evil
        with pytest.raises(ChannelRefused) as refused:
            self.take()
        assert refused.value.code in codes
        assert self.trust.floors.number == held
        self.source.forge = self.forge


@pytest.fixture
def box(forge: Forge, tmp_path: Path) -> Box:
    forge.put_set(5)
    forge.release("sig")
    return Box(forge, tmp_path / "box")


def strangers(count: int = 3) -> list[CryptoSigner]:
    return [CryptoSigner.generate_ed25519() for _ in range(count)]


def test_arbitrary_install_a_set_that_nobody_signed_for(box: Box, forge: Forge) -> None:
    evil = forge.copy()
    path = next(name for name in evil.files if name.endswith(".set.json") and b'"number":5' in evil.files[name])
    evil.files[path] = evil.files[path].replace(b'"number":5', b'"number":6')
    box.refuses(evil, "forged")
    del evil.files[path]
    box.source.forge = evil
    with pytest.raises(ChannelDown):
        box.take()


@pytest.mark.parametrize("role", ROLES)
def test_arbitrary_install_metadata_signed_by_strangers(box: Box, forge: Forge, role: str) -> None:
    evil = forge.copy()
    evil.put_set(6)
    evil.keys[role] = strangers()
    evil.release("root", "targets", "sig") if role in ("root", "targets") else evil.release("sig")
    box.refuses(evil, "forged")


@pytest.mark.parametrize("role", ["root", "targets"])
def test_key_compromise_below_the_threshold_signs_nothing(box: Box, forge: Forge, role: str) -> None:
    """One stolen key of two that it takes; the thief has all online keys as well."""
    evil = forge.copy()
    evil.hashes = False
    evil.put_target(evil.targets, "sig/6.tar.zst", b"evil")
    evil.release(role, "sig")
    stolen = evil.keys[role][0]
    evil.sign(role, [stolen])
    evil.release("snapshot")
    box.refuses(evil, "forged")
    document = Metadata.from_bytes(evil.files[f"metadata/{evil.signed(role).version}.{role}.json"])
    signature = document.signatures[stolen.public_key.keyid]
    other = evil.keys[role][1].public_key.keyid
    document.signatures[other] = type(signature)(other, signature.signature)
    evil.files[f"metadata/{evil.signed(role).version}.{role}.json"] = document.to_bytes()
    box.refuses(evil, "forged")


@pytest.mark.parametrize("role", ["sig", "snapshot", "timestamp"])
def test_key_compromise_of_one_online_role_alone_brings_no_set_of_the_thiefs(box: Box, forge: Forge, role: str) -> None:
    evil = forge.copy()
    evil.put_set(6)
    for other in ROLES:
        if other != role:
            evil.keys[other] = strangers(len(evil.keys[other]))
    evil.release("sig")
    box.refuses(evil, "forged")


@pytest.mark.parametrize("role", ROLES)
def test_a_key_that_was_taken_away_signs_nothing_any_more(box: Box, forge: Forge, role: str) -> None:
    old = forge.replace_keys(role)
    forge.release(*(["targets", "sig"] if role == "sig" else ["root", "targets", "sig"]))
    box.take()
    evil = forge.copy()
    evil.put_set(6)
    evil.keys[role] = old
    if role == "root":
        evil.signed("root").version += 1
        evil.sign("root", old)
        evil.release("sig")
    else:
        evil.release("targets", "sig")
    box.refuses(evil, "forged")


def test_endless_data_in_place_of_any_metadata(forge: Forge, tmp_path: Path) -> None:
    """Cut at the cap: of what the metadata says, or of the role."""
    for name in ("1.snapshot.json", "1.targets.json", "timestamp.json", "2.root.json"):
        with Hostile(answers_of(forge.files)) as server:
            server.answers[f"/metadata/{name}"] = Answer(b"{" * 65536, endless=True)
            trust = Trust(tmp_path / name, forge.trusted, Web(server.url, limits=Limits(small_s=30)))
            with pytest.raises(ChannelRefused) as refused:
                trust.refresh(forge.now.timestamp())
            assert refused.value.code == "too_large"


def test_endless_data_in_place_of_the_manifest(forge: Forge, tmp_path: Path) -> None:
    with Hostile(answers_of(forge.files)) as server:
        path = next(path for path in server.answers if path.endswith(".set.json"))
        server.answers[path] = Answer(b"x" * 65536, endless=True)
        trust = Trust(tmp_path / "box", forge.trusted, Web(server.url, limits=Limits()))
        trust.refresh(forge.now.timestamp())
        with pytest.raises(ChannelRefused) as refused:
            trust.manifest()
        assert refused.value.code == "too_large"


def test_a_manifest_that_is_longer_than_any_honest_one_is_not_even_fetched(box: Box, forge: Forge) -> None:
    forge.put_target(forge.sig, MANIFEST, bytes(1 << 20))
    forge.release("sig")
    box.refuses(forge, "too_large")


def test_slow_retrieval_of_metadata_is_ended(forge: Forge, tmp_path: Path) -> None:
    for number, answer in enumerate((stall(b"{}", 1), drip(bytes(5000), 0.05))):
        with Hostile(answers_of(forge.files)) as server:
            server.answers["/metadata/timestamp.json"] = answer
            trust = Trust(tmp_path / str(number), forge.trusted, Web(server.url, limits=QUICK))
            with pytest.raises(ChannelDown) as down:
                trust.refresh(forge.now.timestamp())
            assert down.value.code == "slow"


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "sig"])
def test_rollback_of_any_role(box: Box, forge: Forge, role: str) -> None:
    before = forge.copy()
    forge.put_set(6)
    forge.release("targets", "sig")
    assert box.take() == 6
    if role == "timestamp":
        box.refuses(before, "rolled_back")
        return
    evil = forge.copy()
    evil.signed(role).version -= 1
    evil.sign(role)
    evil.release(*(["snapshot"] if role != "snapshot" else []))
    box.refuses(evil, "rolled_back")


def test_rollback_of_a_target_file_under_honest_metadata(box: Box, forge: Forge) -> None:
    old = next(data for name, data in forge.files.items() if name.endswith(".set.json") and b'"number":5' in data)
    forge.put_set(6)
    forge.release("sig")
    evil = forge.copy()
    path = next(name for name in evil.files if name.endswith(".set.json") and b'"number":6' in evil.files[name])
    evil.files[path] = old
    box.refuses(evil, "forged", "too_large")
    assert box.take() == 6


def test_rollback_of_the_sets_number_by_who_may_sign_sets(box: Box, forge: Forge) -> None:
    forge.put_set(4)
    forge.release("sig")
    box.refuses(forge, "rolled_back")
    forge.put_set(6)
    forge.release("sig")
    assert box.take() == 6


def test_rollback_of_root_by_holding_back_the_newer_ones(box: Box, forge: Forge) -> None:
    forge.replace_keys("root")
    forge.release("root")
    box.take()
    for path in (box.trust._store._directory / "root_history").iterdir():
        path.write_bytes(b"")
    evil = forge.copy()
    del evil.files["metadata/2.root.json"]
    box.refuses(evil, "rolled_back")


def test_cut_then_rollback_is_refused_though_the_cache_is_gone(box: Box, forge: Forge) -> None:
    before = forge.copy()
    forge.put_set(6)
    forge.release("sig")
    box.take()
    for path in box.trust._store._directory.glob("*.json"):
        path.write_bytes(b"")
    box.refuses(before, "rolled_back")


def test_fast_forward_of_everything_online_is_recovered_from_by_new_keys(box: Box, forge: Forge) -> None:
    evil = forge.copy()
    evil.put_set(10**9)
    for role in ("sig", "snapshot", "timestamp"):
        evil.signed(role).version = 10**9
        evil.sign(role)
    box.source.forge = evil
    assert box.take() == 10**9  # nobody can tell; now its keys are taken away
    for role in ("sig", "snapshot", "timestamp"):
        forge.replace_keys(role)
    forge.put_set(7)
    forge.release("root", "targets", "sig")
    box.source.forge = forge
    assert box.take() == 7
    assert {reset.role for reset in box.trust.floors.resets} == {"sig", "snapshot", "timestamp"}
    assert box.trust.floors.timestamp == forge.timestamp.version
    box.refuses(evil, "forged", "rolled_back")


def test_fast_forward_of_snapshot_is_recovered_from_though_timestamp_keeps_its_key(box: Box, forge: Forge) -> None:
    """TUF 5.3.11: either key's rotation forgets both."""
    evil = forge.copy()
    evil.snapshot.version = 10**9
    evil.sign("snapshot")
    evil.release()
    box.source.forge = evil
    box.take()
    forge.replace_keys("snapshot")
    forge.timestamp.version = evil.timestamp.version
    forge.release("root", "snapshot")
    box.source.forge = forge
    assert box.take() == 5
    assert box.trust.floors.snapshot == forge.snapshot.version


def test_fast_forward_to_numbers_no_reader_agrees_on_is_refused_and_poisons_nothing(box: Box, forge: Forge) -> None:
    for role in ("timestamp", "snapshot", "sig"):
        evil = forge.copy()
        evil.signed(role).version = 2**64
        evil.sign(role)
        evil.release(*{"timestamp": [], "snapshot": [], "sig": ["snapshot"]}[role])
        box.refuses(evil, "forged")
    forge.put_set(6)
    forge.release("sig")
    assert box.take() == 6


def test_fast_forward_of_time_goes_no_further_than_the_thiefs_own_metadata_and_is_recovered_from(
    box: Box, forge: Forge
) -> None:
    evil = forge.copy()
    evil.timestamp.version += 1
    evil.timestamp.expires = evil.now + 20 * 365 * DAY
    evil.timestamp.unrecognized_fields[ISSUED] = "x"
    evil.now += 10 * 365 * DAY
    evil.sign("timestamp", renew=False)
    evil.now = forge.now
    box.source.forge = evil
    box.take()
    assert box.trust.floors.time == forge.now.timestamp()  # beyond root's end: not believed
    forge.timestamp.version = evil.timestamp.version
    forge.now += 300 * DAY
    forge.release("root", "targets", "sig")
    box.source.forge = forge
    box.take()
    ahead = box.trust.floors.time
    forge.now -= 299 * DAY  # that was the thief, and this is the true time
    forge.replace_keys("timestamp")
    forge.release("root", "targets", "sig")
    box.take()
    assert box.trust.floors.time == forge.now.timestamp() < ahead


def test_indefinite_freeze_is_told_when_the_newest_ends(box: Box, forge: Forge) -> None:
    frozen = forge.copy()
    frozen.now += 25 * HOUR
    box.refuses(frozen, "expired")
    forge.now += 25 * HOUR
    forge.release("sig")
    assert box.take() == 5


@pytest.mark.parametrize("role", ["root", "targets", "sig", "snapshot"])
def test_freeze_of_a_role_below_a_fresh_timestamp(box: Box, forge: Forge, role: str) -> None:
    frozen = forge.copy()
    frozen.now += ROLES[role].life + HOUR
    for other in ("targets", "sig", "snapshot", "timestamp"):
        if other != role:
            frozen.signed(other).version += 1
            frozen.sign(other)
    if role != "root":
        frozen.signed("root").version += 1
        frozen.sign("root")
    if role == "snapshot":
        frozen.snapshot.version += 1
        frozen.sign("snapshot", renew=False)
        frozen.release()
    box.refuses(frozen, "expired")


def test_mix_and_match_of_two_states(box: Box, forge: Forge) -> None:
    """Each file was signed rightly, but never together."""
    before = forge.copy()
    forge.put_set(6)
    forge.release("targets", "sig")
    after = forge.copy()
    for role in ("snapshot", "targets", "sig"):
        mixed = after.copy()
        version = after.signed(role).version
        mixed.files[f"metadata/{version}.{role}.json"] = before.files[f"metadata/{version - 1}.{role}.json"]
        box.refuses(mixed, "forged", "rolled_back", "too_large")
    assert box.take() == 6


def test_mix_and_match_where_snapshot_tells_no_hashes(forge: Forge, tmp_path: Path) -> None:
    forge.hashes = False
    forge.put_set(5)
    forge.release("targets", "sig")
    box = Box(forge, tmp_path / "box")
    before = forge.copy()
    forge.put_set(6)
    forge.release("targets", "sig")
    for role in ("snapshot", "targets", "sig"):
        mixed = forge.copy()
        version = forge.signed(role).version
        mixed.files[f"metadata/{version}.{role}.json"] = before.files[f"metadata/{version - 1}.{role}.json"]
        box.refuses(mixed, "forged", "rolled_back")


@pytest.mark.parametrize("path", ["fw/6.raucb", "../6", "sig/../../etc/passwd", "https://elsewhere.example/6", "/etc"])
def test_extraneous_dependencies_a_manifest_cannot_lead_out_of_its_delegation(
    box: Box, forge: Forge, path: str
) -> None:
    forge.put_set(6, path=path)
    forge.release("sig")
    box.refuses(forge, "malformed")


def test_wrong_software_who_signs_sets_signs_nothing_else(box: Box, forge: Forge) -> None:
    forge.sig.targets["fw/6.raucb"] = TargetFile.from_data("fw/6.raucb", b"evil")
    forge.release("sig")
    box.take()
    with pytest.raises(ChannelRefused) as refused:
        box.trust.target("fw/6.raucb")
    assert refused.value.code == "missing"


def test_foreign_delegation_another_role_has_no_say_in_sets(box: Box, forge: Forge) -> None:
    """Rules come from `sig`; what another delegation says of the same paths is not even asked."""
    stranger = strangers(1)
    public = {signer.public_key.keyid: signer.public_key for signer in stranger}
    delegations = forge.targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    delegations.keys |= public
    delegations.roles["fw"] = DelegatedRole("fw", list(public), 1, False, ["fw/*", "sig/*"])
    forge.snapshot.meta["fw.json"] = forge.snapshot.meta["sig.json"]
    del forge.sig.targets[MANIFEST]
    forge.release("targets", "sig")
    box.refuses(forge, "missing")
    assert not [name for name in box.source.asked if "fw.json" in name]


@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b"[" * 200_000, b'{"number":0}', b'{"number":1e99}', b"\xff" * 100, b'{"number":5}']
)
def test_a_manifest_rightly_signed_and_senseless_is_refused(box: Box, forge: Forge, data: bytes) -> None:
    forge.put_target(forge.sig, MANIFEST, data)
    forge.release("sig")
    box.refuses(forge, "malformed")


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"[" * 10_000, b'{"signed":{},"signatures":[]}', b"\xff" * 100])
@pytest.mark.parametrize("name", ["timestamp.json", "3.snapshot.json", "2.root.json"])
def test_senseless_metadata_is_refused(box: Box, forge: Forge, data: bytes, name: str) -> None:
    evil = forge.copy()
    evil.hashes = False
    evil.sign("snapshot")
    evil.release("sig")
    evil.files[f"metadata/{name}"] = data
    box.refuses(evil, "forged")


def test_a_malicious_mirror_that_hides_what_is_new_can_only_make_the_box_wait(box: Box, forge: Forge) -> None:
    forge.put_set(6)
    forge.release("sig")
    for name in ("timestamp.json", f"{forge.snapshot.version}.snapshot.json", f"{forge.sig.version}.sig.json"):
        mirror = forge.copy()
        del mirror.files[f"metadata/{name}"]
        box.source.forge = mirror
        with pytest.raises(ChannelDown):
            box.take()
    box.source.forge = forge
    assert box.take() == 6


def test_wrong_clock_back_replays_nothing_and_is_told(box: Box, forge: Forge) -> None:
    """A box without a battery boots in 1970; what had ended by the newest signed time stays ended."""
    seen = box.trust.refresh(0.0)
    assert seen.clock_behind_s == forge.now.timestamp()
    assert seen.at == forge.now.timestamp()
    forge.now += 3 * DAY
    forge.release("sig")
    box.take(dt.datetime.fromtimestamp(0, dt.UTC))
    old = forge.copy()
    old.timestamp.version += 1
    old.timestamp.expires = forge.now - HOUR
    old.timestamp.unrecognized_fields[ISSUED] = "2020-01-01T00:00:00Z"
    old.sign("timestamp", renew=False)
    box.source.forge = old
    with pytest.raises(ChannelRefused) as refused:
        box.trust.refresh(0.0)
    assert refused.value.code == "expired"
    assert box.trust.floors.time == forge.now.timestamp()


def test_wrong_clock_forward_is_unconfirmed_and_poisons_nothing(box: Box, forge: Forge) -> None:
    before = msgspec.structs.replace(box.trust.floors)
    with pytest.raises(ChannelUnfit) as unfit:
        box.take(forge.now + 730 * DAY)
    assert unfit.value.code == "stale_unconfirmed"
    assert "go on working" in str(unfit.value)
    assert box.trust.floors == before
    assert box.take() == 5


def test_wrong_clock_forward_does_no_harm_once_the_centre_told_the_time(box: Box, forge: Forge) -> None:
    ahead = (forge.now + 730 * DAY).timestamp()
    assert box.trust.refresh(ahead, true=forge.now.timestamp()).clock_behind_s == 0.0
    with pytest.raises(ChannelRefused) as refused:
        box.trust.refresh(0.0, true=ahead)
    assert refused.value.code == "expired"


def test_an_old_stick_is_taken_only_when_a_person_vouches_and_never_an_older_one(forge: Forge, tmp_path: Path) -> None:
    def stick(name: str) -> Folder:
        for path, data in forge.files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(data)
        return Folder(tmp_path / name)

    older = stick("older")
    forge.now += 10 * DAY
    forge.put_set(5)
    forge.release("targets", "sig")
    newer = stick("newer")
    clock = (forge.now + 20 * DAY).timestamp()
    trust = Trust(tmp_path / "box", forge.trusted, newer)
    with pytest.raises(ChannelRefused) as refused:
        trust.refresh(clock, clock)
    assert refused.value.code == "expired"
    trust.refresh(clock, clock, accept_old=True)
    assert trust.manifest().number == 5
    with pytest.raises(ChannelRefused) as refused:
        Trust(tmp_path / "box", forge.trusted, older).refresh(clock, clock, accept_old=True)
    assert refused.value.code in ("rolled_back", "expired")


def test_floors_are_on_the_disk_before_anything_of_a_refresh_can_be_used(box: Box, forge: Forge) -> None:
    forge.put_set(6)
    forge.release("sig")
    box.trust.refresh(forge.now.timestamp())
    assert stored(box).timestamp == forge.timestamp.version
    box.trust.manifest()
    assert stored(box).number == 6


def stored(box: Box) -> Floors:
    return Trust(box.trust._store._directory, forge_root(box), box.source).floors


def forge_root(box: Box) -> bytes:
    return box.forge.trusted
