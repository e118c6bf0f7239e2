"""Journeys of a person through the app, in a real browser, on a real store and with real background runs."""

import re
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.runtime import jobs
from gradsift.selection.score import score
from gradsift.workspace.sessions import Sessions

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PASTED = """{"prompt": "What is the capital of France?", "completion": "Paris."}
{"prompt": "How much is two and two?", "completion":
{"prompt": "How much is two and two?", "completion": "Four."}
"""


def test_from_the_store_to_a_file_that_loads(visit, workspace, tmp_path: Path):
    from datasets import load_dataset

    visit.go("datastore")  # the first page is at the root and also under its name
    visit.sees("Coverage")
    visit.check()

    visit.click("link", "Targets")
    visit.click("radio", "Paste")
    visit.page.get_by_role("textbox", name=re.compile("^Examples")).fill(PASTED)
    visit.click("button", "Read the examples")
    visit.sees("2 examples in 1 subtask")
    visit.sees("Line 2")
    visit.click("button", "Save and score 2 examples")
    visit.sees("Compare the picks", timeout=120_000)
    visit.check()

    visit.click("button", "Compare the picks")
    visit.page.get_by_role("spinbutton", name="Budget").fill("60")
    visit.page.get_by_role("spinbutton", name="Budget").press("Enter")
    visit.sees(re.compile("1–12 of .* picks"))
    visit.page.locator(".gs-card").first.wait_for()
    heads = visit.page.locator(".gs-head h3")
    assert [head.split()[-1] for head in heads.all_inner_texts()] == ["LESS", "BM25", "RDS", "Random"]
    first = visit.page.locator(".gs-card .gs-rank").first
    assert first.inner_text() == "1"
    visit.page.get_by_role("button", name="Next page").first.click()
    visit.sees(re.compile("13–"))
    visit.page.wait_for_function("document.querySelector('.gs-card .gs-rank').innerText === '13'")
    assert "page=2" in visit.page.url
    visit.check()

    visit.page.get_by_role("button", name="Previous page").first.click()
    visit.page.wait_for_function("document.querySelector('.gs-card .gs-rank').innerText === '1'")
    visit.page.get_by_role("heading", name="Compare").click()
    visit.page.keyboard.press("j")
    visit.page.keyboard.press("w")
    visit.page.get_by_role("dialog").get_by_text("The target it serves best").wait_for()
    visit.settle()
    visit.page.keyboard.press("Escape")
    visit.page.get_by_role("dialog").wait_for(state="detached")
    for key in ("a", "j", "x", "j", "x"):
        visit.page.keyboard.press(key)
    visit.sees("1 accepted · 2 rejected")
    visit.page.keyboard.press("u")
    visit.sees("1 accepted · 1 rejected")
    visit.settle()
    visit.check()

    visit.click("link", "Export")
    visit.sees("1 accepted and 1 rejected in this session")
    visit.click("button", "Write the files")
    visit.sees("Ready", timeout=120_000)
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download train.jsonl").click()
    path = tmp_path / "train.jsonl"
    download.value.save_as(path)
    rows = load_dataset("json", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
    store = Store.open(workspace.store_path("toy"))
    assert len(rows) == int(store.manifest.usable * 0.6)
    assert all(message["role"] in ("user", "assistant", "system") for message in rows[0]["messages"])
    [session] = Sessions(workspace.sessions_path).list()
    decided = Sessions(workspace.sessions_path).decisions(session.id, store.fingerprint)
    questions = {row["messages"][0]["content"] for row in rows}
    [rejected], [accepted] = (store.texts(rows)["conversation"] for rows in (decided.rejected, decided.accepted))
    assert rejected.messages[0].content not in questions
    assert accepted.messages[0].content in questions
    visit.check()

    visit.page.goto("about:blank")
    visit.go(f"?session={session.id}")  # the address of the session alone opens what was left
    visit.page.get_by_role("heading", name="Export").wait_for()
    visit.click("link", "Compare")
    visit.sees("1 accepted · 1 rejected")
    visit.page.locator(".gs-card[data-verdict='accept']").first.wait_for()
    cards = visit.page.locator(".gs-column").first.locator(".gs-card")
    assert [card.get_attribute("data-verdict") or "" for card in cards.all()[:3]] == ["accept", "reject", ""]
    visit.check()


def test_an_edited_subtask_stays_when_the_page_changes(visit, workspace):
    visit.go("targets?store=toy")
    visit.click("radio", "Paste")
    visit.page.get_by_role("textbox", name=re.compile("^Examples")).fill(PASTED)
    visit.click("button", "Read the examples")
    visit.sees("2 examples in 1 subtask")
    for height, summary in (
        (52, "2 examples in 2 subtasks"),
        (87, "2 examples in 1 subtask"),
    ):  # one row, then the other
        grid = visit.page.get_by_test_id("stDataFrame").first
        grid.locator(".dvn-scroller").dblclick(position={"x": 60, "y": height})
        visit.page.locator("#portal textarea, #portal input").first.fill("capitals")
        visit.page.keyboard.press("Enter")
        visit.sees(summary)
        visit.click("link", "Datastore")
        visit.sees("Coverage")
        visit.click("link", "Targets")
        visit.sees(summary)
    visit.click("button", "Save and score 2 examples")
    visit.sees("Compare the picks", timeout=120_000)
    (saved,) = [entry for entry in workspace.target_sets() if not entry.shipped and entry.name == "my-targets"]
    assert [row.subtask for row in read_targets(saved.path).rows] == ["capitals", "capitals"]
    visit.check()


def test_back_undoes_a_choice_whose_earlier_value_was_the_default(visit, scored):
    visit.go("distributions?store=toy&targets=two&budget=10")
    visit.page.get_by_role("radio", name="Sources", checked=True).wait_for()
    visit.click("radio", "Scores")
    visit.page.wait_for_function("location.search.includes('chart=scores')")
    visit.click("radio", "Overlap")
    visit.page.wait_for_function("location.search.includes('chart=overlap')")
    visit.page.go_back()
    visit.page.get_by_role("radio", name="Scores", checked=True).wait_for()
    visit.page.go_back()
    visit.page.get_by_role("radio", name="Sources", checked=True).wait_for()
    assert "chart=" not in visit.page.url
    visit.check()


def test_back_over_a_change_of_page_keeps_the_choices(visit, scored):
    """The browser keeps addresses of which only a part was written yet."""
    visit.go("compare?store=toy&targets=two&budget=5&methods=less,rds&aggregate=mean&cap=50%25")
    visit.page.locator(".gs-card").first.wait_for()
    visit.click("link", "Distributions")
    visit.page.get_by_role("radio", name="Sources", checked=True).wait_for()
    visit.settle()
    visit.page.go_back()
    visit.page.wait_for_timeout(1500)
    visit.settle()
    if "/distributions" in visit.page.url:
        visit.click("link", "Compare")
    visit.page.locator(".gs-card").first.wait_for()
    visit.settle()
    parameters = parse_qs(visit.page.url.partition("?")[2])
    assert {name: parameters[name] for name in ("methods", "aggregate", "cap")} == {
        "methods": ["less,rds"], "aggregate": ["mean"], "cap": ["50%"]
    }  # fmt: skip
    visit.check()


def test_what_is_pressed_right_after_an_edit_takes_the_edit(visit, workspace):
    visit.go("targets?store=toy")
    visit.click("radio", "Paste")
    field = visit.page.get_by_role("textbox", name=re.compile("^Examples"))
    field.fill(PASTED)
    visit.click("button", "Read the examples")
    visit.sees("2 examples in 1 subtask")
    field.fill(PASTED.replace("Paris.", "Paris, of course."))
    visit.page.get_by_role("button", name="Save and score 2 examples").click()  # leaving the field sends its text
    visit.sees("Compare the picks", timeout=120_000)
    saved = read_targets(workspace.target_set("my-targets").path).rows
    assert saved[0].messages[-1].content == "Paris, of course."
    visit.check()


def test_a_what_if_ranks_anew_and_stands_in_the_address(visit, scored):
    store = Store.open(scored.store_path("toy"))
    rows = read_targets(scored.target_set("two").path).rows
    visit.go("compare?store=toy&targets=two&budget=5&methods=less")
    visit.page.locator(".gs-card").first.wait_for()
    visit.page.locator(".st-key-what-if button").first.click()
    visit.page.get_by_text("each target example picks in turn").click()
    visit.page.wait_for_url("**aggregate=round-robin**")
    visit.page.keyboard.press("Escape")
    visit.sees("What if (1)")
    visit.settle()
    table = score(store, rows, ["less"], aggregate="round-robin").set_index("rank")["score"].sort_index()
    shown = [float(text) for text in visit.page.locator(".gs-card .gs-score").all_inner_texts()]
    assert shown == pytest.approx(table.loc[1:5].tolist(), abs=6e-5)
    visit.check()

    visit.go("compare?store=toy&targets=two&budget=5&methods=less&without=t0")  # a link that leaves a target out
    visit.page.locator(".gs-card").first.wait_for()
    visit.sees("What if (1)")
    table = score(store, rows[1:], ["less"]).set_index("rank")["score"].sort_index()
    shown = [float(text) for text in visit.page.locator(".gs-card .gs-score").all_inner_texts()]
    assert shown == pytest.approx(table.loc[1:5].tolist(), abs=6e-5)
    visit.check()


def test_a_build_survives_a_reload_is_cancelled_and_resumed(visit, workspace, tiny_model):
    visit.go()
    visit.click("tab", "New store")
    visit.click("radio", "The sample")
    visit.page.get_by_role("textbox", name="Name of the datastore").fill("mine")
    visit.page.get_by_role("textbox", name="Model").fill(str(tiny_model))
    for name, value in {"Rows per source": "30", "Warmup epochs": "10", "Longest row (tokens)": "256"}.items():
        visit.page.get_by_role("spinbutton", name=name).fill(value)
    visit.page.get_by_text("More parameters").click()
    for name, value in {"LoRA rank": "2", "Dimensions of a feature": "64"}.items():
        visit.page.get_by_role("spinbutton", name=name).fill(value)
    visit.page.get_by_role("button", name="Build the datastore").click()
    visit.sees("Building mine")
    visit.sees(re.compile("of .* steps"), timeout=120_000)
    assert "store=mine" in visit.page.url

    visit.page.reload()
    visit.settle()
    visit.sees("Building mine")
    visit.page.get_by_role("button", name="Cancel").click()
    visit.page.get_by_role("button", name="Resume the build").wait_for(timeout=60_000)
    assert jobs.status(workspace.store_path("mine")).state == "cancelled"
    visit.check()

    visit.page.get_by_role("button", name="Resume the build").click()
    visit.sees("Coverage", timeout=240_000)
    assert Store.open(workspace.store_path("mine")).complete
    visit.check()
