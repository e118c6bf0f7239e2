"""Long runs as the pages show them: running, failed, resumed; always from what is on disk."""

import json
import time
from dataclasses import asdict

import psutil
import pytest
from boards import board

from app.views.targets import scoring_folder
from gradsift.datastore.store import Store
from gradsift.runtime.progress import Status


def write_status(folder, **fields) -> None:
    (folder / "job").mkdir(parents=True, exist_ok=True)
    (folder / "job" / "status.json").write_text(json.dumps(asdict(Status(**fields))))


def running(folder, **fields) -> None:
    """A run that looks alive: this very process."""
    me = psutil.Process()
    write_status(
        folder, state="running", pid=me.pid, process_started=me.create_time(), started=time.time(), updated=time.time(),
        stage="features-1", label="Gradient features, checkpoint 1 of 2", done=20, total=80, unit="rows", rate=4.0,
        seconds_left=15.0, seconds={"read": 1.2, "features-1": 5.0}, **fields,
    )  # fmt: skip


def test_a_running_build_shows_stage_rate_time_left_and_its_warnings(app, workspace):
    running(workspace.store_path("toy"), notes=["Fewer than ten steps an epoch: <b>use</b> a batch size of 2."])
    at = app()
    assert at.progress[0].value == 25
    assert "20 of 80 rows" in at.progress[0].text
    assert "15 s left" in at.progress[0].text
    html_text = "".join(html.value for html in at.html)
    assert "Gradient features, checkpoint 1 of 2" in html_text
    assert "&lt;b&gt;use&lt;/b&gt;" in html_text
    assert at.button(key="cancel-toy")


def test_a_failed_build_says_why_and_offers_another_try(app, workspace):
    folder = workspace.store_path("bad")
    write_status(folder, state="failed", message="/no/pool.jsonl does not exist: check the path.")
    (folder / "job" / "command.json").write_text(json.dumps(["build", "--out", str(folder), "--", "/no/pool"]))
    at = app(store="bad")
    assert "does not exist" in at.error[0].value.replace("\\", "")
    assert at.button(key="again-bad").label == "Try the build again"


def test_a_killed_build_is_interrupted_and_resumed_from_its_command(app, workspace):
    folder = workspace.store_path("toy")
    write_status(
        folder, state="running", pid=2**22 - 1, process_started=1.0, label="Warmup", done=3, total=9, unit="steps"
    )
    (folder / "job" / "command.json").write_text(json.dumps(["build", "--out", str(folder), "--", "pool"]))
    next((folder / "features" / "epoch-1").iterdir()).unlink()
    at = app(store="toy")
    assert "was interrupted" in at.warning[0].value
    assert at.button(key="again-toy").label == "Resume the build"


def test_a_complete_store_stays_open_whatever_its_last_job_said(app, workspace):
    write_status(workspace.store_path("toy"), state="failed", message="an old failure")
    at = app()
    assert not at.error
    assert any("Coverage" in subheader.value for subheader in at.subheader)


def test_a_name_taken_by_a_failed_start_is_free_again(workspace):
    write_status(workspace.store_path("typo"), state="failed", message="no such model")
    assert workspace.new_store_path("typo") == workspace.store_path("typo")


@pytest.fixture
def beginning(scored):
    """The run that scores `two`, with what a scoring has before its first scores: its targets."""
    entry, store = scored.target_set("two"), Store.open(scored.store_path("toy"))
    for path in next((store.path / "scorings").iterdir()).glob("*.safetensors"):
        path.unlink()
    return scoring_folder(scored, store, entry)


@pytest.mark.parametrize("state", ["failed", "cancelled", "interrupted", "running"])
def test_a_scoring_without_a_score_yet_is_none(app, scored, beginning, state):
    if state == "running":
        running(beginning)
    else:
        write_status(beginning, state=state, message="no luck")
    for page in ("compare", "export"):
        at = app(page, store="toy", targets="two", budget="5")
        assert any("not scored on this datastore yet" in html.value for html in at.html)
    assert not scored.sessions_path.exists()
    at = app("targets", store="toy", targets="two")
    keys = {button.key for button in at.button}
    assert f"{'cancel' if state == 'running' else 'again'}-{beginning.name}" in keys
    assert "to-compare" not in keys


@pytest.mark.parametrize("state", ["finished", None])
def test_scores_by_random_alone_are_shown_where_no_more_was_asked_for(app, scored, beginning, state):
    if state:
        write_status(beginning, state=state)
    assert [column["key"] for column in board(app("compare", store="toy", targets="two"))] == ["random"]
    assert app("targets", store="toy", targets="two").button(key="to-compare")


def test_scores_that_were_there_stay_though_a_later_run_failed(app, scored):
    folder = scoring_folder(scored, Store.open(scored.store_path("toy")), scored.target_set("two"))
    write_status(folder, state="failed", message="no luck")
    assert "less" in [column["key"] for column in board(app("compare", store="toy", targets="two"))]
