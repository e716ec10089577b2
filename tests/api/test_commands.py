"""The operator's commands, and the page of docs that tells partners of the API."""

from __future__ import annotations

import argparse
import json
import ssl
import subprocess
from pathlib import Path

import pytest
from house import House, Partner, Service
from office import US

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import commands
from sekisho.center.api import document
from sekisho.center.portal import audit
from sekisho.center.scope import EVERYONE

DOCS = Path(__file__).parents[2] / "docs" / "api.md"


def run(house: House, *argv: str) -> int:
    parser = argparse.ArgumentParser()
    commands.register(parser.add_subparsers())
    more = [] if argv[0] == "authority" else ["--store", str(house.office.path)]
    more += ["--authority", str(house.authority)] if argv[0] in ("authority", "certificate") else []
    args = parser.parse_args(["center", "partner", *argv, *more])
    return int(args.func(args))


def requested(folder: Path, name: str) -> tuple[Path, Path]:
    """(request, key) as docs/api.md tells partners to make them."""
    line = next(line for line in DOCS.read_text().splitlines() if line.strip().startswith("openssl req"))
    key, csr = folder / f"{name}.key", folder / f"{name}.csr"
    argv = line.strip().replace("kita.key", str(key)).replace("kita.csr", str(csr)).split()
    subprocess.run(argv, check=True, capture_output=True)
    return csr, key


def test_a_partner_joins_as_the_docs_say_and_ends_by_one_command(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(service, "authority") == 0
    assert Path(capsys.readouterr().out.strip()) == service.authority / "ca.crt"
    csr, key = requested(tmp_path, "kita")
    assert run(service, "add", "kita-system", "--role", "reseller", "--reseller", "kita-cci") == 0
    capsys.readouterr()
    assert run(service, "certificate", "kita-system", "--csr", str(csr), "--days", "30") == 0
    cert = tmp_path / "kita.crt"
    cert.write_text(capsys.readouterr().out)
    partner = Partner("kita-system", cert, key)
    found = service.get(partner, "/v1/tenants").json()
    assert [one["tenant"] for one in found["items"]] == [US]

    assert run(service, "list", "--json") == 0
    (listed,) = [one for one in json.loads(capsys.readouterr().out) if one["name"] == "kita-system"]
    assert listed["certificates"][0]["fingerprint"] == partner.fingerprint and not listed["revoked_at"]
    assert run(service, "list") == 0 and "kita-cci" in capsys.readouterr().out

    assert run(service, "revoke", "kita-system") == 0
    assert service.get(partner, "/v1/tenants").status_code == 403
    with pytest.raises(RejectedInput, match="was revoked"):
        run(service, "certificate", "kita-system", "--csr", str(csr))
    with service.office.store.database.reading() as db:
        noted = [row.action for row in audit.of(db, EVERYONE) if row.about.startswith("kita-system")]
    assert noted == ["partner.revoke", "partner.certificate", "partner.add"]


def test_what_does_not_fit_is_refused_and_leaves_nothing(service: Service, tmp_path: Path) -> None:
    wrong = [
        ("add", "a/b", "--role", "operator"),
        ("add", "fits", "--role", "reseller"),
        ("add", "fits", "--role", "admin"),
        ("add", "fits", "--role", "operator", "--tenant", US),
        ("add", "fits", "--role", "member", "--tenant", "nobody"),
        ("revoke", "fits"),
        ("certificate", "fits", "--csr", str(tmp_path / "absent")),
    ]
    for argv in wrong:
        with pytest.raises(RejectedInput):
            run(service, *argv)
    (tmp_path / "bad").write_bytes(b"\xff" * 99)
    with pytest.raises(RejectedInput, match="cannot be read"):
        run(service, "certificate", "fits", "--csr", str(tmp_path / "bad"))
    csr, _ = requested(tmp_path, "nobody")
    with pytest.raises(RejectedInput, match="no partner"):
        run(service, "certificate", "fits", "--csr", str(csr))
    assert run(service, "add", "fits", "--role", "operator") == 0
    with pytest.raises(RejectedInput, match="is or was"):
        run(service, "add", "fits", "--role", "operator")
    for days in ("0", "826"):
        with pytest.raises(RejectedInput, match="days"):
            run(service, "certificate", "fits", "--csr", str(csr), "--days", days)


def test_the_partners_ca_keeps_its_key_to_itself(house: House) -> None:
    assert (house.authority / "ca.key").stat().st_mode & 0o077 == 0
    assert house.authority.stat().st_mode & 0o077 == 0
    ssl.create_default_context(cafile=house.authority / "ca.crt")


def test_the_page_of_docs_lists_the_routes_that_there_are(service: Service) -> None:
    described = service.get(service.partner(), "/v1/openapi.json").json()
    told = DOCS.read_text().split("<!-- routes -->\n")[1].split("\n<!-- /routes -->")[0]
    assert told == document.table(described), f"put this into docs/api.md:\n{document.table(described)}"
