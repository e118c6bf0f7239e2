"""The list of stores: whatever they are called, and what two copies of one store do not share."""

import shutil

from app import comparing
from app.components.stores import ALL
from gradsift.scoring import open_scoring
from gradsift.store import Store


def test_stores_of_any_names_stand_in_one_list(app, workspace):
    names = ("pool.v1", "pool-v1", "sample", "by-path")
    for name in names:
        shutil.copytree(workspace.store_path("toy"), workspace.store_path(name))
    at = app(store="pool.v1")
    at.session_state["datastore_room"] = ALL
    at.run()
    assert not at.exception, at.exception
    assert {button.label for button in at.button if button.key == "open-pool.v1"} == {"Open now"}
    assert at.button(key="build-sample")
    at.button(key="open-pool-v1").click().run()
    assert at.query_params["store"] == "pool-v1"


def test_a_copy_of_a_store_reads_its_own_files(scored):
    copied = scored.store_path("copy")
    shutil.copytree(scored.store_path("toy"), copied)
    for path in (scored.store_path("toy"), copied):
        store = Store.open(path)
        about = comparing.traits_of(store, open_scoring(store, next((path / "scorings").iterdir())))
        assert about.updates.args[0].path == path
