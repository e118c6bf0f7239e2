"""The list of stores: unusual names, and what two copies of one store do not share."""

import json
import shutil
from dataclasses import asdict

from app.datastore import stores
from app.datastore.stores import ALL, BUILD
from app.state.session import Session
from app.views.commands import Build
from app.views.comparison import traits_of
from gradsift.datastore.store import Store
from gradsift.runtime import jobs
from gradsift.runtime.progress import Status
from gradsift.scoring.scoring import open_scoring
from gradsift.workspace.demo import demo_command
from gradsift.workspace.workspace import SAMPLE_STORE, sample_pool


def test_stores_of_any_names_stand_in_one_list(app, workspace):
    names = ("pool.v1", "pool-v1", "sample", "by-path")
    for name in names:
        shutil.copytree(workspace.store_path("toy"), workspace.store_path(name))
    at = app(store="pool.v1")
    at.session_state["datastore_room"] = ALL
    at.run()
    assert not at.exception, at.exception
    assert {button.label for button in at.button if button.key == "open-pool.v1"} == {"Currently open"}
    assert at.button(key="build-sample")
    at.button(key="open-pool-v1").click().run()
    assert at.query_params["store"] == "pool-v1"


def test_the_sample_is_built_by_the_demos_own_command(app, workspace, monkeypatch):
    """So that `make demo` and the page can each resume what the other began."""
    started = []
    monkeypatch.setattr(jobs, "start", lambda folder, argv: started.append((folder, argv)))
    at = app(store="toy")
    at.session_state["datastore_room"] = ALL
    at.run().button(key="build-sample").click().run()
    path = workspace.store_path(SAMPLE_STORE)
    assert started == [(path, demo_command(workspace.root))]
    (path / "job").mkdir(parents=True)
    cancelled = Status(state="cancelled", message="Stopped as asked.")
    (path / "job" / "status.json").write_text(json.dumps(asdict(cancelled)))
    (path / "job" / "command.json").write_text(json.dumps(demo_command(workspace.root)))
    at = app(store=SAMPLE_STORE)
    at.button(key=f"again-{SAMPLE_STORE}").click().run()
    assert started[1] == started[0]


def test_a_copy_of_a_store_reads_its_own_files(scored):
    copied = scored.store_path("copy")
    shutil.copytree(scored.store_path("toy"), copied)
    for path in (scored.store_path("toy"), copied):
        store = Store.open(path)
        traits = traits_of(store, open_scoring(store, next((path / "scorings").iterdir())))
        assert traits.updates.args[0].path == path


def test_a_name_with_blanks_around_it_opens_the_store_it_builds(app, workspace, monkeypatch):
    started = []
    monkeypatch.setattr(jobs, "start", lambda folder, argv: started.append((folder, Build.read(argv))))
    at = app(store="toy")
    at.session_state["datastore_room"] = BUILD
    at.session_state["build_origin"] = "The sample"
    at.run()
    at.text_input(key="build_name").set_value(" my-pool ")
    at.text_input(key="build_template").set_value("")
    next(button for button in at.button if button.label == "Build the datastore").click().run()
    assert not at.exception, at.exception
    ((folder, command),) = started
    assert folder == command.out == workspace.store_path("my-pool")
    assert command.pool == tuple(map(str, sample_pool()))
    assert (command.epochs, command.lr, command.template) == (
        2,
        2e-4,
        None,
    )  # an empty field means the command's default
    assert at.query_params["store"] == "my-pool"


def test_only_a_build_into_the_store_itself_is_resumed(workspace, tmp_path):
    path = tmp_path / "store"
    session = Session(workspace, str(path), "", "5%")
    (path / "job").mkdir(parents=True)

    def again(command: list[str]) -> bool:
        (path / "job" / "command.json").write_text(json.dumps(command))
        return stores._again(session, path) is not None

    assert again(Build(pool=("pool",), model="m", out=path).argv())
    for command in (
        [],
        ["demo"],
        ["build", "--out", str(path / "other"), "--", "pool"],
        ["build", "--out", str(path), "--restart", "--", "pool"],
        ["build", "--out"],
    ):
        assert not again(command)
