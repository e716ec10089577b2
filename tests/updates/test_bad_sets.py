"""Whatever is published, the last good set stays in force and the office works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sekisho.lab import sets, updates
from sekisho.lab.load import Load

if TYPE_CHECKING:
    from tests.updates.conftest import Office

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


def bad_sets() -> dict[str, sets.Files]:
    good = sets.small()
    only_yara = {name: data for name, data in good.items() if not name.startswith("rules/")}
    return {
        "broken rules": good | {"rules/more.rules": b"alert tcp any any -> any 9 (no such option;)\n" * 3},
        "no rule at all": only_yara | {"rules/empty.rules": b"# nothing today\n"},
        "YARA that takes everything for malicious": good | {"yara/all.yar": b"rule Everything { condition: true }\n"},
        "YARA that is none": good | {"yara/none.yar": b"rule Broken { condition: \n"},
    }


def test_bad_sets_are_refused_one_after_the_other_and_nobody_in_the_office_notices(office: Office) -> None:
    lab = office.lab
    good = office.bring(sets.of_day(sets.small(), 50, changed=1, added=2))
    with Load(lab) as load:
        for what, files in bad_sets().items():
            bad = office.publish(files)
            lab.wait(lambda: any(e.refused == bad for e in updates.told(lab, "refused")), f"{what}: not refused", 40)  # noqa: B023
            event = next(e for e in updates.told(lab, "refused") if e.refused == bad)
            assert event.number == good, what
            assert event.detail, what
            assert updates.in_force(lab, good), what
        went = load.end()
    assert (went.lost, went.broken, went.leaked) == (0, 0, 0)
    office.bring(sets.small())  # and the next good one is taken
