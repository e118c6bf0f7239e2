"""The build form estimates what a build would cost."""

import json
import re
import time

import pytest

from app.datastore import build, estimate
from gradsift.builder.plan import PLAN
from gradsift.runtime import jobs
from gradsift.runtime.progress import Progress
from gradsift.workspace.workspace import sample_pool


def form(app, tiny_model):
    """The build form, filled for the sample and the toy model."""
    at = app()
    at.session_state["datastore_room"] = "New store"
    at.run()
    at.session_state["build_origin"] = "The sample"
    at.session_state["build_model"] = str(tiny_model)
    at.session_state["build_max_length"] = 256
    at.session_state["build_lora_rank"] = 4
    return at.run()


def press(at, label: str):
    return next(button for button in at.button if button.label == label).click().run()


def text_of(at) -> str:
    return re.sub("<[^>]*>", " ", "\n".join(str(html.value) for html in at.html))


@pytest.mark.slow
def test_the_form_estimates_before_it_builds(app, workspace, tiny_model):
    at = press(form(app, tiny_model), "Estimate the cost")
    assert not at.exception
    assert not at.error
    assert at.button(key="stop-estimate")
    (folder,) = (workspace.root / "jobs").glob("plan-*")
    while (status := jobs.status(folder)).state == "running":
        time.sleep(0.1)
    assert status.state == "finished", status.message
    at.run()
    plan = build.read_plan(folder)
    assert plan["exact"]
    assert plan["rows"] == sum(len(path.read_text().splitlines()) for path in sample_pool())
    figures = text_of(at)
    assert f"{plan['usable']:,}" in figures
    assert f"{plan['prompt_tokens'] + plan['answer_tokens']:,}" in figures
    assert f"{plan['warmup']['steps_per_epoch']} × 2" in figures
    for text in ("on one machine", "of memory for the process", "on disk, features as int8", "fp16", "tokens a second"):
        assert text in figures
    assert list(at.dataframe[0].value["source"]) == [source["source"] for source in plan["sources"]]
    assert not any("before" in caption.value for caption in at.caption)
    at.session_state["build_epochs"] = 3
    at.run()
    assert any("The form has changed since" in caption.value for caption in at.caption)
    assert [entry.name for entry in workspace.stores()] == ["toy"]  # an estimate creates no store


def test_counts_stand_there_while_the_estimate_is_made(app, workspace, tiny_model, tiny_pool, tiny_config, monkeypatch):
    from gradsift.builder.plan import plan, record

    counted = record(plan([tiny_pool], tiny_config)) | {"estimate": None, "exact": False}

    def start(folder, command):
        progress = Progress(folder, quiet=True)  # this very process, so that it looks alive
        progress.stage("burst", "Timing a few batches", 0, "batches")
        (folder / "job" / PLAN).write_text(json.dumps(counted))

    monkeypatch.setattr(jobs, "start", start)
    at = press(form(app, tiny_model), "Estimate the cost")
    assert not at.exception
    assert "about 40" in text_of(at)
    assert "usable of 42 rows" in text_of(at)
    assert "on disk" not in text_of(at)
    assert at.progress[0].text == "Timing a few batches"
    sentences = estimate._sentences(counted | {"unused": {"note": 3, "comment": 1}})
    assert "Columns that held text and are not used: note (3 rows), comment (1 row)." in sentences


def test_an_estimate_that_fails_says_why(app, workspace, tiny_model):
    at = form(app, tiny_model)
    at.session_state["build_origin"] = "Files on this machine"
    at.run()
    press(at, "Estimate the cost")
    assert "There is no pool yet" in at.error[0].value
    at.session_state["build_paths"] = "/no/such/pool.jsonl"
    press(at, "Estimate the cost")
    (folder,) = (workspace.root / "jobs").glob("plan-*")
    while jobs.status(folder).state == "running":
        time.sleep(0.1)
    at.run()
    assert "does not exist" in at.warning[0].value
