"""Export in a real browser: decisions applied, evaluations checked, leaks dropped, every file downloaded and read."""

import json
import re
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from conversations import records

from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.scoring.score_targets import score_targets
from gradsift.selection.ranking import rank
from gradsift.workspace.sessions import Sessions

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def taken(visit, name: str | re.Pattern, folder: Path) -> Path:
    """Click a download button and keep the file."""
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name=name).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_decisions_leaks_and_everything_taken_home(visit, scored, tmp_path: Path):
    from datasets import load_dataset

    store = Store.open(scored.store_path("toy"))
    scoring = score_targets(store, read_targets(scored.target_set("two").path).rows)
    order = [int(row) for row in scoring.rows[rank(scoring, "less").order]]
    sessions = Sessions(scored.sessions_path)
    session = sessions.create().id
    sessions.decide(session, store.fingerprint, order[1:2], "reject")
    sessions.decide(session, store.fingerprint, order[-1:], "accept")
    leaking = store.texts(order[:1])["conversation"].iloc[0].messages
    held = tmp_path / "held-out.jsonl"
    held.write_text(json.dumps({"messages": records(leaking)}) + "\n", encoding="utf-8")

    visit.go(f"export?store=toy&targets=two&budget=6&session={session}&compress=gzip")
    visit.sees("1 accepted and 1 rejected in this session")
    visit.sees("Your decisions removed 1 row and added 1")
    visit.page.get_by_text("Check for leaks into evaluation files").click()
    visit.page.locator("input[type=file]").set_input_files(str(held))
    visit.sees("Compared with held-out.jsonl as well")
    visit.click("button", "Write the files")
    visit.sees("Ready: 6 rows", timeout=120_000)
    visit.sees(re.compile("shares? text with the 2 targets or the 1 example of held-out.jsonl"))
    assert visit.page.locator(".gs-leak mark").count() >= 2
    visit.check()

    visit.click("button", "Drop and write again")
    visit.sees(re.compile(r"No pick shares text with .* that did (was|were) replaced"), timeout=120_000)
    path = taken(visit, "Download train.jsonl.gz", tmp_path)
    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    questions = [turns[0]["content"] for turns in rows["messages"]]
    texts = store.texts(order)["conversation"]
    expected = {conversation.messages[0].content for conversation in texts.iloc[[2, len(order) - 1]]}
    assert len(rows) == 6
    assert expected <= set(questions)
    assert not {conversation.messages[0].content for conversation in texts.iloc[:2]} & set(questions)

    bundle = taken(visit, re.compile("^.*All files as zip"), tmp_path)
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "bundle")
    (folder,) = (tmp_path / "bundle").iterdir()
    assert (folder / "train.jsonl.gz").read_bytes() == path.read_bytes()
    assert pd.read_csv(folder / "picks.csv")["rank"].max() == len(order)
    assert json.loads((folder / "choices.json").read_text()) == {"accepted": order[-1:], "rejected": order[1:2]}
    visit.check()

    report = taken(visit, "Selection report", tmp_path)
    requests: list[str] = []
    visit.page.on("request", lambda request: requests.append(request.url))
    visit.page.goto(report.as_uri())
    assert visit.page.locator("h1").inner_text().endswith("6 rows selected by LESS")
    assert visit.page.locator("svg").count() == 3
    visit.page.emulate_media(color_scheme="dark")
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 29)"
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
    assert visit.problems == []


def test_the_page_fits_a_phone(visit, scored):
    visit.page.set_viewport_size({"width": 390, "height": 844})
    visit.go("export?store=toy&targets=two&budget=6")
    visit.sees("as they will appear in the file")
    for scheme in ("light", "dark"):
        visit.scheme(scheme)
        visit.fits()
        visit.check()
