"""What a saved session keeps of the view as a person moves between pages, each of which shows only a part."""

import pytest
from boards import board

from gradsift.analysis.norms import Area
from gradsift.data.targets import parse_targets, read_targets
from gradsift.datastore.store import Store
from gradsift.scoring.score_targets import score_targets
from gradsift.workspace.sessions import Sessions

VIEW = {"store": "toy", "targets": "two", "budget": "10"}
PICKS = {"methods": "less,rds", "cap": "40%", "source": "open", "sort": "long"}


def saved(workspace) -> dict[str, str]:
    (record,) = Sessions(workspace.sessions_path).list()
    return record.address


def go(at, page: str, **address: str):
    """Change the page as a link in the app does: the address has only what is in the link."""
    at.query_params.clear()
    for name, value in address.items():
        at.query_params[name] = value
    at.switch_page(f"../pages/{page}.py").run()
    assert not at.exception, at.exception
    return at


def compared(app, **more: str):
    at = app("compare", **VIEW)
    for name, value in more.items():
        at.query_params[name] = value
    at.run()
    assert not at.exception, at.exception
    return at


@pytest.mark.parametrize("page", ["datastore", "targets", "why", "distributions", "norms", "export", "proof"])
def test_a_visit_elsewhere_takes_nothing_from_the_saved_view(app, scored, page):
    at = go(compared(app, **PICKS), page)
    assert saved(scored).items() >= {**VIEW, **PICKS}.items()
    id = at.query_params["session"]
    again = go(app(session=id), "compare")
    assert [column["key"] for column in board(again)] == ["less", "rds"]
    assert {name: again.query_params[name] for name in PICKS} == PICKS


def test_what_goes_back_to_its_default_leaves_the_saved_view(app, scored):
    at = go(compared(app, **PICKS), "norms")
    at.text_input(key="cap").set_value("").run()
    assert saved(scored) == {**VIEW, **{name: text for name, text in PICKS.items() if name != "cap"}}
    go(at, "compare").button(key="clear").click().run()
    assert saved(scored) == {**VIEW, "methods": "less,rds", "sort": "long"}


def test_names_that_pages_write_by_themselves_are_theirs(app, scored):
    area = str(Area.of_box("epoch-2", "grad_norm", 0, 9, -9, 9))
    at = compared(app, budget="30")
    at.query_params["page"] = "2"
    at.run()
    assert saved(scored)["page"] == "2"
    at.session_state["q"] = "the"
    at.run()  # begins at the first page again
    assert "page" not in saved(scored)
    at = go(at, "norms", area=area)
    assert saved(scored)["area"] == area
    at.button(key="unmark").click().run()
    assert "area" not in saved(scored)
    at = go(at, "export", format="sharegpt")
    assert saved(scored)["format"] == "sharegpt"
    at.session_state["format"] = "messages"
    at.run()
    assert "format" not in saved(scored)
    assert saved(scored)["q"] == "the"


def test_proof_begins_no_session(app, scored):
    app("proof", **VIEW)
    assert not scored.sessions_path.exists()


@pytest.fixture
def other_set(scored):
    """Another target set that is scored on the same store."""
    text = "\n\n".join(f"Subtask: {name}\nQ: How much is {name}?\nA: {name}." for name in ("three", "four", "five"))
    scored.save_targets("three", parse_targets(text).rows)
    rows = read_targets(scored.target_set("three").path).rows
    score_targets(Store.open(scored.store_path("toy")), rows, ["less"])
    return scored


def test_what_is_left_out_of_one_set_is_not_left_out_of_another(app, other_set):
    at = compared(app, without="t1,s0")
    assert at.session_state["without"] == ["t1", "s0"]
    go(at, "targets").pills(key="targets_set").set_value("three").run()
    assert "without" not in saved(other_set)
    go(at, "compare")
    assert at.multiselect(key="without").value == []
    assert "without" not in at.query_params
    at.multiselect(key="without").set_value(["t2"]).run()
    assert at.query_params["without"] == "t2"
    at.query_params["targets"] = "two"  # while the page stays the same
    at.run()
    assert at.multiselect(key="without").value == []
    assert "without" not in at.query_params


def test_nor_where_the_other_set_is_chosen_first_thing_in_a_reopened_session(app, other_set):
    id = go(compared(app, without="t1"), "targets").query_params["session"]
    at = app(session=id)
    assert at.title[0].value == "Targets"
    at.pills(key="targets_set").set_value("three").run()
    go(at, "compare")
    assert at.multiselect(key="without").value == []


def test_a_link_to_another_set_brings_what_it_leaves_out(app, other_set):
    at = compared(app, without="t1")
    go(at, "compare", **{**VIEW, "targets": "three"}, without="t2")
    assert at.multiselect(key="without").value == ["t2"]
    assert app("compare", **VIEW, without="t0").multiselect(key="without").value == ["t0"]
