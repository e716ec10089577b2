"""What the senders' loop promises each turn, at a real broker."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from sekisho.appliance.core.errors import DeviceFault
from sekisho.center import sender, settings
from sekisho.center.sender import Sender

if TYPE_CHECKING:
    from tests.center.conftest import Site


class Noting(Sender):
    """Notes of each turn with a connection whether it was another one; the first ends in a fault."""

    def __init__(self, site: Site) -> None:
        config = settings.load(site.center_toml)
        super().__init__(config, config.broker, poll_s=0.02)
        self.turns: list[bool] = []

    def turn(self, *, connected: bool, anew: bool) -> None:
        if not connected:
            return
        self.turns.append(anew)
        if self.turns.count(True) == 1:
            raise DeviceFault("The database does not answer.")


def test_a_connection_is_another_one_until_a_whole_turn_was_made_on_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "RETRY_S", 0.02)
    site.start("broker")
    noting = Noting(site)
    working = threading.Thread(target=noting.run)
    working.start()
    try:
        site.wait(lambda: noting.turns.count(True) == 2 and not noting.turns[-1])
        site.kill("broker")
        site.forget()
        site.start("broker")
        site.wait(lambda: noting.turns.count(True) == 3 and not noting.turns[-1])
    finally:
        noting.stop()
        working.join(10)
    first = noting.turns.index(True)
    assert noting.turns[first : first + 3] == [True, True, False]
