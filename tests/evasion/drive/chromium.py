"""A headless Chromium in the office, driven through its own debugging pipe (Chrome DevTools Protocol).

One browser for many visits, each in a browser context of its own: no cache, cookie or connection is shared. What
a visit leaves is everything a user could have: the saved download, finished or not, the text of the page, and
what a script's `fetch()` could read, block by block, until it ended or failed.
"""

from __future__ import annotations

import base64
import itertools
import os
import select
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from sekisho.lab.lab import Lab

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-features=OptimizationHints,MediaRouter,DialMediaRouteProvider,HttpsUpgrades",
    "--remote-debugging-pipe",
]
ANSWER_WITHIN_S = 15
VISIT_WITHIN_S = 4
FETCH = """(async urls => Object.fromEntries(await Promise.all(urls.map(async url => {
  let text = '';
  const stop = new AbortController();
  setTimeout(() => stop.abort(), %d);
  try {
    const answer = await fetch(url, {cache: 'no-store', signal: stop.signal});
    const reader = answer.body.getReader();
    for (;;) {
      const {done, value} = await reader.read();
      if (done) break;
      for (const byte of value) text += String.fromCharCode(byte);
    }
  } catch (err) { }
  return [url, btoa(text)];
}))))"""


class Chromium:
    """A running browser; as a context manager it never outlives its block."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._numbers = itertools.count(1)
        self.events: deque[dict[str, Any]] = deque(maxlen=10_000)
        self._rest = b""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="sekisho-chromium-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self._in, its_out = os.pipe()
        its_in, self._out = os.pipe()
        wrapped = f'exec 3<&{its_in} 4>&{its_out}; exec "$@"'
        argv = ["chromium", *FLAGS, f"--user-data-dir={self.folder}/profile", "about:blank"]
        self._process = subprocess.Popen(
            self._lab.inside("lan", ["bash", "-c", wrapped, "chromium", *argv]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(its_in, its_out),
            env=self._lab.env() | {"HOME": str(self.folder)},
        )
        os.close(its_in)
        os.close(its_out)
        self.version = str(self.ask("Browser.getVersion", within_s=60)["product"])
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, TimeoutError, RuntimeError):
            self.ask("Browser.close")
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._folder.cleanup()

    def visit(self, url: str) -> dict[str, bytes]:
        """Go there as a user who clicks a link does; "download" and "page" are what is left."""
        with _Visitor(self) as visitor:
            return visitor.navigate(url)

    def fetch(self, base: str, urls: Sequence[str]) -> dict[str, bytes]:
        """What a script of the page `base` gets to see of each of `urls`, asked for all at once."""
        with _Visitor(self) as visitor:
            visitor.navigate(base)
            call = f"{FETCH % (VISIT_WITHIN_S * 1000)}({msgspec.json.encode(urls).decode()})"
            within_s = ANSWER_WITHIN_S + VISIT_WITHIN_S * len(urls)
            done = visitor.ask(
                "Runtime.evaluate", within_s=within_s, expression=call, awaitPromise=True, returnByValue=True
            )
            return {url: base64.b64decode(text) for url, text in done["result"]["value"].items()}

    def ask(self, method: str, session: str = "", within_s: float = ANSWER_WITHIN_S, **params: Any) -> Any:
        """One command; the events that come before its answer are kept.

        Raises:
            TimeoutError: no answer in time.
            RuntimeError: refused, or the browser has ended.

        """
        number = next(self._numbers)
        call: dict[str, object] = {"id": number, "method": method, "params": params}
        if session:
            call["sessionId"] = session
        os.write(self._out, msgspec.json.encode(call) + b"\0")
        deadline = time.monotonic() + within_s
        while True:
            told = self._next(deadline)
            if told.get("id") == number:
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']}")
                return told["result"]
            self.events.append(told)

    def event(self, deadline: float) -> dict[str, Any]:
        """The next thing that happened; TimeoutError when nothing did."""
        return self.events.popleft() if self.events else self._next(deadline)

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise RuntimeError("Chromium has ended")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        return msgspec.json.decode(line, type=dict[str, Any])


class _Visitor:
    """One visitor: a browser context with a folder for its downloads and one tab."""

    def __init__(self, browser: Chromium) -> None:
        self._browser = browser

    def __enter__(self) -> Self:
        ask = self._browser.ask
        self._downloads = Path(tempfile.mkdtemp(dir=self._browser.folder))
        self._id = ask("Target.createBrowserContext")["browserContextId"]
        ask(
            "Browser.setDownloadBehavior",
            behavior="allowAndName",
            browserContextId=self._id,
            downloadPath=str(self._downloads),
            eventsEnabled=True,
        )
        target = ask("Target.createTarget", url="about:blank", browserContextId=self._id)["targetId"]
        self._session = ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(TimeoutError, RuntimeError):
            self._browser.ask("Target.disposeBrowserContext", browserContextId=self._id)
        self._browser.events.clear()

    def ask(self, method: str, **params: Any) -> Any:
        return self._browser.ask(method, self._session, **params)

    def navigate(self, url: str) -> dict[str, bytes]:
        deadline = time.monotonic() + VISIT_WITHIN_S
        with suppress(TimeoutError):
            told = self._browser.ask("Page.navigate", self._session, within_s=VISIT_WITHIN_S, url=url)
            if "errorText" not in told or "ABORTED" in told["errorText"]:
                self._settled(deadline)
        with suppress(TimeoutError, RuntimeError):
            self.ask("Page.stopLoading")
        left = {"download": b"".join(file.read_bytes() for file in self._downloads.iterdir())}
        with suppress(TimeoutError, RuntimeError):
            text = self.ask("Runtime.evaluate", expression="document.documentElement?.textContent || ''")
            left["page"] = str(text["result"].get("value", "")).encode()
        return left

    def _settled(self, deadline: float) -> None:
        """Return when the page has loaded or the download has ended either way."""
        while True:
            told = self._browser.event(deadline)
            method, params = told.get("method"), told.get("params", {})
            if method == "Browser.downloadProgress" and params["state"] != "inProgress":
                return
            if method == "Page.loadEventFired" and told.get("sessionId") == self._session:
                return
