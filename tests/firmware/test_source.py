"""A box takes the newest release that its keyholders signed for it, whoever is between, and nothing else."""

from __future__ import annotations

import copy
import datetime as dt
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hostile import Hostile
from releases import HERE, Centre
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Targets

from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput, SekishoError
from sekisho.appliance.core.jobs import Believed, Operator, Operators
from sekisho.center import pki
from sekisho.firmware.build import publishing
from sekisho.firmware.published import Release, release_path
from sekisho.firmware.source import Source
from sekisho.signatures.depot import ceremony
from sekisho.signatures.depot.rotate import rotate
from sekisho.signatures.depot.signing import advance
from sekisho.signatures.trust import ChannelRefused, Folder

OTHER = "arm64" if HERE == "amd64" else "amd64"


def box(centre: Centre, served: Path | None = None, hardware: str = HERE) -> Source:
    return Source(centre.settings(hardware=hardware), way=Folder(served or centre.depot.tree.directory))


def code(caught: pytest.ExceptionInfo[ChannelRefused]) -> str:
    return caught.value.code


def kept(centre: Centre, name: str = "earlier") -> Path:
    """What a hostile mirror kept of the repository."""
    return Path(shutil.copytree(centre.depot.tree.directory, centre.depot.root / name))


def test_the_newest_release_for_this_hardware_is_found_and_fetched(centre: Centre) -> None:
    source = box(centre)
    with pytest.raises(PeerError, match="no release"):
        source.refresh()
    for counter in (1, 2):
        made = centre.publish(counter)
        assert source.refresh() == made
    seen: list[tuple[int, int]] = []
    path = source.fetch(made, lambda here, whole: seen.append((here, whole)))
    assert path.read_bytes() == centre.bundle(made).read_bytes()
    assert seen[-1] == (made.length, made.length)
    assert box(centre).refresh() == made, "after a restart of the daemon"
    source.discard()
    assert not path.exists()


def test_a_release_that_was_replaced_meanwhile_can_still_be_fetched(centre: Centre) -> None:
    source = box(centre)
    centre.publish(1)
    first = source.refresh()
    centre.publish(2)
    assert source.fetch(first).stat().st_size == first.length


def test_who_may_sign_jobs_is_written_for_the_jobs_daemon_and_replaced_as_a_whole(centre: Centre) -> None:
    centre.publish(1)
    source, settings = box(centre), centre.settings()
    source.refresh()
    assert not settings.operators.exists()
    for name in ("tanaka", "suzuki"):
        one = Operator(name=name, person=name, key=bytes(32), kinds=["fw.stage"], until=2_000_000_000)
        wanted = publishing.with_operator(publishing.operators(centre.depot.tree), one)
        publishing.publish_operators(centre.depot.tree, centre.depot.ring, wanted, centre.depot.now, centre.adopt)
        source.refresh()
        assert msgspec.json.decode(settings.operators.read_bytes(), type=Operators) == wanted
    assert [one.name for one in wanted.operators] == ["tanaka", "suzuki"]
    found = msgspec.json.decode(settings.operators.read_bytes(), type=Believed)
    assert found.at == centre.depot.now.timestamp() < found.expires < found.at + 366 * 86_400


def test_a_list_of_operators_that_is_not_believed_does_not_hold_up_a_release(centre: Centre) -> None:
    made = centre.publish(1)
    one = Operator(name="tanaka", person="tanaka", key=bytes(32), kinds=["fw.stage"], until=2_000_000_000)
    known = Operators(operators=[one])
    publishing.publish_operators(centre.depot.tree, centre.depot.ring, known, centre.depot.now, centre.adopt)
    source = box(centre)
    source.refresh()
    before = centre.settings().operators.read_bytes()
    one = msgspec.structs.replace(one, name="mallet")
    publishing.publish_operators(
        centre.depot.tree, centre.depot.ring, Operators(operators=[one]), centre.depot.now, centre.adopt
    )
    for path in (centre.depot.tree.targets / "operators").iterdir():
        path.write_bytes(path.read_bytes().replace(b"tanaka", b"mallet"))
    assert box(centre).refresh() == made
    assert centre.settings().operators.read_bytes() == before


# The attacks of TUF's specification and of Uptane's, on releases


def test_attack_arbitrary_install_by_keys_that_are_not_the_keyholders(centre: Centre) -> None:
    centre.publish(1)
    listed = centre.listed()
    listed.version += 1
    made = Metadata(listed)
    chain = centre.depot.tree.chain()
    for role in ("sig", "operators"):
        judge = chain.targets.signed
        keys = [judge.get_key(keyid) for keyid in judge.get_delegated_role(role).keyids]
        for signer in centre.depot.ring.signers(role, keys, 2):
            made.sign(signer, append=True)
    centre.force(made)
    with pytest.raises(ChannelRefused) as caught:
        box(centre).refresh()
    assert code(caught) == "forged"


def test_attack_key_compromise_below_the_threshold(centre: Centre) -> None:
    centre.publish(1)
    listed = centre.listed()
    centre.put(listed, release_path(HERE), b"{}")
    centre.force(centre.signed(listed, signers=1))
    with pytest.raises(ChannelRefused) as caught:
        box(centre).refresh()
    assert code(caught) == "forged"


def test_attack_of_the_sets_keyholder_who_lists_a_release_is_without_effect(centre: Centre) -> None:
    """Sets are signed on a server: what runs there must not become a program on a box."""
    chain = centre.depot.tree.chain()
    listed = copy.deepcopy(chain.delegated["sig"].signed)
    centre.put(listed, release_path(HERE), b"{}")
    advance(centre.depot.tree, centre.depot.ring, chain, centre.depot.now, sig=listed)
    with pytest.raises(PeerError, match="no release"):
        box(centre).refresh()


def test_attack_rollback_to_a_list_that_was_once_in_force(centre: Centre) -> None:
    centre.publish(1)
    old = kept(centre)
    newest = centre.publish(2)
    assert box(centre).refresh() == newest
    with pytest.raises(ChannelRefused) as caught:
        box(centre, old).refresh()
    assert code(caught) == "rolled_back"


def test_attack_cut_then_rollback(centre: Centre) -> None:
    """A power cut that empties every cached file does not take the floors along."""
    centre.publish(1)
    old = kept(centre)
    centre.publish(2)
    box(centre).refresh()
    for path in (centre.settings().firmware_state / "trust").rglob("*.json"):
        path.write_bytes(b"")
    with pytest.raises(ChannelRefused) as caught:
        box(centre, old).refresh()
    assert code(caught) == "rolled_back"


def test_attack_rollback_by_an_older_release_in_a_newer_list(centre: Centre) -> None:
    older = centre.publish(1)
    newest = centre.publish(2)
    source = box(centre)
    source.refresh()
    listed = centre.listed()
    centre.put(listed, release_path(HERE), msgspec.json.encode(older))
    centre.put(listed, older.path, centre.bundle(older).read_bytes())
    centre.force(centre.signed(listed))
    with pytest.raises(ChannelRefused) as caught:
        box(centre).refresh()
    assert code(caught) == "rolled_back"
    assert newest.counter == 2


def test_attack_fast_forward_is_forgotten_when_the_stolen_keys_are_replaced(centre: Centre) -> None:
    made = centre.publish(1)
    listed = centre.listed()
    far = msgspec.structs.replace(made, counter=10**12, path=f"fw/{HERE}/{10**12}.tar.zst")
    centre.put(listed, release_path(HERE), msgspec.json.encode(far))
    centre.put(listed, far.path, centre.bundle(made).read_bytes())
    centre.force(centre.signed(listed))
    assert box(centre).refresh().counter == 10**12
    rotate(centre.depot.tree, centre.depot.ring, "fw", centre.depot.root / "new", centre.depot.now)
    centre.depot.ring.places.append(centre.depot.root / "new")
    again = msgspec.structs.replace(made, counter=2, path=f"fw/{HERE}/2.tar.zst")
    listed = centre.listed()
    listed.targets = {}
    centre.put(listed, release_path(HERE), msgspec.json.encode(again))
    centre.put(listed, again.path, centre.bundle(made).read_bytes())
    centre.force(centre.signed(listed))
    assert box(centre).refresh() == again


def test_attack_indefinite_freeze(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    centre.publish(1)
    source = box(centre)
    source.refresh()
    later = dt.datetime.now(dt.UTC).timestamp() + 2 * 86_400
    monkeypatch.setattr("sekisho.firmware.source.time.time", lambda: later)
    monkeypatch.setattr("sekisho.firmware.source.told_time.try_read", lambda settings: later)
    with pytest.raises(ChannelRefused) as caught:
        source.refresh()
    assert code(caught) == "expired"


@pytest.mark.parametrize("days", [91])
def test_attack_freeze_of_releases_alone(centre: Centre, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """The online roles go on; what the keyholders signed ended, and nobody can go on offering it for ever."""
    centre.publish(1)
    sticks, centre.depot.ring = centre.depot.ring, type(centre.depot.ring)([centre.depot.keys / "online"])
    targets = ceremony.extend(centre.depot.tree, sticks, "targets", centre.depot.now + dt.timedelta(days=13))
    centre.depot.now += dt.timedelta(days=13)
    centre.adopt(targets)
    for _ in range(6):
        centre.depot.renew(dt.timedelta(days=13))
    assert (centre.depot.tree.chain().signed("fw").expires - centre.depot.now).days < 0
    monkeypatch.setattr("sekisho.firmware.source.time.time", centre.depot.now.timestamp)
    monkeypatch.setattr("sekisho.firmware.source.told_time.try_read", lambda settings: centre.depot.now.timestamp())
    with pytest.raises(ChannelRefused) as caught:
        box(centre).refresh()
    assert code(caught) == "expired"


def changed(made: Release, **how: object) -> Release:
    return msgspec.convert({**msgspec.to_builtins(made), **how}, Release)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda made: changed(made, sha256="0" * 64), "different bundles"),
        (lambda made: changed(made, length=made.length - 1), "different bundles"),
        (lambda made: changed(made, blocks=[*made.blocks, "0" * 64]), "agree with itself"),
        (lambda made: changed(made, counter=7), "agree with itself"),
        (lambda made: changed(made, path=f"fw/{OTHER}/{made.counter}.tar.zst"), "agree with itself"),
    ],
    ids=["another bundle", "another length", "more blocks", "another counter", "another's bundle"],
)
def test_attack_mix_and_match_inside_what_the_keyholders_signed(
    centre: Centre, how: Callable[[Release], Release], why: str
) -> None:
    made = centre.publish(1)
    listed = centre.listed()
    centre.put(listed, release_path(HERE), msgspec.json.encode(how(made)))
    centre.force(centre.signed(listed))
    with pytest.raises(RejectedInput, match=why):
        box(centre).refresh()


def test_attack_mix_and_match_of_lists_of_different_days(centre: Centre) -> None:
    centre.publish(1)
    old = (centre.depot.tree.versioned(2, "fw")).read_bytes()
    centre.publish(2)
    centre.depot.tree.versioned(3, "fw").write_bytes(old)
    with pytest.raises(RejectedInput):
        box(centre).refresh()


def test_attack_wrong_hardware(centre: Centre) -> None:
    made = centre.publish(1)
    with pytest.raises(PeerError, match="no release"):
        box(centre, hardware="skg-a1").refresh()
    listed = centre.listed()
    centre.put(listed, release_path("skg-a1"), msgspec.json.encode(made))
    centre.force(centre.signed(listed))
    with pytest.raises(RejectedInput, match="this box is skg-a1"):
        box(centre, hardware="skg-a1").refresh()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"{" * 5000, b"\xff", b'{"counter": 1}'])
def test_attack_a_release_that_is_none(centre: Centre, data: bytes) -> None:
    centre.publish(1)
    listed = centre.listed()
    centre.put(listed, release_path(HERE), data)
    centre.force(centre.signed(listed))
    with pytest.raises(RejectedInput):
        box(centre).refresh()


@pytest.mark.parametrize(
    "path", ["fw/../sig/6.tar.zst", "/etc/passwd", "sig/1.tar.zst", f"fw/{HERE}/../{OTHER}/1.tar.zst"]
)
def test_attack_extraneous_dependencies_a_release_leads_nowhere_but_to_its_own_bundle(
    centre: Centre, path: str
) -> None:
    made = centre.publish(1)
    listed = centre.listed()
    centre.put(listed, release_path(HERE), msgspec.json.encode(msgspec.structs.replace(made, path=path)))
    centre.force(centre.signed(listed))
    with pytest.raises(RejectedInput):
        box(centre).refresh()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "sig"])
def test_attack_key_compromise_of_an_online_role_brings_no_release(centre: Centre, role: str) -> None:
    """Whoever has one of the server's keys can hold back and can break; only keyholders make a release."""
    made = centre.publish(1)
    assert box(centre).refresh() == made
    thief = CryptoSigner.generate_ed25519()
    listed = centre.listed()
    far = msgspec.structs.replace(made, counter=9, path=f"fw/{HERE}/9.tar.zst")
    centre.put(listed, release_path(HERE), msgspec.json.encode(far))
    centre.put(listed, far.path, centre.bundle(made).read_bytes())
    listed.version += 1
    forged = Metadata(listed)
    forged.sign(thief)
    chain = centre.depot.tree.chain()
    judge: Root | Targets = chain.targets.signed if role == "sig" else chain.root.signed
    known = judge.get_delegated_role(role)
    for signer in centre.depot.ring.signers(role, [judge.get_key(keyid) for keyid in known.keyids], 1):
        forged.sign(signer, append=True)
    centre.force(forged)
    with pytest.raises(ChannelRefused) as caught:
        box(centre).refresh()
    assert code(caught) == "forged"


@pytest.mark.parametrize("name", ["timestamp.json", "*.snapshot.json", "3.fw.json", "targets/fw"])
def test_attack_malicious_mirror_that_drops_requests_makes_the_box_wait_and_no_more(centre: Centre, name: str) -> None:
    centre.publish(1)
    source = box(centre)
    source.refresh()
    newest = centre.publish(2)
    mirror = kept(centre, "mirror")
    hidden = [mirror / name] if "/" in name else list((mirror / "metadata").glob(name))
    assert hidden and all(path.exists() for path in hidden)
    for path in hidden:
        path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(PeerError):
        box(centre, mirror).refresh()
    assert box(centre).refresh() == newest, "and what it refused poisons nothing"


def test_attack_eavesdrop_nothing_is_asked_but_over_tls_of_a_server_of_the_centres_authority(
    centre: Centre, tmp_path: Path
) -> None:
    for name in ("stranger", "centre"):
        pki.create_ca(tmp_path / name)
    pki.issue(tmp_path / "stranger", "updates", "server", ("127.0.0.1",))
    pair = (tmp_path / "stranger" / "updates.crt", tmp_path / "stranger" / "updates.key")
    settings = centre.settings()
    with Hostile({}, pair) as listening:
        known = msgspec.structs.replace(
            settings.signatures, channel=listening.url, channel_ca=str(tmp_path / "centre" / "ca.crt")
        )
        with pytest.raises(PeerError):
            Source(msgspec.structs.replace(settings, signatures=known)).refresh()
        assert not listening.asked
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"channel": "http://127.0.0.1"}, type(settings.signatures))


def test_attack_clock_back_revives_no_release(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    """A box without a battery wakes in 1970; what had ended by the newest signed time stays ended."""
    centre.publish(1)
    old = kept(centre)
    centre.depot.renew(dt.timedelta(days=3))
    now = centre.depot.now.timestamp()
    monkeypatch.setattr("sekisho.firmware.source.time.time", lambda: now)
    monkeypatch.setattr("sekisho.firmware.source.told_time.try_read", lambda settings: now)
    box(centre).refresh()
    monkeypatch.setattr("sekisho.firmware.source.time.time", lambda: 0.0)
    monkeypatch.setattr("sekisho.firmware.source.told_time.try_read", lambda settings: None)
    with pytest.raises(ChannelRefused) as caught:
        box(centre, old).refresh()
    assert code(caught) in {"rolled_back", "expired"}
    assert box(centre).refresh().counter == 1


def test_attack_clock_forward_is_unconfirmed_and_poisons_nothing(
    centre: Centre, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = centre.publish(1)
    source = box(centre)
    assert source.refresh() == made
    with monkeypatch.context() as ahead:
        ahead.setattr("sekisho.firmware.source.time.time", lambda: centre.depot.now.timestamp() + 730 * 86_400)
        with pytest.raises(SekishoError, match="clock"):
            source.refresh()
    assert source.refresh() == made


def test_attack_endless_release(centre: Centre) -> None:
    centre.publish(1)
    listed = centre.listed()
    centre.put(listed, release_path(HERE), bytes(1 << 20))
    centre.force(centre.signed(listed))
    with pytest.raises(ChannelRefused) as caught:
        box(centre).refresh()
    assert code(caught) == "too_large"


def test_a_box_without_its_root_says_so(centre: Centre) -> None:
    centre.publish(1)
    settings = centre.settings()
    source = Source(settings, way=Folder(centre.depot.tree.directory))
    Path(settings.signatures.root).unlink()
    with pytest.raises(DeviceFault, match="set it up again"):
        source.refresh()
