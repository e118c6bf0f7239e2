"""A real Chromium on a real server: journeys fail on any error in the browser's console or an exception on the page."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gradsift.workspace.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
IDLE = "[data-testid='stApp'][data-test-script-state='notRunning']"
BACKGROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 29)"}  # of .streamlit/config.toml
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# Streamlit first requests these below a page's own path and expects the 404
PROBE = re.compile(r"/_stcore/(health|host-config)$")


class Visit:
    """A tab: helpers that wait for Streamlit, and a list of what went wrong."""

    def __init__(self, page, url: str) -> None:
        self.page, self.url, self.problems = page, url, []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def _console(self, message) -> None:
        if message.type == "error" and not PROBE.search(message.location.get("url", "")):
            self.problems.append(message.text)

    def go(self, path: str = "") -> None:
        """Load an address below the app's."""
        self.page.goto(self.url + path)
        self.settle()

    def settle(self) -> None:
        """Wait until the script has run to its end."""
        self.page.wait_for_selector(IDLE, timeout=60_000)

    def scheme(self, name: str) -> None:
        """Ask for `light` or `dark`, and wait until the page has the background of that theme."""
        self.page.emulate_media(color_scheme=name)
        self.page.wait_for_function(
            "color => getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor === color",
            arg=BACKGROUNDS[name],
        )

    def fits(self) -> None:
        """Wait until nothing is wider than the screen; fails where something stays so."""
        self.page.wait_for_function(
            """() => [document.documentElement, document.querySelector("[data-testid='stMain']")]
            .every(element => element.scrollWidth <= element.clientWidth)"""
        )

    def click(self, role: str, name: str | re.Pattern) -> None:
        """Click the element with this role and name, and wait for the run that follows."""
        self.page.get_by_role(role, name=name).first.click()
        self.settle()

    def sees(self, text: str | re.Pattern, timeout: float = 60_000) -> None:
        """Wait until the text is on the page."""
        self.page.get_by_text(text).first.wait_for(timeout=timeout)

    def check(self) -> None:
        """Fail if anything went wrong so far."""
        assert self.problems == []
        assert self.page.locator("[data-testid='stException']").count() == 0


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Workspace], str]]:
    """Start the app's server on a workspace; returns its address."""
    running: list[subprocess.Popen] = []

    def start(opened: Workspace) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = open(tmp_path / "server.log", "wb")  # noqa: SIM115  it is the server's
        command = [
            sys.executable,
            "-m",
            "streamlit",
            "run",
            str(ROOT / "app" / "main.py"),
            "--server.address",
            "127.0.0.1",
        ]
        environment = {**os.environ, "GRADSIFT_WORKSPACE": str(opened.root), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*command, "--server.address", "127.0.0.1", "--server.port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        running.append(process)
        _wait(f"http://127.0.0.1:{port}/_stcore/health", process)
        return f"http://127.0.0.1:{port}/"

    yield start
    for process in running:
        process.terminate()
        process.wait()


@pytest.fixture
def visit(chromium: str, serve: Callable[[Workspace], str], workspace: Workspace) -> Iterator[Visit]:
    """A tab on the app, whose workspace holds the toy store."""
    sync_playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True).new_page()
        page.set_default_timeout(60_000)
        yield Visit(page, serve(workspace))
        browser.close()


def _wait(address: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)  # the server is starting: there is nothing to wait on yet
    raise RuntimeError("the app's server did not start")
