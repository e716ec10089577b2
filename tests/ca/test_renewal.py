"""A certificate follows the one before it without a gap, and nobody but its own key gets the next one."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from sekisho.telemetry.enrolment.wire import RENEW_PATH, RENEWAL_CONTEXT

if TYPE_CHECKING:
    from tests.ca.conftest import Box, Centre

pytestmark = pytest.mark.timeout(120)  # more than `Centre.wait`, which says what it waited for

MakeBox = Callable[[str], "Box"]
MakeCentre = Callable[..., "Centre"]
LIFE_S = 10.0
GRACE_S = 12.0
_SOURCES = itertools.count()


@pytest.fixture
def short(tmp_path: Path, make_centre: MakeCentre) -> Iterator[Centre]:
    """A centre whose certificates live for seconds, with a broker and ingest."""
    made = make_centre(tmp_path, LIFE_S)
    made.start("ca", "web", "broker", "daemon")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory, make_centre: MakeCentre) -> Iterator[Centre]:
    """A centre whose certificates live for three seconds, and may be renewed for `GRACE_S` more."""
    made = make_centre(tmp_path_factory.mktemp("brief"), 3.0, GRACE_S)
    made.start()
    yield made
    made.stop()


def test_a_box_outlives_its_certificates_and_nothing_is_lost_or_doubled(short: Centre, make_box: MakeBox) -> None:
    box = make_box("long-1")
    assert box.enrol(short.url, short.code("long-1")).returncode == 0
    short.run("box", box.daemon())
    began, serials, number = time.monotonic(), {box.serial()}, 0

    def arrived() -> bool:
        return len(short.sids("long-1")) >= number

    while len(serials) < 3:
        number += 1
        box.alert(number)
        if box.serial() not in serials:
            serials.add(box.serial())
            short.kill("broker")  # so that the new certificate is shown at once
            short.start("broker")
        short.wait(arrived)
        assert time.monotonic() - began < 5 * LIFE_S
    assert time.monotonic() - began > LIFE_S
    assert short.sids("long-1") == list(range(1, number + 1))
    history = short.say("certificates", "--box", "long-1")
    assert [one["how"] for one in history] == ["renewal"] * (len(history) - 1) + ["code"]
    assert [one["by"] for one in history[:-1]] == [one["serial"] for one in history[1:]]
    log = (short.root / "broker.log").read_text()
    assert "expired" not in log and "certificate verify failed" not in log


def _renewal(
    box: Box, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey | None = None
) -> dict[str, str]:
    pem = (box.identity / "identity.pem").read_bytes()
    old = signer or load_pem_private_key(pem[pem.find(b"-----BEGIN PRIVATE") :], None)
    assert isinstance(old, ec.EllipticCurvePrivateKey)
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    proof = old.sign(RENEWAL_CONTEXT + csr.public_bytes(Encoding.DER), ec.ECDSA(hashes.SHA256()))
    return {"serial": f"{box.serial():x}", "csr": csr.public_bytes(Encoding.PEM).decode(), "proof": proof.hex()}


def _post(centre: Centre, body: dict[str, str]) -> requests.Response:
    source = {"x-forwarded-for": f"203.0.113.{next(_SOURCES) % 250}"}
    return requests.post(centre.url + RENEW_PATH, json=body, headers=source, verify=str(centre.ca), timeout=20)


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.mark.protocol("P33")
def test_only_the_certificates_own_key_renews_it_and_only_once(brief: Centre, make_box: MakeBox) -> None:
    box = make_box("own-1")
    assert box.enrol(brief.url, brief.code("own-1")).returncode == 0
    brief.wait(
        lambda: _post(brief, _renewal(box, _key(), _key())).json()["error"].startswith("The request is not signed")
    )
    ask = _renewal(box, _key())
    brief.wait(lambda: _post(brief, ask).status_code == 200)
    assert _post(brief, ask).json() == _post(brief, ask).json()
    thief = _post(brief, _renewal(box, _key()))
    assert (thief.status_code, "renewed before" in thief.json()["error"]) == (403, True)
    new, old = brief.say("certificates", "--box", "own-1")
    assert (new["by"], old["renewed_by"], new["renewed_by"]) == (old["serial"], new["serial"], "")
    assert brief.outcomes()[-1] == "renewed before"
    assert _post(brief, {**ask, "serial": "abc"}).status_code == 403
    assert _post(brief, {**ask, "serial": "../x"}).status_code == 400
    assert _post(brief, {**ask, "proof": "zz"}).status_code == 400


def test_a_box_that_was_off_renews_for_a_while_and_then_needs_a_code(brief: Centre, make_box: MakeBox) -> None:
    box = make_box("off-1")
    assert box.enrol(brief.url, brief.code("off-1")).returncode == 0
    brief.wait(lambda: brief.say("certificates", "--box", "off-1")[0]["state"] == "expired")
    assert brief.say("certificates", "--expiring", "1d", "--box", "off-1") == []
    assert box.renew().returncode == 0
    over = dt.datetime.fromisoformat(brief.say("certificates", "--box", "off-1")[0]["not_after"]).timestamp() + GRACE_S
    brief.wait(lambda: time.time() > over)
    done = box.renew()
    assert (done.returncode, "too long ago" in done.stderr) == (2, True)
    assert box.enrol(brief.url, brief.code("off-1")).returncode == 0
    assert len(brief.say("certificates", "--box", "off-1")) == 3


def test_a_new_certificate_is_not_renewed_and_its_end_is_foreseen(centre: Centre, make_box: MakeBox) -> None:
    box = make_box("soon-1")
    assert box.enrol(centre.url, centre.code("soon-1")).returncode == 0
    done = box.renew()
    assert (done.returncode, "no need" in done.stderr) == (1, True)
    assert [one["box"] for one in centre.say("certificates", "--expiring", "91d", "--box", "soon-1")] == ["soon-1"]
    assert centre.say("certificates", "--expiring", "80d", "--box", "soon-1") == []
    (shown,) = centre.say("certificates", "--serial", f"{box.serial():x}"[:12])
    assert shown["box"] == "soon-1"
    due = json.loads((box.identity / "renewal.json").read_bytes())
    assert 0.6 < (due["renew_at"] - time.time()) / due["life_s"] < 0.75


def test_power_may_fail_between_the_answer_and_its_file(brief: Centre, make_box: MakeBox) -> None:
    """The key that was asked for is on disk first: the same request comes again and gets the same certificate."""
    box = make_box("power-1")
    assert box.enrol(brief.url, brief.code("power-1")).returncode == 0
    before = {path.name: path.read_bytes() for path in box.identity.iterdir()}
    key = _key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (box.identity / "next.key").write_bytes(key)
    brief.wait(lambda: box.renew().returncode == 0)
    renewed = box.serial()
    for name, data in before.items():
        (box.identity / name).write_bytes(data)
    (box.identity / "next.key").write_bytes(key)
    assert box.renew().returncode == 0
    assert box.serial() == renewed
    assert not (box.identity / "next.key").exists()
