"""Whether a better way leads to the centre by now: a handshake beside the connection that works."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sekisho.telemetry.opening import STEP_S, Opening
from sekisho.telemetry.tls import Context
from sekisho.telemetry.ways import Way


class Look:
    """One look at some ways, in a thread of its own that ends by itself."""

    def __init__(self, ways: list[Way], make_context: Callable[[], Context]) -> None:
        self._ways = ways
        self._make_context = make_context
        self._thread = threading.Thread(target=self._run, name="look", daemon=True)
        self.found: Way | None = None
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        for way in self._ways:
            opening = Opening(way)
            deadline = threading.Timer(4 * STEP_S, opening.give_up)
            deadline.start()
            try:
                context = self._make_context()
                if way.alpn:
                    context.set_alpn_protocols([way.alpn])
                with opening.open() as raw, context.wrap_socket(raw, server_hostname=way.host):
                    self.found = way
                    return
            except (OSError, ValueError):
                continue
            finally:
                deadline.cancel()
