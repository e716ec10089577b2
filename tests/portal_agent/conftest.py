"""A page that is served over HTTPS, with the real counters of inspect and telemetry beside it."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "drive"))

from pagebox import PASSWORD, Box, Browser

from sekisho.appliance.core.desk import Desk
from sekisho.inspect import counter as quarantine_counter
from sekisho.inspect.quarantine import Quarantine
from sekisho.portal_agent import certificate
from sekisho.telemetry import counter as sent_counter


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificate") / "page.pem"
    certificate.ensure(path, ["127.0.0.1"])
    return path


@pytest.fixture
def box(tmp_path: Path, made: Path) -> Box:
    return Box(tmp_path, made)


@pytest.fixture
def desks(box: Box) -> Iterator[Box]:
    """The box with inspect's and telemetry's desks open."""
    counter = quarantine_counter.Counter(
        Quarantine(box.settings.quarantine_dir, max_bytes=1 << 30, keep_days=90, writer=False),
        90,
        64 << 20,
        box.reported.append,
    )
    with ExitStack() as stack:
        for desk in (
            Desk(box.settings.quarantine_socket, (), counter.answer),
            Desk(box.settings.sent_socket, (), sent_counter.Counter(box.settings).answer),
        ):
            stack.callback(desk.close)
        yield box


@pytest.fixture
def served(desks: Box) -> Iterator[Box]:
    """The box with its page open, and a password that the owner chose."""
    desks.office.password.change(PASSWORD)
    thread = threading.Thread(target=desks.page.run)
    thread.start()
    try:
        for port in (desks.settings.page.port, desks.settings.page.door_port):
            with socket.create_connection(("127.0.0.1", port), 10):
                pass
        yield desks
    finally:
        desks.page.stop()
        thread.join(20)


@pytest.fixture
def browser(served: Box) -> Iterator[Browser]:
    """Somebody in the office."""
    visitor = Browser(served)
    with visitor.client:
        yield visitor


@pytest.fixture
def owner(browser: Browser) -> Browser:
    """The same, signed in."""
    assert browser.sign_in().status_code == 303
    return browser
