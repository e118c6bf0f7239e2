"""A Chromium that times how long people wait: from the last key or click until the page has stopped changing.

All times are taken in the page itself, because this process may learn of events late when the page is busy.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from gradsift.runtime.errors import GradsiftError

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
QUIET = 300  # ms without a change: the page has settled
_PROBE = """
window.gs = {changed: 0, asked: 0, heard: 0, there: {}};
window.WebSocket = class extends WebSocket {
  constructor(...all) { super(...all); this.addEventListener('message', () => { gs.heard = performance.now(); }); }
};
function painted(then) {  // a frame with the current content has been made
  const after = new MessageChannel();
  after.port1.onmessage = then;
  requestAnimationFrame(() => after.port2.postMessage(0));
}
const left = new Set(%s);
const seen = change => !change.attributeName?.startsWith('data-test');  // those are for tests, and change last
new MutationObserver(changes => {
  if (changes.some(seen)) gs.changed = performance.now();
  for (const shows of left)
    if (document.querySelector(shows)?.checkVisibility()) {
      left.delete(shows);
      painted(() => { gs.there[shows] = performance.now(); });
    }
}).observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
for (const kind of ['pointerdown', 'keydown'])
  addEventListener(kind, () => { gs.asked = performance.now(); }, true);
"""
_STILL = f"""() => {{
  const app = document.querySelector("[data-testid='stApp']");
  return app && app.getAttribute('data-test-script-state') === 'notRunning'
    && gs.heard > gs.asked && performance.now() - Math.max(gs.changed, gs.heard) > {QUIET};
}}"""


class BrowserError(GradsiftError):
    """There is no browser to measure with, or a server does not start."""


class Tab:
    """One tab; `bytes` counts the data received through Streamlit's socket since the last navigation.

    shows: selectors, one of which `open` waits for.
    """

    def __init__(self, page: Any, shows: Collection[str]) -> None:
        self.page, self.bytes = page, 0
        page.add_init_script(_PROBE % json.dumps(sorted(set(shows))))
        page.set_default_timeout(120_000)
        page.on("websocket", lambda socket: socket.on("framereceived", self._count))

    def _count(self, payload: str | bytes) -> None:
        self.bytes += len(payload)

    def open(self, url: str, shows: str) -> tuple[float, float]:
        """Seconds from the start of a navigation until `shows` (a selector) is painted, and until the page settles."""
        self.bytes = 0
        self.page.goto(url)
        self.page.wait_for_function("shows => gs.there[shows]", arg=shows)
        self.page.wait_for_function(_STILL)
        there, settled = self.page.evaluate("shows => [gs.there[shows], gs.changed]", shows)
        return float(there) / 1000, float(settled) / 1000

    def act(self, action: Callable[[Any], None]) -> float:
        """Seconds from the last key or click of `action` until the page has settled."""
        action(self.page)
        self.page.wait_for_function(_STILL)
        return float(self.page.evaluate("(gs.changed - gs.asked) / 1000"))


@contextmanager
def chromium() -> Iterator[Any]:
    """The Chromium of this machine, driven by playwright.

    Raises:
        BrowserError: Chromium or playwright is missing.
    """
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise BrowserError("There is no Chromium to measure with: install one (Debian: apt-get install chromium).")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise BrowserError("Measuring the app needs playwright: pip install playwright.") from error
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def tab(shows: Collection[str]) -> Iterator[Tab]:
    """A Chromium tab of 1440 x 900, for pages that show one of these selectors."""
    with chromium() as browser:
        yield Tab(browser.new_context(viewport={"width": 1440, "height": 900}).new_page(), shows)


@contextmanager
def server(command: list[str], log: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Run a server (`command` plus a port); yields its address and process, and stops it at the end.

    Raises:
        BrowserError: the server does not answer within two minutes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, str(port)], stdout=file, stderr=subprocess.STDOUT, env={**os.environ}
        )
        try:
            _wait(f"http://127.0.0.1:{port}/_stcore/health", process, log)
            yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def _wait(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise BrowserError(f"The app's server did not start: {log.read_text(errors='replace')[-500:]}")


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, worst and number of times."""
    return {"median_s": round(statistics.median(seconds), 3), "worst_s": round(max(seconds), 3), "runs": len(seconds)}
