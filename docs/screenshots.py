"""Take the pictures of the app for README and docs while it runs: python docs/screenshots.py [WORKSPACE] [--all]

WORKSPACE holds the demo's store (`make demo`); target sets that are not yet scored are scored first. Every page is
taken at 1440 x 900, light and dark, into assets/screenshots/. With --all, every page is also taken at a phone's size
(390 x 844), and everything goes into WORKSPACE/screenshots, for looking at rather than keeping.
"""

import argparse
import tempfile
from pathlib import Path

from gradsift.cli.bench.browser import chromium, server
from gradsift.data.targets import read_targets, write_targets
from gradsift.datastore.store import Store
from gradsift.evaluation.heldout import read_heldout
from gradsift.evaluation.plan import EvaluationSet
from gradsift.evaluation.run import evaluate
from gradsift.runtime.paths import data_home
from gradsift.selection.score import score
from gradsift.workspace.sessions import Sessions
from gradsift.workspace.workspace import SAMPLE_STORE, Workspace, sample_targets

ROOT = Path(__file__).resolve().parents[1]
METHODS = ["less", "bm25", "rds", "random"]
OPEN = f"store={SAMPLE_STORE}&targets=bengali-qa&budget=10%25"
SIZES = {"": (1440, 900), "-phone": (390, 844)}
SHOWS = {
    "datastore": ".js-plotly-plot .main-svg",
    "targets": "[data-testid='stDataFrame']",
    "compare": ".gs-card",
    "why": ".gs-turn",
    "distributions": ".js-plotly-plot .main-svg",
    "norms": ".js-plotly-plot .main-svg",
    "export": "[data-testid='stCode']",
    "proof": ".js-plotly-plot .main-svg",
    "sessions": "[data-testid='stMain'] h1",
}
DRAWN = """() => !document.querySelector("[data-testid='stSkeleton'], [data-stale='true']")"""
IDLE = "[data-testid='stApp'][data-test-script-state='notRunning']"


def pages(row: int) -> dict[str, str]:
    """A picture's name -> the address of the page it shows."""
    return {
        "datastore": f"datastore?{OPEN}",
        "targets": f"targets?{OPEN}",
        "compare": f"compare?{OPEN}&methods=less,bm25,rds",
        "why": f"why?{OPEN}&row={row}",
        "distributions": f"distributions?{OPEN}",
        "norms": f"norms?{OPEN}",
        "export": f"export?{OPEN}",
        "proof": f"proof?{OPEN}",
        "sessions": f"sessions?{OPEN}",
    }


def _sessions(workspace: Workspace, store: Store, row: int) -> None:
    """Make two sessions with names and decisions, for the page that lists and compares them."""
    sessions = Sessions(workspace.sessions_path)
    if not sessions.list():
        for name, method in (("Bengali by shared words", "bm25"), ("Bengali by gradients", "less")):
            view = {"store": SAMPLE_STORE, "targets": "bengali-qa", "budget": "10%", "methods": method}
            session = sessions.create(name, "compare", view).id
            sessions.decide(session, store.fingerprint, [row], "accept")


def _evaluation(workspace: Workspace, store: Store) -> None:
    """Run a small evaluation for the Proof page: half of a sample set selects, the other half is held out."""
    name, folder = "multiple-choice", workspace.root / "evaluations" / "multiple-choice-10pct"
    if (folder / "report.json").is_file():
        return
    rows = read_targets(next(path for path in sample_targets() if path.stem == name)).rows
    folder.mkdir(parents=True, exist_ok=True)
    write_targets(folder / "held-out.jsonl", rows[1::2])
    one = EvaluationSet(name, rows[::2], read_heldout(folder / "held-out.jsonl"))
    evaluate([store.path], [one], folder / "report.json", methods=["less", "bm25"], budget="10%", seeds=1)


def main() -> None:
    """Score what is not yet scored, start the app, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", nargs="?", type=Path, default=data_home())
    parser.add_argument("--all", action="store_true", help="phones too, into WORKSPACE/screenshots")
    arguments = parser.parse_args()
    workspace = Workspace(arguments.workspace)
    store = Store.open(workspace.store_path(SAMPLE_STORE))
    best = 0
    for path in sample_targets():
        table = score(store, read_targets(path).rows, METHODS)
        if path.stem == "bengali-qa":
            best = int(table[(table["method"] == "less") & (table["rank"] == 1)]["row"].iloc[0])
    _sessions(workspace, store, best)
    _evaluation(workspace, store)
    out = workspace.root / "screenshots" if arguments.all else ROOT / "assets" / "screenshots"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        command = ["gradsift", "app", str(workspace.root), "--port"]
        with server(command, Path(folder) / "log.txt") as (address, _):
            for suffix, (width, height) in SIZES.items() if arguments.all else list(SIZES.items())[:1]:
                for scheme in ("light", "dark"):
                    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
                    for name, where in pages(best).items():
                        page = context.new_page()
                        page.goto(f"{address}/{where}")
                        page.wait_for_selector(IDLE, timeout=60_000)
                        page.wait_for_selector(SHOWS[name])
                        page.wait_for_function(DRAWN)
                        dark = "-dark" if scheme == "dark" else ""
                        page.screenshot(path=out / f"{name}{dark}{suffix}.png")
                        page.close()
                    context.close()
    print(out)


if __name__ == "__main__":
    main()
