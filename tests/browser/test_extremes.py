"""Every page on a store of hostile texts: they stay text, no other host is contacted, and the page fits the screen."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from extremes import LONG, NAME, TEXTS, hostile_store, hostile_workspace  # noqa: F401  fixture

from app.compare.board import PAGE
from app.text import visible
from gradsift.datastore.store import Store
from gradsift.workspace.sessions import Sessions
from gradsift.workspace.workspace import Workspace

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

VIEW = f"store={quote(NAME)}&targets={quote(NAME)}&budget=100%25"
# what to wait for on each page: its last element, or nearly so
PAGES = {
    f"?{VIEW}": "text=Parameters and provenance",
    f"targets?{VIEW}": "text=Compare the picks",
    f"compare?{VIEW}": ".gs-card",
    f"compare?{VIEW}&scope=pool&q=evil": "mark.gs-hit",
    f"why?{VIEW}&row=0": "text=Near-duplicates in the pool",
    f"why?{VIEW}&view=opponents": ".gs-opponent",
    f"distributions?{VIEW}": ".ytick text",
    f"distributions?{VIEW}&chart=subtasks": ".ytick text",
    f"norms?{VIEW}": "text=Correlation of norm and answer length",
    f"export?{VIEW}": "text=Write the files",
    f"sessions?{VIEW}": "text=of all picks in both",
}
# nothing of these is ours on any page's body
MADE = "script, img, iframe, object, .katex, [onerror], [onmouseover], [href^='javascript:'], [href*='evil.invalid']"


@pytest.fixture
def workspace(tmp_path: Path, hostile_store: Path) -> Workspace:  # noqa: F811
    """A workspace of hostile names, with one session of a hostile name."""
    workspace = hostile_workspace(tmp_path / "ws", hostile_store)
    Sessions(workspace.sessions_path).create(NAME, "compare", {"store": NAME, "targets": NAME, "budget": "100%"})
    return workspace


@pytest.fixture
def watched(visit, workspace: Workspace) -> Iterator:
    """The tab; at the end, no other host was contacted, nothing broke, and no text ran as code."""
    requests: list[str] = []
    visit.page.on("request", lambda request: requests.append(request.url))
    visit.page.on("dialog", lambda dialog: requests.append(f"dialog {dialog.message}"))
    yield visit
    ours = ("data:", f"blob:{visit.url}", visit.url, visit.url.replace("http", "ws", 1), "file:")
    assert [url for url in requests if not url.startswith(ours)] == []
    visit.check()


def harmless(visit) -> None:
    """No text became an element, and the page is as wide as the screen."""
    visit.settle()
    page = visit.page
    assert page.locator("[data-testid='stMain']").locator(MADE).count() == 0
    assert page.locator("[role=dialog]").locator(MADE).count() == 0
    visit.fits()
    visit.check()


def squeezed(text: str) -> str:
    return " ".join(text.split())


def all_cards(visit, address: str) -> str:
    """The text of Compare on all its pages."""
    text, pages = "", -(-(len(TEXTS) + len(LONG)) // PAGE)
    for number in range(1, pages + 1):
        visit.go(f"{address}&page={number}")
        visit.page.locator(".gs-card").first.wait_for()
        # cards off the screen are not laid out, so that they have no inner text
        visit.page.add_style_tag(content=".gs-card { content-visibility: visible !important }")
        harmless(visit)
        text += squeezed(visit.page.locator("[data-testid='stMain']").inner_text())
    return text


def test_every_page_wide_and_narrow_light_and_dark(watched):
    page = watched.page
    for address, landmark in PAGES.items():
        page.set_viewport_size({"width": 1440, "height": 900})
        page.emulate_media(color_scheme="light")
        watched.go(address)
        page.locator(landmark).first.wait_for()
        harmless(watched)
        if address.startswith("compare") and "q=" not in address:
            page_text = all_cards(watched, address)
            assert [name for name, text in TEXTS.items() if squeezed(visible(text)) not in page_text] == []
        elif address.startswith("distributions"):
            ticks = page.locator(".ytick text").all_text_contents()
            # every source is drawn; of the subtasks those that picked something, which the toy model decides
            hostile = ("<script>", "![](http", "+cmd|") if "chart=subtasks" in address else "<script>"
            assert any(tick.startswith(hostile) for tick in ticks)
            assert not any("&" in tick for tick in ticks)
        page.set_viewport_size({"width": 390, "height": 844})
        watched.scheme("dark")
        harmless(watched)


def test_fields_drawers_and_notes(watched, workspace: Workspace):
    page = watched.page
    watched.go(f"compare?{VIEW}")
    page.locator(".gs-card").first.wait_for()
    for opened in ("filters", "what-if", "gs-session"):
        page.locator(f".st-key-{opened} button").first.click()
        body = page.locator("[data-testid='stPopoverBody']")
        body.wait_for()
        harmless(watched)
        if opened == "filters":
            assert ":material/home:" in body.inner_text().replace("\u2060", "")
        page.keyboard.press("Escape")
    page.get_by_role("heading", name="Compare").click()
    page.keyboard.press("j")
    page.keyboard.press("n")
    field = page.get_by_role("dialog").get_by_role("textbox")
    field.wait_for()
    note = TEXTS["image"] + TEXTS["markdown"]
    field.fill(note)
    page.get_by_role("button", name="Save").click()
    page.locator(".gs-note", has_text=note).first.wait_for()
    page.keyboard.press("w")
    page.get_by_role("dialog").get_by_text("Near-duplicates in the pool").wait_for()
    harmless(watched)
    page.keyboard.press("Escape")

    watched.go(f"targets?{VIEW}")
    watched.click("radio", "Paste")
    lines = [json.dumps({"prompt": text, "completion": text, "subtask": text[:70]}) for text in TEXTS.values()]
    page.get_by_role("textbox", name=re.compile("^Examples")).fill("\n".join([*lines, '{"<img src=x>"']))
    watched.click("button", "Read the examples")
    watched.sees(f"{len(TEXTS)} examples in {len(TEXTS)} subtasks")
    page.get_by_text("Read an example in full").click()
    page.locator(".gs-reader", has_text=TEXTS["script"]).wait_for()
    page.locator(".gs-bad", has_text='{"<img src=x>"').wait_for()
    harmless(watched)


def test_an_export_holds_the_lines_unchanged_and_harms_nobody(watched, workspace: Workspace):
    page = watched.page
    watched.go(f"export?{VIEW}&format=less")
    watched.click("button", "Write the files")
    watched.sees("Ready: ", timeout=120_000)
    harmless(watched)
    (out,) = (workspace.root / "exports").iterdir()

    store = Store.open(workspace.store_path(NAME))
    raw = [bytes(line) for line in store.texts(store.scored_rows)["raw"]]
    assert sorted((out / "train.jsonl").read_bytes().splitlines()) == sorted(raw)
    for name in ("picks.csv", "sorted.csv"):
        with open(out / name, encoding="utf-8-sig", newline="") as file:
            cells = [cell for line in list(csv.reader(file))[1:] for cell in line]
        assert cells
        assert not [cell for cell in cells if re.match(r"\s*[=+@]", cell)]
    card = (out / "README.md").read_text(encoding="utf-8")
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", card, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"<(?!!--)[a-z/]|(?<!\\)\]\(|\u202e|\0", outside)

    page.goto((out / "report.html").as_uri())
    assert page.evaluate("document.images.length + document.scripts.length") == 0
    assert "<script>fetch('http://evil.invalid/x')</script>" in page.locator("main").inner_text()
