"""Partners' programs read of a UTM's rules what the portal's people do."""

from __future__ import annotations

from house import House
from office import BOXES, US

from sekisho.appliance.core import utc
from sekisho.center.ca import registry
from sekisho.telemetry.events import Signatures

PATH = f"/v1/tenants/{US}/boxes/{BOXES[US]}"


def test_a_utms_rules_are_on_its_resource(house: House) -> None:
    client, who = house.client(), house.partner()
    with house.office.store.transaction() as db:
        registry.expect(db, BOXES[US], US, utc.now())
    assert client.ask(who, "GET", PATH).json()["box"]["signatures"] is None
    now = utc.now()
    facts = {"number": 12, "set": "ab" * 8, "rules": 20116, "yara": 5883, "built": now, "checked": now, "sids": [7]}
    house.office.feed(Signatures(at=now, state="refused", freshness="aging", refused=13, **facts))  # type: ignore[arg-type]
    found = client.ask(who, "GET", PATH).json()["box"]["signatures"]
    assert (found["number"], found["rules"], found["yara_rules"], found["failed_rules"]) == (12, 20116, 5883, 0)
    assert (found["freshness"], found["refused_number"], found["muted_rules"]) == ("aging", 13, [7])
    assert found["checked_at"] == found["built_at"] == found["in_use_since"] == found["refused_at"] == found["told_at"]
    assert found["told_at"] and found["without_rules_since"] is None
    house.office.feed(Signatures(at=utc.now(), state="silent"))
    assert client.ask(who, "GET", PATH).json()["box"]["signatures"]["without_rules_since"]
