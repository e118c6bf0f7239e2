"""Journeys of a person through the app, in a real browser, on a real store and with real background runs."""

import re
from pathlib import Path

import pytest

from gradsift import jobs
from gradsift.store import Store

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PASTED = """{"prompt": "What is the capital of France?", "completion": "Paris."}
{"prompt": "How much is two and two?", "completion":
{"prompt": "How much is two and two?", "completion": "Four."}
"""


def test_from_the_store_to_a_file_that_loads(visit, workspace, tmp_path: Path):
    from datasets import load_dataset

    visit.go()
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
    visit.sees(re.compile("1–20 of .* picks"))
    heads = visit.page.locator(".gs-head h3")
    assert [head.split()[-1] for head in heads.all_inner_texts()] == ["LESS", "BM25", "RDS", "Random"]
    first = visit.page.locator(".gs-card .gs-rank").first
    assert first.inner_text() == "1"
    visit.page.get_by_role("button", name="Next page").first.click()
    visit.sees(re.compile("21–"))
    visit.page.wait_for_function("document.querySelector('.gs-card .gs-rank').innerText === '21'")
    assert "page=2" in visit.page.url
    visit.check()

    visit.click("link", "Export")
    visit.click("button", "Write the files")
    visit.sees("Ready", timeout=120_000)
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download train.jsonl").click()
    path = tmp_path / "train.jsonl"
    download.value.save_as(path)
    rows = load_dataset("json", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
    usable = Store.open(workspace.store_path("toy")).manifest.usable
    assert len(rows) == int(usable * 0.6)
    assert all(message["role"] in ("user", "assistant", "system") for message in rows[0]["messages"])
    visit.check()


def test_a_build_survives_a_reload_is_cancelled_and_resumed(visit, workspace, tiny_model):
    visit.go()
    visit.click("tab", "Build a new one")
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
