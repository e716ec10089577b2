"""The box takes what is switched off only when it is the centre's and newer than its own, and keeps to it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core import fleet, muting, settings, switched
from sekisho.appliance.core.envelope import MESSAGE_CAP
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.muting import MAX_NAMES, MAX_SIDS, Muting
from sekisho.appliance.core.sealed import Key, load_key
from sekisho.appliance.core.switched import PURPOSE, Switched
from sekisho.center import pki
from sekisho.telemetry.fleet import forget
from sekisho.telemetry.switched import COPY, SwitchedOff

NOW = time.time()


class Box:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.pki = root / "pki"
        pki.create_ca(self.pki)
        self.signer = self.make_signer("immunity-lists", "lists")
        self.config = settings.parse(
            f'box = "b"\n[telemetry]\nca = "{self.pki}/ca.crt"\n[paths]\nrun = "{root}/run"\nstate = "{root}/state"\n'
        )
        self.start()

    def make_signer(self, cn: str, kind: pki.Kind, directory: Path | None = None) -> Key:
        made = pki.issue(directory or self.pki, cn, kind)
        return load_key(made.cert, made.key)

    def start(self) -> None:
        self.off = SwitchedOff(self.config)

    def take(self, n: int, *sids: int, yara: tuple[str, ...] = (), newest: int = 0, signer: Key | None = None) -> bool:
        message = Switched(n=n, sids=sids, yara=yara, newest=newest)
        return self.off.take(switched.seal(message, signer or self.signer), NOW)

    def muted(self) -> Muting:
        return muting.both(self.config)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_what_is_switched_off_is_muted_and_what_is_switched_on_works_again(box: Box) -> None:
    assert box.muted() == Muting()
    before = muting.stamps(box.config)
    assert box.take(1, 7, 9, yara=("A", "b"))
    assert box.muted() == Muting(sids=(7, 9), yara=("A", "b"))
    assert muting.stamps(box.config) != before
    assert box.take(2, 9)
    assert box.muted() == Muting(sids=(9,))


def test_the_newest_set_is_told_to_who_fetches_it(box: Box) -> None:
    assert switched.newest(box.config) == 0
    box.take(1, 7, newest=42)
    assert switched.newest(box.config) == 42
    assert json.loads(switched.newest_path(box.config).read_bytes()) == {"number": 42}
    for damaged in (b"", b"{", b'{"number":-1}', b'{"number":"x"}', b"[" * 100_000):
        switched.newest_path(box.config).write_bytes(damaged)
        assert switched.newest(box.config) == 0


@pytest.mark.protocol("P42")
def test_an_older_message_changes_nothing_also_after_a_restart(box: Box) -> None:
    box.take(3, 7, newest=5)
    for start in (False, True):
        if start:
            box.start()
        assert not box.take(2, 8, newest=9) and not box.take(3, 8) and not box.take(1)
        assert box.muted().sids == (7,) and switched.newest(box.config) == 5
    assert box.off.refused == 2, "the same number again is no attack: it is retained"


@pytest.mark.protocol("P42")
def test_what_the_centre_did_not_sign_for_this_changes_nothing(box: Box, tmp_path: Path) -> None:
    pki.create_ca(tmp_path / "other")
    other = box.make_signer("immunity-lists", "lists", tmp_path / "other")
    for signer in (other, box.make_signer("box-2", "client"), box.make_signer("orders-key", "orders")):
        assert not box.take(9, 7, signer=signer)
    good = switched.seal(Switched(n=9, sids=(7,)), box.signer)
    parts = json.loads(good)
    for data in (
        b"", b"{}", b"[" * 100_000, good[:-9], good + b" " * MESSAGE_CAP,
        json.dumps({**parts, "payload": parts["payload"][:-8] + "AAAAAAA="}).encode(),
        fleet.seal(fleet.All(9, int(NOW) + 1000), box.signer),
        box.signer.seal(msgspec.json.encode(Switched(n=9, sids=(7,))), fleet.PURPOSE),
    ):  # fmt: skip
        assert not box.off.take(data, NOW), data[:80]
    assert box.muted() == Muting() and box.off.known is None
    assert box.off.take(good, NOW)


@pytest.mark.protocol("P42")
@pytest.mark.parametrize(
    "content",
    [
        {"n": 0}, {"n": 1 << 53}, {"n": 1.5}, {"sids": [7]}, {"n": 1, "sids": [0]}, {"n": 1, "sids": [1 << 32]},
        {"n": 1, "sids": [9, 7]}, {"n": 1, "sids": [7, 7]}, {"n": 1, "sids": ["7"]}, {"n": 1, "yara": ["b", "A"]},
        {"n": 1, "yara": ["../x"]}, {"n": 1, "yara": ["x" * 129]}, {"n": 1, "newest": -1}, {"n": 1, "more": True},
        {"n": 1, "sids": list(range(1, MAX_SIDS + 2))},
        {"n": 1, "yara": [f"r{n:05}" for n in range(MAX_NAMES + 1)]},
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused_though_it_is_signed(box: Box, content: object) -> None:
    assert not box.off.take(box.signer.seal(json.dumps(content).encode(), PURPOSE), NOW)
    assert box.muted() == Muting() and box.off.refused == 1


def test_as_much_as_may_be_switched_off_fits_everywhere(box: Box) -> None:
    sids, names = tuple(range((1 << 32) - MAX_SIDS, 1 << 32)), tuple(f"r{n:0127}" for n in range(MAX_NAMES))
    assert box.take(1, *sids, yara=names)
    assert box.muted() == Muting(sids=sids, yara=names)


def test_a_certificate_that_is_over_signs_nothing_new_and_what_it_signed_stays(box: Box) -> None:
    box.take(1, 7)
    late = NOW + 400 * 86400 * 20
    assert not box.off.take(switched.seal(Switched(n=2, sids=(8,)), box.signer), late)
    box.start()
    assert box.muted().sids == (7,) and box.off.known is not None


@pytest.mark.protocol("P45")
def test_it_stays_off_whatever_was_lost_in_between(box: Box) -> None:
    box.take(1, 7, newest=3)
    for name in ("muting.json", "newest.json"):
        for damaged in (False, True):
            (box.config.fleet / name).unlink()
            if damaged:
                (box.config.fleet / name).write_bytes(b"\0" * 10)
            box.start()
            assert box.muted().sids == (7,) and switched.newest(box.config) == 3
    forget(box.config.fleet)
    box.start()
    assert box.muted().sids == (7,), "who takes no part in fleet immunity has switched nothing on"
    (box.config.fleet / COPY).write_bytes(b"")
    box.start()
    assert box.muted().sids == (7,), "until the centre says it again"


@pytest.mark.protocol("P45")
def test_a_kill_between_any_two_files_leaves_what_was_off_or_what_is(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.take(1, 7, newest=1)
    replace, left = Path.replace, [0]

    def cut(path: Path, to: Path) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return replace(path, to)

    for number in range(3):
        data = switched.seal(Switched(n=number + 2, sids=(8 + number,), newest=number + 2), box.signer)
        before = box.muted().sids
        left[0] = number
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", cut)
            with pytest.raises(DeviceFault):
                box.off.take(data, NOW)
        assert box.muted().sids in (before, (8 + number,))
        box.start()
        assert box.muted().sids == ((8 + number,) if number else before)
        box.off.take(data, NOW)
        assert box.muted().sids == (8 + number,) and switched.newest(box.config) == number + 2


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pki.create_ca(tmp_path_factory.mktemp("pki")).read_bytes())


@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused(authority: x509.Certificate, data: bytes) -> None:
    with pytest.raises(RejectedInput):
        switched.unseal(data, authority, NOW)
