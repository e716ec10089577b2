"""Every page of the menu in a real browser, as each role sees it: on a phone and on a desk, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browse import WIDTHS, Critic, screen
from office import US
from playwright.sync_api import Page
from served import Served

from sekisho.center.portal.rendering import COOKIE, MENU
from sekisho.center.portal.rights import Role, may

FILES = (".pdf", ".csv", ".zip", ".json", ".svg", "/file", "/export", "/live")
"""Addresses that are saved, not looked at."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, ago: Callable[..., str]) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("served"), ago)
    yield made
    made.close()


PHONE, DESK = WIDTHS
SEEN = [(PHONE, "admin"), (DESK, "operator")]
"""As the owner and the staff mostly sit there; the other way round with `make test-full`."""
OTHER = [pytest.param(width, role, marks=pytest.mark.full) for width, role in ((DESK, "admin"), (PHONE, "operator"))]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("width", "role"), [*SEEN, *OTHER])
def test_every_page_of_the_menu_is_fit_to_be_seen(served: Served, width: int, role: Role, tmp_path: Path) -> None:
    """The phone is dark where the desk is light, the staff reads English; no page is too wide for either."""
    critic = Critic(f"gallery/{role}-{width}")
    with screen(width, tmp_path) as opened:
        page = opened.open(dark=width == PHONE)
        critic.listen(page)
        secret, _ = served.office.sign_in(role, US, "en" if role == "operator" else "ja")
        page.context.add_cookies([{"name": COOKIE, "value": secret, "url": served.url, "secure": True}])
        for path in _reached(page, critic, served.url, [path for _, path, right in MENU if may(role, right)]):
            critic.look(_name(path), page)
            for wide in (PHONE + DESK - width, width):
                page.set_viewport_size({"width": wide, "height": 844})
                critic.measure(f"{_name(path)} at {wide}", page)
    assert not critic.problems, "\n".join(critic.problems)


def _reached(page: Page, critic: Critic, url: str, start: list[str]) -> Iterator[str]:
    """Every kind of page that links lead to from these, each opened once."""
    waiting, known = list(start), {_shape(path) for path in start}
    while waiting:
        path = waiting.pop(0)
        answer = page.goto(url + path)
        if answer is None or answer.status != 200:
            critic.problems.append(f"{path}: {answer and answer.status}")
            continue
        yield path
        links: list[str] = page.eval_on_selector_all(
            "a[href]:not([download])",
            "all => all.filter(a => a.origin == location.origin).map(a => a.pathname + a.search)",
        )
        for link in links:
            if (shape := _shape(link)) not in known and not shape.endswith(FILES):
                known.add(shape)
                waiting.append(link)


def _shape(path: str) -> str:
    """A page whoever it is about: segments that name something are the same."""
    parts = path.partition("?")[0].split("/")
    return "/".join("*" if any(char.isdigit() or char in "%:" for char in part) else part for part in parts)


def _name(path: str) -> str:
    return "".join(char if char.isalnum() or char == "*" else "-" for char in _shape(path).strip("/")) or "home"
