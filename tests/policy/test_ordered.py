"""The centre's settings on their way into force: tried, loaded, told; refused ones leave the last good ones."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from livebox import Box

from sekisho.appliance.core import orders
from sekisho.appliance.core.orders import Orders
from sekisho.appliance.core.sealed import load_key
from sekisho.center import pki
from sekisho.policy import overlay
from sekisho.policy.model import Exemption, Keyword, UrlCategory, WebGuard
from sekisho.policy.overlay import Overlay
from sekisho.telemetry.events import Applied

ONE = Overlay(web_guard=(WebGuard(name="one", addresses=("203.0.113.1",)),))
TWO = Overlay(web_guard=(WebGuard(name="two", addresses=("203.0.113.2",)),))
NOT_MADE = Overlay(url_category=(UrlCategory(categories=("no_such_kind",)),))


class Ordered(Box):
    """A box that can be told what its customer decided."""

    def __init__(self, root: Path) -> None:
        pki.create_ca(root / "pki")
        made = pki.issue(root / "pki", "orders-key", "orders")
        self.key = load_key(made.cert, made.key)
        super().__init__(root)

    def order(self, n: int, what: Overlay | bytes, box: str = "b", tenant: str = "default") -> None:
        """What telemetry does when a document has arrived."""
        document = what if isinstance(what, bytes) else overlay.encode(what)
        path = self.settings.orders
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orders.seal(Orders(n, tenant, box, msgspec.Raw(document)), self.key))

    def told(self) -> list[tuple[int, str, str]]:
        return [(one.number, one.state, one.why) for one in self.events if isinstance(one, Applied)]

    def guarded(self) -> set[str]:
        """The addresses that packet rules refuse now."""
        return {net.partition("/")[0] for rule in self.enforced[-1].rules for net in rule.remote}

    def refused_by_engine(self) -> None:
        """The engine takes what was chosen back."""
        self.live.choose(self.base)
        self.engine.state.reloads += 1
        self.live.turn(self.engine)


@pytest.fixture
def box(tmp_path: Path) -> Ordered:
    return Ordered(tmp_path)


@pytest.mark.protocol("P39")
def test_settings_are_told_to_be_in_force_when_the_engine_has_loaded_them_and_not_before(box: Ordered) -> None:
    box.order(5, ONE)
    box.engine.state.phase = "reloading"
    chosen = box.live.choose(box.base)
    box.live.turn(box.engine)
    assert box.told() == [] and box.enforced == []
    box.engine.proven = chosen
    box.engine.state.phase = "running"
    box.engine.state.reloads += 1
    box.live.turn(box.engine)
    assert box.told() == [(5, "in_force", "")] and box.guarded() == {"203.0.113.1"}
    box.load()
    assert len(box.told()) == 1


@pytest.mark.protocol("P38")
@pytest.mark.parametrize(
    ("document", "why"), [(b'{"colour":1}', "not_understood"), (overlay.encode(NOT_MADE), "cannot_be_made")]
)
def test_refused_settings_leave_the_last_good_ones_even_over_a_restart(box: Ordered, document: bytes, why: str) -> None:
    box.order(5, ONE)
    box.load()
    box.order(6, document)
    box.load()
    assert box.told() == [(5, "in_force", ""), (6, "refused", why)]
    assert box.guarded() == {"203.0.113.1"}
    box.restart()
    box.load()
    assert box.told() == [(5, "in_force", "")], "it is not tried again"
    assert box.guarded() == {"203.0.113.1"}
    box.order(7, TWO)
    box.load()
    assert box.told()[-1] == (7, "in_force", "") and box.guarded() == {"203.0.113.2"}


@pytest.mark.protocol("P38")
def test_settings_the_engine_does_not_load_are_refused_and_not_tried_again(box: Ordered) -> None:
    box.order(5, ONE)
    box.load()
    box.order(6, TWO)
    box.refused_by_engine()
    assert box.told() == [(5, "in_force", ""), (6, "refused", "engine")]
    assert box.guarded() == {"203.0.113.1"}
    box.restart()
    box.load()
    assert box.told() == [(5, "in_force", "")] and box.guarded() == {"203.0.113.1"}


def test_a_first_document_that_is_refused_leaves_the_boxes_own_policy(box: Ordered) -> None:
    box.file.write_text('[[web_guard]]\nname = "own"\naddresses = ["203.0.113.9"]\n')
    box.order(5, NOT_MADE)
    box.load()
    assert box.told() == [(5, "refused", "cannot_be_made")] and box.guarded() == {"203.0.113.9"}


@pytest.mark.protocol("P40")
def test_the_boxes_own_file_goes_before_and_that_is_told(box: Ordered) -> None:
    box.file.write_text('[[web_guard]]\nname = "one"\naddresses = ["203.0.113.9"]\n')
    box.order(5, Overlay(web_guard=ONE.web_guard + TWO.web_guard))
    box.load()
    (fact,) = [one for one in box.events if isinstance(one, Applied)]
    assert (fact.state, fact.overruled) == ("in_force", 1)
    assert box.guarded() == {"203.0.113.9", "203.0.113.2"}


@pytest.mark.protocol("P38")
def test_while_the_boxes_own_file_is_broken_new_settings_wait_and_say_why(box: Ordered) -> None:
    box.order(5, ONE)
    box.load()
    box.file.write_text("[[web_guard]]\ncolour = 1\n")
    box.order(6, TWO)
    kept = box.load()
    assert box.told()[-1] == (6, "refused", "own_policy") and "colour" in kept.rejection
    assert box.guarded() == {"203.0.113.1"}
    box.file.unlink()
    box.load()
    assert box.told()[-1] == (6, "in_force", "") and box.guarded() == {"203.0.113.2"}


def test_a_broken_own_file_after_a_restart_leaves_both_last_good_halves(box: Ordered) -> None:
    box.file.write_text('[[web_guard]]\nname = "own"\naddresses = ["203.0.113.9"]\n')
    box.order(5, ONE)
    box.load()
    box.file.write_text("[[web_guard]]\ncolour = 1\n")
    box.restart()
    box.load()
    assert box.guarded() == {"203.0.113.9", "203.0.113.1"}


def test_a_damaged_copy_leaves_the_last_good_one_and_says_so(box: Ordered) -> None:
    box.order(5, ONE)
    box.load()
    for damaged in (b"", b"{}", b"[" * 100_000):
        box.settings.orders.write_bytes(damaged)
        box.load()
        assert box.guarded() == {"203.0.113.1"}
    assert (0, "refused", "damaged") in box.told()


@pytest.mark.protocol("P36")
def test_another_boxs_document_in_the_place_is_none(box: Ordered) -> None:
    box.order(5, ONE, box="c")
    box.load()
    box.order(6, ONE, tenant="other")
    box.load()
    assert box.told() == [] and box.enforced[-1].rules == ()


def test_an_empty_document_takes_everything_back(box: Ordered) -> None:
    box.order(5, ONE)
    box.load()
    box.order(6, Overlay())
    box.load()
    assert box.told()[-1] == (6, "in_force", "") and box.enforced[-1].rules == ()


def test_a_new_document_asks_for_a_reload_once(box: Ordered) -> None:
    box.load()
    assert not box.live._orders.waits()
    box.order(5, ONE)
    assert box.live._orders.waits()
    box.load()
    assert not box.live._orders.waits()
    box.order(5, ONE)
    assert not box.live._orders.waits(), "the same one, signed again"


def test_exceptions_of_the_centre_pass_and_are_counted_by_the_engines_rules(box: Ordered) -> None:
    box.file.write_text('[[keyword]]\nname = "own"\nwords = ["torrent"]\n')
    box.order(
        5,
        Overlay(
            keyword=(Keyword(name="more", words=("casino",)),),
            exception=(Exemption(id="x-1", reason="r", function="keyword", domains=("good.example",)),),
        ),
    )
    text = box.rules(box.load())
    assert "sekisho_entry own" in text and "sekisho_entry more" in text
    assert text.count("sekisho_exception x-1") >= 2, "of both keywords"
