"""`gradsift bench app`: how long people wait on a store of the paper's size, compared with the budgets.

A bare Streamlit page (one title, one button) is timed in the same run, in the same browser, on the same machine: if the
machine is slow or busy, the ratio to it says more than the seconds. Times are taken in the browser, from the last key
or click until the page has stopped changing. Paints are warm (every page was opened once before) and last until the
main part of the page is painted; `settled_s` includes the charts.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradsift.cli.bench.browser import Tab, server, summary, tab
from gradsift.cli.bench.synthetic import NAME, TARGETS, made_rows, make_workspace
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError
from gradsift.runtime.progress import Progress
from gradsift.scoring.choices import Choices, make_choices
from gradsift.scoring.scoring import open_scoring, scoring_path
from gradsift.selection.picks import ranked, read_traits

BUDGETS = {"first_paint": 1.5, "interaction": 0.3, "search": 0.3, "rerank": 1.0, "payload_bytes": 2_000_000}
_BARE = """import streamlit as st
st.title("bare")
st.session_state.runs = st.session_state.get("runs", 0) + 1
st.button("press")
st.write(st.session_state.runs)
"""
_OPEN = f"store={NAME}&targets={TARGETS}&budget=5%25"
PAGES = {
    "datastore": ".gs-figures",
    "targets": "[data-testid='stDataFrame']",
    "compare": ".gs-card",
    "why": ".gs-turn",
    "distributions": ".js-plotly-plot",
    "norms": ".js-plotly-plot",
    "export": "pre",
    "sessions": "h1",
}
_WORDS = ("refrigerator", "thursday", "venus", "candle", "flour")
_WHAT_IFS = (
    {"aggregate": "mean"},
    {"without_targets": [3]},
    {"without_checkpoints": ["epoch-1"]},
    {"similarity": "dot"},
)


def bench_app(folder: Path, rows: int, progress: Progress) -> dict[str, Any]:
    """Measure every page on a synthetic store of `rows` rows, made in `folder` unless it exists.

    Raises:
        UsageError: `folder` holds a store of another size. BrowserError: there is no browser to measure with.
    """
    if made_rows(folder) not in (0, rows):
        raise UsageError(f"{folder} holds a store of {made_rows(folder):,} rows: choose another folder, or --rows.")
    make_workspace(folder, rows, progress=progress)
    bare_page = folder / "bare.py"
    bare_page.write_text(_BARE, encoding="utf-8")
    progress.stage("measure", "Measuring", len(PAGES) + 5, "parts")
    with tab({"h1", *PAGES.values()}) as browser:
        streamlit = ["streamlit", "run", str(bare_page), "--server.headless", "true", "--server.address", "127.0.0.1"]
        with server([*streamlit, "--server.port"], folder / "bare.log") as (address, _):
            bare = _bare(browser, address)
        progress.advance()
        with server(["gradsift", "app", str(folder), "--port"], folder / "app.log") as (address, process):
            pages = _pages(browser, address, progress)
            compared = _compare(browser, f"{address}/compare?{_OPEN}", progress)
            memory = process.memory_info()
    backend = _rerank(folder)
    progress.advance()
    return {"app": _report(rows, bare, pages, compared, backend, memory)}


def _bare(browser: Tab, address: str) -> dict[str, Any]:
    browser.open(address, "h1")
    paints = [browser.open(address, "h1")[0] for _ in range(5)]
    presses = [browser.act(lambda page: page.get_by_role("button", name="press").click()) for _ in range(9)]
    return {"first_paint": summary(paints), "interaction": summary(presses)}


def _pages(browser: Tab, address: str, progress: Progress) -> dict[str, Any]:
    times = {}
    for page, shows in PAGES.items():
        url = f"{address}/{page}?{_OPEN}" + ("&row=1" if page == "why" else "")
        cold = browser.open(url, shows)[0]
        paints, settled = zip(*(browser.open(url, shows) for _ in range(5)), strict=True)
        times[page] = {
            **summary(paints),
            "settled_s": round(statistics.median(settled), 3),
            "cold_s": round(cold, 3),
            "payload_bytes": browser.bytes,
        }
        progress.advance()
    return times


def _compare(browser: Tab, url: str, progress: Progress) -> dict[str, Any]:
    browser.open(url, ".gs-card")
    interactions: dict[str, list[Callable[[Any], None]]] = {
        "show": [_press(f".st-key-show button >> nth={at}") for at in (1, 2, 0) * 3],
        "method": [_press(".st-key-methods button >> nth=3")] * 8,
        "page": [_turn] * 6,
    }
    times = {name: [browser.act(action) for action in actions] for name, actions in interactions.items()}
    times["accept"] = [_accept(browser, at) for at in range(5)]
    progress.advance()
    search = [_search(browser, word) for word in _WORDS]
    browser.open(url, ".gs-card")
    progress.advance()
    rerank = _what_if(browser)
    progress.advance()
    return {
        "interaction": {name: summary(seconds) for name, seconds in times.items()},
        "search": summary(search),
        "rerank_in_page": summary(rerank),
    }


def _press(selector: str) -> Callable[[Any], None]:
    return lambda page: page.locator(selector).click()


def _turn(page: Any) -> None:
    """Go to a page that was not shown before, as long as there is one."""
    next_page, previous = (page.locator(f"button[aria-label='{way} page'] >> nth=0") for way in ("Next", "Previous"))
    (next_page if next_page.is_enabled() else previous).click()


def _accept(browser: Tab, at: int) -> float:
    return browser.act(lambda page: page.locator(".gs-card").nth(at).get_by_role("button", name="Accept").click())


def _search(browser: Tab, word: str) -> float:
    def type_it(page: Any) -> None:
        field = page.locator(".st-key-search input")
        field.fill("")
        field.press_sequentially(word)

    return browser.act(type_it)


def _what_if(browser: Tab) -> list[float]:
    """Rank the page's methods again, each time with a choice that was not made before."""
    browser.page.locator(".st-key-what-if button").first.click()
    keys = ("aggregate", "similarity", "pooling")
    return [browser.act(_press(f".st-key-{key} [role='radiogroup'] label >> nth=1")) for key in keys]


def _rerank(folder: Path) -> dict[str, Any]:
    """Rank one method again in this process, without a page: no result is kept between the calls."""
    store = Store.open(folder / "stores" / NAME)
    scoring = open_scoring(store, _scoring_path(store, folder))
    traits, seconds = read_traits(store, scoring), []
    for method in ("less", "rds"):
        ranked(scoring, method, Choices(), traits)  # opens and checks the files
        for what_if in _WHAT_IFS:
            start = time.perf_counter()
            ranked(scoring, method, make_choices(**what_if), traits)
            seconds.append(time.perf_counter() - start)
    return summary(seconds)


def _scoring_path(store: Store, folder: Path) -> Path:
    rows = read_targets(folder / "targets" / f"{TARGETS}.jsonl").rows
    return scoring_path(store, rows)


def _report(
    rows: int,
    bare: dict[str, Any],
    pages: dict[str, Any],
    compared: dict[str, Any],
    backend: dict[str, Any],
    memory: Any,
) -> dict[str, Any]:
    paint, press = bare["first_paint"]["median_s"], bare["interaction"]["median_s"]
    for page in pages.values():
        page["ratio_to_bare"] = round(page["median_s"] / paint, 2)
        page["within_budget"] = page["median_s"] <= BUDGETS["first_paint"]
        page["payload_within_budget"] = page["payload_bytes"] <= BUDGETS["payload_bytes"]
    for times in compared["interaction"].values():
        times["ratio_to_bare"] = round(times["median_s"] / press, 2)
        times["within_budget"] = times["median_s"] <= BUDGETS["interaction"]
    compared["search"]["within_budget"] = compared["search"]["median_s"] <= BUDGETS["search"]
    compared["rerank_in_page"]["within_budget"] = compared["rerank_in_page"]["median_s"] <= BUDGETS["rerank"]
    backend["within_budget"] = backend["median_s"] <= BUDGETS["rerank"]
    return {
        "rows": rows,
        "budgets": BUDGETS,
        "bare_streamlit": bare,
        "pages": pages,
        **compared,
        "rerank": backend,
        "server_memory_mb": round(memory.rss / 1e6),
        "of_it_mapped_files_mb": round(getattr(memory, "shared", 0) / 1e6),
    }
