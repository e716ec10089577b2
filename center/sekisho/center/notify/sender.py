"""Sends what is due: claims a mail, writes it, hands it to the relay, writes down what became of it."""

from __future__ import annotations

import datetime as dt
import logging
import random
import threading
from collections.abc import Callable
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.center.database import Database
from sekisho.center.notify import links, queue
from sekisho.center.notify.desk import Desk, mail_id
from sekisho.center.notify.letter import Letter
from sekisho.center.notify.message import build
from sekisho.center.notify.queue import Claimed
from sekisho.center.notify.smtp import Deferred, Refused, Relay, Unreachable
from sekisho.center.notify.view import view
from sekisho.center.settings import Notify

POLL_S: Final = 0.2
_ANSWERED: Final = ("alert", "again", "offline", "flapping")
"""Kinds with the button "this is fine" beside "call me"."""
_OWN: Final = (
    *("outage", "over", "deaf", "hears", "silent", "stale", "halted", "failed", "digest", "back", "steady", "account"),
)
"""Kinds without buttons of the watch."""

log = logging.getLogger(__name__)
Clock = Callable[[], dt.datetime]


class Sender:
    """One thread's work; any number may run, here or in another daemon."""

    def __init__(self, config: Notify, url: str, now: Clock) -> None:
        self._config, self._now = config, now
        self._database = Database(url)
        self._reading = Database(url, read_only=True)
        self._relay = Relay(config)
        self._troubles = 0

    def run(self, stop: threading.Event, wake: threading.Event, beat: Callable[[], None]) -> None:
        """Work until `stop`; `wake` says that there may be something to do."""
        while not stop.is_set():
            beat()
            troubles = self._troubles
            try:
                busy = self.step()
            except DeviceFault as err:
                log.error("%s", err)
                busy = False
            if self._troubles > troubles:
                stop.wait(queue.pause(self._troubles) * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, hides nothing
            elif not busy:
                wake.wait(POLL_S)
                wake.clear()
        self._relay.close()

    def step(self) -> bool:
        """Send one mail that is due; False when there was none.

        Raises:
            DeviceFault: the database refused; what was claimed is sent when its claim has run out.

        """
        with self._reading.reading() as db:
            if not queue.waiting(db, self._now()):
                return False
        with self._database.transaction() as db:
            taken = queue.claim(db, self._now(), in_turn=bool(self._troubles))
            key = links.signing_key(db, self._now()) if taken and self._config.links else None
        if taken is None:
            return False
        try:
            reply = self._relay.send(taken.recipient, self._write(taken, key))
        except Deferred as err:
            self._later(taken, str(err))
        except Unreachable as err:
            self._troubles += 1
            log.warning("the mail server cannot be used: %s", err)
            with self._database.transaction() as db:
                queue.unreached(db, taken, str(err), self._now())
            return True
        except Refused as err:
            self._fail(taken, str(err))
        except DeviceFault:
            raise
        except Exception as err:
            log.exception("mail %s cannot be written", taken.id)
            self._fail(taken, f"cannot be written: {type(err).__name__}")
        else:
            with self._database.transaction() as db:
                queue.sent(db, taken, reply, self._now())
        self._troubles = 0
        return True

    def _write(self, taken: Claimed, key: tuple[str, bytes] | None) -> bytes:
        letter = queue.letter(taken)
        created = dt.datetime.fromisoformat(taken.created_at)
        config = self._config
        return build(
            view(letter, config.help_desk, self._links(letter, taken, created, key)),
            id_=taken.id,
            thread=mail_id(letter.tenant, letter.thread, taken.recipient) if letter.thread else "",
            sender=config.sender,
            sender_name=config.sender_name,
            recipient=taken.recipient,
            at=created,
        )

    def _links(
        self, letter: Letter, taken: Claimed, created: dt.datetime, key: tuple[str, bytes] | None
    ) -> dict[str, str]:
        if letter.link:
            return {taken.kind: letter.link}
        if key is None or taken.kind in _OWN:
            return {}
        actions = links.ACTIONS if taken.kind in _ANSWERED else links.ACTIONS[:1]
        base = self._config.links.rstrip("/")
        return {action: f"{base}/t/{links.make(*key, taken.id, action, created)}" for action in actions}

    def _later(self, taken: Claimed, reply: str) -> None:
        with self._database.transaction() as db:
            if not queue.later(db, taken, reply, self._now()):
                self._tell_operator(Desk(db, self._now()), taken, reply)

    def _fail(self, taken: Claimed, reply: str) -> None:
        log.error("mail %s of tenant %s was refused for good: %s", taken.id, taken.tenant, reply)
        with self._database.transaction() as db:
            queue.failed(db, taken, reply, self._now())
            self._tell_operator(Desk(db, self._now()), taken, reply)

    def _tell_operator(self, desk: Desk, taken: Claimed, reply: str) -> None:
        """Once a day and address; what goes to the operator is not told to the operator again."""
        if taken.recipient in self._config.operator:
            return
        letter = Letter(
            kind="failed",
            tenant=taken.tenant,
            at=taken.created_at,
            locale=self._config.operator_locale,
            since=taken.created_at,
            detail=f"{taken.recipient}: {reply}",
        )
        desk.post(letter, f"failed/{taken.recipient}/{self._now():%Y-%m-%d}", self._config.operator)
