"""Distributions on real scores of the toy model, and the CSV that its tables are downloaded as."""

import io

import pandas as pd

from app.components import figures
from gradsift.methods import METHODS


def tables(at) -> dict[str, pd.DataFrame]:
    """Every table by its first column names."""
    return {",".join(map(str, element.value.columns[:3])): element.value for element in at.dataframe}


def headings(at) -> list[str]:
    return [heading.value for heading in at.subheader]


def test_every_chart_has_a_title_and_a_table(app, scored):
    at = app("distributions", store="toy", targets="two", budget="10")
    assert len(at.get("plotly_chart")) == len(headings(at)) == len(at.dataframe) == 7
    found = tables(at)
    picked = found["method,source,rows"]
    assert picked.groupby("method")["rows"].sum().tolist() == [10] * len(METHODS)
    assert set(picked["method"]) == {method.label for method in METHODS.values()}
    assert found["subtask,rows,share"]["rows"].sum() == 10
    assert set(found["target,subtask,rank"]["target"]) == {1, 2}


def test_one_method_has_nothing_to_overlap_with(app, scored):
    at = app("distributions", store="toy", targets="two", budget="10")
    at.session_state["methods"] = ["bm25"]
    at.run()
    assert not at.exception
    assert not any("Overlap" in heading for heading in headings(at))


def test_random_has_no_subtasks_and_no_similarity(app, scored):
    at = app("distributions", store="toy", targets="two", budget="10")
    at.session_state["method"] = "random"
    at.run()
    assert not at.exception
    assert "Score by rank" in headings(at)
    assert not any("subtask" in heading or "Similarity" in heading for heading in headings(at))


def test_the_choices_and_the_budget_in_the_address_are_heard(app, scored):
    at = app("distributions", store="toy", targets="two", budget="7")
    at.query_params["without"] = "s0"
    at.run()
    assert not at.exception
    found = tables(at)
    assert found["subtask,rows,share"]["subtask"].tolist() == ["sums"]
    assert set(found["target,subtask,rank"]["subtask"]) == {"sums"}


def test_unscored_targets_lead_to_targets(app, workspace):
    at = app("distributions", store="toy", targets="yes-no")
    assert not at.get("plotly_chart")
    assert any("Score" in link.value for link in at.page_link)


def test_a_budget_that_picks_nothing_is_said(app, scored):
    at = app("distributions", store="toy", targets="two", budget="1tokens")
    assert "less than the best row" in at.error[0].value
    assert not at.get("plotly_chart")


def test_a_csv_holds_the_table_and_no_formula():
    table = pd.DataFrame({"source": ["=1+1", "@x", " -a", "plain"], "rows": [-1, 2, 3, 4], "share": [0.1, 0.25, 0, 1]})
    again = pd.read_csv(io.BytesIO(figures.csv(table)))
    assert again["source"].tolist() == ["'=1+1", "'@x", "' -a", "plain"]
    pd.testing.assert_frame_equal(again[["rows", "share"]], table[["rows", "share"]])


def test_names_from_data_are_no_markup():
    assert figures.name("<b>x</b> & y") == "&lt;b&gt;x&lt;/b&gt; &amp; y"
    assert figures.name("a" * 100).endswith("…")
