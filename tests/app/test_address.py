"""The address bar: it opens the same view, and meaningless values fall back to the default."""

from boards import board

from gradsift.scoring.methods import METHODS


def test_the_address_opens_the_view(app, scored):
    at = app(store="toy", targets="two", budget="10", methods="less,rds", show="shared", aggregate="mean")
    at.switch_page("../pages/compare.py")
    for name, value in {"methods": "less,rds", "show": "shared", "aggregate": "mean"}.items():
        at.query_params[name] = value
    at.run()
    assert len(board(at)) == 2
    assert at.session_state["show"] == "shared"
    assert at.session_state["aggregate"] == "mean"


def test_a_widget_writes_its_name_not_its_label(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    at.session_state["methods"] = ["less", "random"]
    at.run()
    assert at.query_params["methods"] == "less,random"
    at.session_state["methods"] = list(METHODS)
    at.run()
    assert "methods" not in at.query_params  # the default is left out


def test_nonsense_in_the_address_is_the_default(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    for name, value in {"methods": "<script>,magic", "show": "nothing", "page": "-7", "similarity": "x"}.items():
        at.query_params[name] = value
    at.run()
    assert not at.exception
    assert len(board(at)) == len(METHODS)


def test_what_is_open_survives_a_change_of_page(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    at.query_params.clear()
    at.switch_page("../pages/export.py").run()
    assert (at.query_params["store"], at.query_params["targets"], at.query_params["budget"]) == ("toy", "two", "10")


def test_a_default_that_was_in_force_is_no_choice(app, scored):
    (kept,) = (scored.store_path("toy") / "scorings").glob("*/rds+.safetensors")
    hidden = kept.rename(kept.with_suffix(".hidden"))
    at = app("compare", store="toy", targets="two", budget="10")
    assert [column["key"] for column in board(at)] == [name for name in METHODS if name != "rds+"]
    hidden.rename(kept)  # as if it had been scored meanwhile
    for page in ("targets", "compare"):
        at.query_params.clear()
        at.switch_page(f"../pages/{page}.py").run()
    assert [column["key"] for column in board(at)] == list(METHODS)
    assert "methods" not in at.query_params


def test_a_choice_that_was_made_is_one_though_others_come_to_it(app, scored):
    (kept,) = (scored.store_path("toy") / "scorings").glob("*/rds+.safetensors")
    hidden = kept.rename(kept.with_suffix(".hidden"))
    at = app("compare", store="toy", targets="two", budget="10", methods="less,rds")
    hidden.rename(kept)
    for page in ("targets", "compare"):
        at.query_params.clear()
        at.switch_page(f"../pages/{page}.py").run()
    assert [column["key"] for column in board(at)] == ["less", "rds"]


def test_an_address_that_is_one_write_old_does_not_undo_a_change_of_budget(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    at.number_input(key="budget_value").set_value(20).run()
    at.query_params["budget"] = "10"  # a run that was requested before the browser had our write
    at.session_state["methods"] = ["less"]
    at.run()
    assert at.query_params["budget"] == at.session_state["open_budget"] == "20"
    at.query_params["budget"] = "7"  # a link
    at.run()
    assert at.session_state["open_budget"] == "7"
