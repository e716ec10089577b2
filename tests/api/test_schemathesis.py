"""Schemathesis against the real process over mutual TLS: whatever is asked, the answer is as the document says.

The document's paths are narrowed to objects that there are (of both customers), so that most questions get further than
"not found"; what is asked beyond them is Schemathesis's own. No answer holds anything of the other customer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import objects
import pytest
import schemathesis
import sqlalchemy as sa
from house import Partner, Service
from hypothesis import HealthCheck, Phase, given, settings
from office import BOXES, THEM, US
from schemathesis import GenerationMode

from sekisho.center.views.alerts import ALERT

EXAMPLES = 15
QUIET = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Asked:
    """The process, who asks it, and its document."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.who: Partner = service.partner("admin")
        ours, theirs = objects.seed(service.office, US), objects.seed(service.office, THEM)
        with service.office.store.database.reading() as db:
            alerts = list(db.scalars(sa.select(ALERT.c.id)))
        values = {name: [ours[name], theirs[name], "nobody"] for name in ("tenant", "box", "mac", "case", "report")}
        values |= {"alert": alerts}
        self.document = narrowed(service.get(self.who, "/v1/openapi.json").json(), values)

    def holds(self, case: schemathesis.Case[Any]) -> None:
        more: dict[str, Any] = {"cert": (str(self.who.cert), str(self.who.key)), "verify": str(self.service.ca)}
        answer = case.call_and_validate(base_url=self.service.url(""), **more)
        assert objects.canary(THEM) not in answer.text and BOXES[THEM] not in answer.text, case


def narrowed(document: dict[str, Any], values: dict[str, list[Any]]) -> dict[str, Any]:
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["schema"]["enum"] = values[parameter["name"]]
    return document


@pytest.fixture(scope="module")
def asked(service: Service) -> Iterator[Asked]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            patch.delenv(name, raising=False)
        yield Asked(service)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
def test_whatever_is_asked_the_answer_is_as_the_document_says(asked: Asked, mode: GenerationMode) -> None:
    """Positive: what the document allows; negative: what it does not, which must be refused."""
    found = schemathesis.openapi.from_dict(asked.document)
    walked = 0
    for result in found.get_all_operations():
        operation = result.ok()  # type: ignore[union-attr]  # an operation that cannot be read has none

        @QUIET
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case[Any]) -> None:
            asked.holds(case)

        ask()
        walked += 1
    assert walked == sum(len(path) for path in asked.document["paths"].values())
