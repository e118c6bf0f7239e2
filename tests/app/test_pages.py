"""Every page from the entry script, on a real store of the toy model."""

import gc
import json

import pytest

from app.state import run
from gradsift.datastore.store import Store
from gradsift.runtime.hashing import hash_json


def texts(at) -> str:
    """All text on the page."""
    kinds = (at.title, at.subheader, at.markdown, at.caption, at.html, at.text, at.error, at.warning, at.info)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def table(at, column: str):
    """The table on the page that has this column."""
    return next(element.value for element in at.dataframe if column in element.value)


@pytest.mark.parametrize("page", ["datastore", "targets", "compare", "export"])
def test_every_page_of_an_empty_workspace_says_what_to_do(app, tmp_path, monkeypatch, page):
    monkeypatch.setenv("GRADSIFT_WORKSPACE", str(tmp_path / "nothing-here"))
    at = app(page)
    assert not at.error
    assert "not open" in " ".join(link.value for link in at.page_link)
    assert not (tmp_path / "nothing-here").exists()  # looking creates nothing


def test_the_only_store_is_opened_and_stands_in_the_address(app, workspace):
    at = app()
    assert at.query_params["store"] == "toy"
    assert at.subheader[0].value == "toy"


def test_a_complete_store_shows_its_rows_warmup_checkpoints_and_excluded_rows(app, workspace):
    at = app()
    store = Store.open(workspace.store_path("toy"))
    coverage = table(at, "rows_in_file")
    assert coverage.iloc[-1]["rows_in_store"] == store.manifest.rows
    assert list(table(at, "mean_lr")["name"]) == store.epochs
    excluded = table(at, "reason")
    assert sorted(excluded.loc[excluded["file"] == "broken.jsonl", "line"]) == [1, 2]
    assert all(excluded["reason"].str.len() > 0)
    assert "<b>1 row</b>: no assistant turn" in texts(at)
    assert at.get("plotly_chart")


def test_columns_that_were_not_used_are_listed_with_their_rows(app, workspace):
    assert not [frame for frame in app(store="toy").dataframe if "column" in frame.value]
    path = workspace.store_path("toy") / "manifest.json"
    record = json.loads(path.read_text(encoding="utf-8")) | {"unused": {"note": 3, "<b>labels": 12}}
    del record["sha256"]
    path.write_text(json.dumps({**record, "sha256": hash_json(record)}), encoding="utf-8")
    unused = table(app(store="toy"), "column")
    assert unused.to_numpy().tolist() == [["<b>labels", 12], ["note", 3]]


def test_excluded_rows_are_searched(app, workspace):
    at = app()
    at.text_input(key="excluded-search").set_value("not valid json").run()
    assert list(table(at, "reason")["line"]) == [2]


def test_a_store_elsewhere_is_opened_by_its_path_and_a_wrong_path_is_refused(app, workspace, toy_store, tmp_path):
    at = app()
    at.session_state["datastore_room"] = "All stores"
    at.run()
    at.text_input(key="open_path").set_value(str(tmp_path / "nowhere"))
    at.form_submit_button[0].click().run()
    assert "There is no folder" in at.error[0].value
    at.text_input(key="open_path").set_value(str(toy_store))
    at.form_submit_button[0].click().run()
    assert not at.exception
    assert at.query_params["store"] == str(toy_store)
    assert [entry.name for entry in workspace.stores()] == ["toy", str(toy_store)]


def test_an_interrupted_store_says_what_is_missing(app, workspace):
    path = workspace.store_path("toy")
    for shard in list((path / "features" / "epoch-2").iterdir())[:2]:
        shard.unlink()
    at = app()
    assert "not finished" in texts(at)
    assert "2 files of the datastore" in texts(at)


def test_a_store_that_is_gone_is_said_and_others_can_be_chosen(app, workspace):
    at = app(store="vanished")
    assert not at.exception
    assert "vanished" in texts(at)


def test_what_lasts_is_left_out_of_the_collection_after_every_run(app, workspace):
    gc.unfreeze()
    run._freeze.clear()
    app()
    assert gc.get_freeze_count() > 50_000  # libraries alone have more
    assert len(gc.get_objects()) < gc.get_freeze_count()
