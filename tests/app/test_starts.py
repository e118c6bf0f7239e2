"""Buttons that start a run: a second tab, a double click or a full disk gives a message, and the page stays."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from app.datastore.stores import ALL
from app.export import exports
from app.views.commands import Build
from gradsift.runtime import jobs
from gradsift.runtime.jobs import JobError
from gradsift.runtime.progress import Status

VIEW = {"store": "toy", "targets": "two", "budget": "5"}
ERRORS = (JobError("A run is going on already."), OSError(28, "No space left on device"))


def failed(folder: Path, command: list[str] | None = None) -> None:
    """A run that failed, and the command that would start it again."""
    (folder / "job").mkdir(parents=True, exist_ok=True)
    (folder / "job" / "status.json").write_text(json.dumps(asdict(Status(state="failed", message="no luck"))))
    (folder / "job" / "command.json").write_text(json.dumps(command or []))


@pytest.fixture(params=ERRORS, ids=["running", "full"])
def refused(request, monkeypatch) -> list[Path]:
    """Make every start fail; returns the folders of the attempts."""
    tried = []

    def start(folder: Path, argv: list[str]) -> None:
        tried.append(folder)
        raise request.param

    monkeypatch.setattr(jobs, "start", start)
    return tried


def press(at, key: str, refused: list[Path]) -> None:
    """Press a button whose run cannot start."""
    at.button(key=key).click().run()
    assert not at.exception, at.exception
    assert len(refused) == 1
    assert any(word in at.toast[0].value for word in ("going on", "disk is full"))


def test_an_export(app, scored, refused):
    at = app("export", **VIEW)
    press(at, "write", refused)
    assert at.code


def test_an_export_again(app, scored, refused):
    at = app("export", **VIEW)
    at.button(key="write").click().run()
    folder = refused.pop()
    failed(folder)
    press(at.run(), f"again-{folder.name}", refused)


def test_an_export_without_its_leaks(app, scored, refused):
    at = app("export", **VIEW)
    at.button(key="write").click().run()
    out = refused.pop()
    out.mkdir(parents=True)
    (out / "train.jsonl").write_text("{}\n")
    about = {
        "data": {"file": "train.jsonl", "rows": 5, "bytes": 3, "sha256": "0"},
        "leakage": {"targets": 2, "evaluation": [], "flagged_rows": 1, "dropped_rows": 0},
    }
    (out / "manifest.json").write_text(json.dumps(about))
    assert exports.manifest_of(out)
    press(at.run(), "drop-and-write", refused)


def test_a_scoring(app, workspace, refused):
    at = app("targets", store="toy", targets="yes-no")
    press(at, "score", refused)
    folder = refused.pop()
    failed(folder)
    press(at.run(), f"again-{folder.name}", refused)


def test_a_scoring_by_more_methods(app, scored, refused):
    next((scored.store_path("toy") / "scorings").glob("*/rds+.safetensors")).unlink()
    at = app("targets", store="toy", targets="two")
    at.pills(key="more_methods").set_value(["rds+"]).run()
    press(at, "score-more", refused)


def test_a_set_is_saved_though_its_scoring_cannot_start(app, workspace, refused):
    at = app("targets", store="toy")
    at.session_state["targets_from"] = "Paste"
    at.run()
    at.text_area(key="targets_text").set_value("Q: two and two?\nA: 4").run()
    press(at, "save-and-score", refused)
    assert at.query_params["targets"] == "my-targets"
    assert at.button(key="score")


def test_a_build(app, workspace, refused):
    folder = workspace.store_path("toy")
    failed(folder, Build(pool=("pool",), model="m", out=folder).argv())
    next((folder / "features" / "epoch-1").iterdir()).unlink()
    press(app(store="toy"), "again-toy", refused)
    refused.clear()
    (folder / "job" / "status.json").unlink()
    press(app(store="toy"), "resume-build", refused)


def test_the_sample(app, workspace, refused):
    at = app()
    at.session_state["datastore_room"] = ALL
    press(at.run(), "build-sample", refused)
    assert at.query_params["store"] == "toy"


def test_an_evaluation_again(app, scored, refused):
    failed(scored.root / "evaluations" / "mine")
    press(app("proof", **VIEW), "again-mine", refused)
