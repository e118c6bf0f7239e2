"""Proof: an evaluation is started from the page as a real run, and its report appears there."""

import json
import os
import time
from itertools import pairwise
from pathlib import Path

import pytest
from figures import figures, title, values

from app.proof import evaluations, form
from app.state.session import Session
from app.views.view import View
from gradsift.datastore.store import Store
from gradsift.evaluation.plan import MethodSpec, store_recipe
from gradsift.evaluation.report import read_report, summary
from gradsift.runtime import jobs
from gradsift.scoring.choices import Choices
from gradsift.scoring.scoring import open_scoring

ASK = {"store": "toy", "targets": "two", "budget": "4"}
STARTED_BEFORE = (
    *("--targets", "two.jsonl", "--test", "rows.jsonl", "--budget", "5%", "--seeds", "3", "--out", "report.json"),
    *("--epochs", "3", "--method", "less", "--method", "rds"),
)


@pytest.fixture
def heldout(tmp_path) -> Path:
    path = tmp_path / "test.jsonl"
    lines = [{"prompt": f"How much is {n} and one?", "completion": str(n + 1)} for n in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def text_of(at) -> str:
    kinds = (at.markdown, at.caption, at.html, at.error, at.warning)
    return "\n".join(str(element.value) for kind in kinds for element in kind).replace("\\", "")


def finished(folder: Path) -> None:
    """Wait for the run in `folder`; returns how it ended."""
    while (status := jobs.status(folder)) is not None and status.state == "running":
        time.sleep(0.05)
    assert status is not None
    assert status.state == "finished", status.message


def evaluated(app, scored, heldout):
    """The page after an evaluation of one seed and one epoch has been started from it and has ended."""
    at = app("proof", **ASK)
    assert "No evaluation yet" in text_of(at)
    assert "The paper's choices are evaluated, whatever What if says" in text_of(at)
    at.text_input(key="proof_path").set_value(str(heldout))
    at.number_input(key="proof_seeds").set_value(1)
    at.number_input(key="proof_epochs").set_value(1)
    at.session_state["proof_methods"] = ["less"]
    at.button(key="proof-start").click().run()
    assert not at.exception, at.exception
    (entry,) = evaluations.entries(scored)
    finished(entry.folder)
    at.run()
    assert not at.exception, at.exception
    return at, entry


def test_an_evaluation_from_the_page(app, scored, heldout):
    at, entry = evaluated(app, scored, heldout)
    report = read_report(entry.report)
    assert {run.method for run in report.runs} == {"zero-shot", "random", "validation", "less"}
    assert [title(figure) for figure in figures(at)] == [
        "Held-out loss by epoch",
        "Does lower loss mean better answers?",
    ]
    less = next(run for run in report.runs if run.method == "less")
    drawn = next(trace for trace in figures(at)[0]["data"] if trace.get("name") == "LESS")
    assert values(drawn["y"]) == pytest.approx(less.loss_by_epoch)
    table = next(frame.value for frame in at.dataframe if "against_random" in frame.value)
    assert table["loss"].tolist() == pytest.approx(summary(report)["loss"].tolist())
    assert set(table["method"]) == {"LESS", "Random", "Zero-shot", "Targets alone"}
    gap = less.best_loss - next(run.best_loss for run in report.runs if run.method == "random")
    assert f"{abs(gap):.3f} {'below' if gap < 0 else 'above'} random's loss" in text_of(at)
    assert "4 of 4 runs are finished" in text_of(at)


def test_it_is_resumed_without_the_file_that_was_named(app, scored, heldout):
    _, entry = evaluated(app, scored, heldout)
    before = read_report(entry.report)
    heldout.unlink()
    before.model_copy(update={"runs": before.runs[:2]}).save(entry.report)
    evaluations.again(entry)
    finished(entry.folder)
    again = read_report(entry.report)
    assert [run.model_copy(update={"seconds": 0}) for run in again.runs] == [
        run.model_copy(update={"seconds": 0}) for run in before.runs
    ]


def test_what_is_missing_is_said(app, scored):
    at = app("proof", **ASK)
    at.button(key="proof-start").click().run()
    assert "no held-out rows yet" in text_of(at)
    at.text_input(key="proof_path").set_value("/nowhere/test.jsonl")
    at.button(key="proof-start").click().run()
    assert "There is no file /nowhere/test.jsonl" in text_of(at)
    assert not evaluations.entries(scored)


def test_an_evaluation_is_named_by_its_store_and_the_open_ones_come_first(app, scored):
    for name, store in (("mine", scored.store_path("toy")), ("theirs", "/elsewhere/other")):  # the last is the newest
        job = scored.root / "evaluations" / name / "job"
        job.mkdir(parents=True)
        (job / "command.json").write_text(json.dumps(["evaluate", str(store), *STARTED_BEFORE]))
    os.utime(scored.root / "evaluations" / "mine" / "job", (1, 1))
    at = app("proof", **ASK)
    assert at.selectbox(key="evaluation").value == "mine"
    assert at.selectbox(key="evaluation").options == ["mine · toy", "theirs · other"]


def test_a_damaged_report_is_said(app, scored):
    folder = scored.root / "evaluations" / "broken"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text("{")
    at = app("proof", **ASK)
    assert "cannot be read" in text_of(at)
    assert not at.exception


def test_a_store_of_given_checkpoints_asks_for_the_recipe_it_does_not_know(app, scored, heldout, monkeypatch):
    started: list[list[str]] = []
    monkeypatch.setattr(jobs, "start", lambda folder, arguments: started.append(arguments))
    store = Store.open(scored.store_path("toy"))
    assert form._unknown(store) == ()
    config = store.manifest.config.model_copy(update={"checkpoints": ("elsewhere",)})
    given = Store(store.path, store.manifest.model_copy(update={"config": config}))
    unknown = form._unknown(given)
    monkeypatch.setattr(form, "_unknown", lambda store: unknown)  # the page's own store has scores to show
    at = app("proof", **ASK)
    at.text_input(key="proof_path").set_value(str(heldout))
    at.number_input(key="proof_batch_size").set_value(16)
    at.number_input(key="proof_lr").set_value(3e-4)
    at.button(key="proof-start").click().run()
    assert not at.exception, at.exception
    flags = dict(pairwise(started[0]))
    assert (flags["--epochs"], flags["--batch-size"], float(flags["--lr"])) == ("3", "16", 3e-4)
    assert store_recipe(given, epochs=3, batch_size=16, lr=3e-4).batch_size == 16


def test_an_upload_stays_when_the_page_changes(app, scored, heldout):
    at = app("proof", **ASK)
    at.get("file_uploader")[0].set_value(("../rows.jsonl", heldout.read_bytes(), "text/plain")).run()
    assert not at.exception, at.exception
    path = Path(at.text_input(key="proof_path").value)
    assert path.read_bytes() == heldout.read_bytes()
    assert path.is_relative_to(scored.root / "uploads")
    assert not at.get("file_uploader")[0].value
    at.switch_page("../pages/compare.py").run()
    at.switch_page("../pages/proof.py").run()
    assert at.text_input(key="proof_path").value == str(path)


@pytest.mark.parametrize(("gradients", "spec"), [(("adam", "sgd"), "less"), (("sgd", "adam"), "less:gradient=sgd")])
def test_less_is_evaluated_by_the_first_gradient_of_the_store(scored, heldout, monkeypatch, gradients, spec):
    started: list[str] = []
    monkeypatch.setattr(jobs, "start", lambda folder, arguments: started.extend(arguments))
    store = Store.open(scored.store_path("toy"))
    scoring = open_scoring(store, next((store.path / "scorings").iterdir()))
    config = store.manifest.config.model_copy(update={"gradients": gradients})
    store.manifest = store.manifest.model_copy(update={"config": config})
    methods = ("less", "rds", "bm25", "draft")
    view = View(Session(scored, "toy", "two", "4"), store, scoring, methods, "4", Choices())
    evaluations.start(view, scored.target_set("two"), heldout, 1, {"epochs": 1})
    specs = [value for flag, value in pairwise(started) if flag == "--method"]
    assert specs == [spec, "rds", "bm25", "draft"]
    assert [MethodSpec.parse(text).text for text in specs] == specs
