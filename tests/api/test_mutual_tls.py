"""Who gets in: a certificate of the partners' own CA that is in the registry, and nobody else. The real process."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from house import Partner, Service
from office import BOXES, THEM, US

from sekisho.center import pki
from sekisho.center.api import partners
from sekisho.center.api.partners import PARTNER_CERTIFICATE

TENANTS = "/v1/tenants"


def issued(folder: Path, cn: str, kind: pki.Kind = "client") -> Partner:
    pki.create_ca(folder)
    files = pki.issue(folder, cn, kind)
    return Partner(cn, files.cert, files.key)


def refused(service: Service, who: Partner | None) -> None:
    """The handshake fails: nothing of HTTP is ever answered."""
    with pytest.raises(requests.exceptions.ConnectionError) as caught:
        service.get(who, TENANTS)
    assert not isinstance(caught.value, requests.exceptions.Timeout)
    assert "CERTIFICATE_VERIFY_FAILED" not in str(caught.value), "we did not believe the server"


def test_a_partner_gets_in_and_is_named_in_the_log(service: Service) -> None:
    partner = service.partner("reseller")
    answer = service.get(partner, TENANTS)
    assert answer.status_code == 200
    assert [one["tenant"] for one in answer.json()["items"]] == [US]
    assert answer.headers["cache-control"] == "no-store" and "server" not in answer.headers
    assert f"{partner.name} GET /v1/tenants 200" in service.log.read_text()


def test_without_a_certificate_the_handshake_fails(service: Service) -> None:
    refused(service, None)


def test_a_boxs_certificate_is_none_of_the_partners_ca(service: Service) -> None:
    refused(service, issued(service.boxes, BOXES[US]))


def test_a_certificate_of_another_ca_with_the_same_name_is_refused(service: Service, tmp_path: Path) -> None:
    known = service.partner("operator")
    refused(service, issued(tmp_path / "other", known.name))
    forged = tmp_path / "forged"
    pki.create_ca(forged, "sekisho partners CA")
    refused(service, issued(forged, known.name))


def test_a_servers_certificate_of_the_partners_ca_is_no_clients(service: Service) -> None:
    refused(service, issued(service.authority, "some-server", "server"))


def test_a_certificate_that_is_not_in_the_registry_sees_nothing(service: Service) -> None:
    stranger = service.certificate("stranger")
    for path in (TENANTS, f"{TENANTS}/{US}/alerts", "/v1/openapi.json"):
        answer = service.get(stranger, path)
        assert answer.status_code == 403, path
        assert answer.headers["content-type"] == "application/problem+json"


def test_revoking_ends_a_connection_that_is_open(service: Service) -> None:
    partner, other = service.partner("admin"), service.partner("admin")
    with service.session(partner) as session:
        assert session.get(service.url(TENANTS), timeout=20).status_code == 200
        service.revoke(partner)
        assert session.get(service.url(TENANTS), timeout=20).status_code == 403
    assert service.get(other, TENANTS).status_code == 200


def test_one_certificate_of_a_partner_ends_and_the_other_goes_on(service: Service) -> None:
    partner = service.partner("admin")
    spare = service.certificate(partner.name + "-spare")
    now = dt.datetime.now(dt.UTC)
    with service.office.store.transaction() as db:
        partners.admit(db, partner.name, spare.fingerprint, now + dt.timedelta(days=1), now)
    service.revoke(partner, partner.fingerprint)
    assert service.get(partner, TENANTS).status_code == 403
    assert service.get(spare, TENANTS).status_code == 200


def test_a_certificate_whose_time_is_over_ends_on_an_open_connection(service: Service) -> None:
    partner = service.partner("admin")
    with service.session(partner) as session:
        assert session.get(service.url(TENANTS), timeout=20).status_code == 200
        past = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)).isoformat()
        with service.office.store.transaction() as db:
            mine = PARTNER_CERTIFICATE.c.fingerprint == partner.fingerprint
            db.execute(PARTNER_CERTIFICATE.update().where(mine).values(until=past))
        assert session.get(service.url(TENANTS), timeout=20).status_code == 403


def test_another_chambers_partner_finds_none_of_our_customers(service: Service) -> None:
    partner = service.partner("reseller", THEM)
    assert [one["tenant"] for one in service.get(partner, TENANTS).json()["items"]] == [THEM]
    ours, nobodys = (service.get(partner, f"{TENANTS}/{tenant}") for tenant in (US, "nobody"))
    assert ours.status_code == nobodys.status_code == 404
    assert ours.json() == nobodys.json()


def test_a_partners_certificate_opens_nothing_where_boxes_are_known(service: Service) -> None:
    """Brokers trust the boxes' CA alone, whatever a partner is called."""
    clash = service.certificate(BOXES[US])
    argv = ["openssl", "verify", "-CAfile", str(service.ca), "-purpose", "sslclient", str(clash.cert)]
    assert subprocess.run(argv, capture_output=True, check=False).returncode != 0


def test_it_does_not_start_without_the_partners_ca(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "center.toml"
    path.write_text(service.config.read_text().replace("partners/ca.crt", "absent.crt"))
    argv = [sys.executable, "-I", "-m", "sekisho.center.api", "--settings", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2 and "clients' CA" in done.stderr
