"""Compare and Export on real scores of the toy model."""

import re

import pytest

from app import comparing
from gradsift.choices import Choices
from gradsift.methods import METHODS
from gradsift.store import Store
from gradsift.targets import read_targets


def columns(at) -> list[str]:
    """The HTML of every column of the board."""
    return [html.value for html in at.html if html.value.startswith('<div class="gs-head')]


def cards(html: str) -> int:
    return html.count("<article")


def test_every_method_has_a_column_with_the_same_budget(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    found = columns(at)
    assert len(found) == len(METHODS)
    assert [cards(html) for html in found] == [10] * len(METHODS)
    for method, html in zip(METHODS.values(), found, strict=True):
        assert method.label in html


def test_long_lists_are_paged_and_the_position_is_said(app, scored):
    at = app("compare", store="toy", targets="two", budget="45")
    assert all("1–20 of 45 picks" in html for html in columns(at))
    at.query_params["page"] = "3"
    at.run()
    assert all("41–45 of 45 picks" in html for html in columns(at))
    assert [cards(html) for html in columns(at)] == [5] * len(METHODS)


def test_the_filter_for_one_method_leaves_rows_no_other_picks(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    at.session_state["show"] = comparing.ONLY
    at.run()
    for html in columns(at):
        assert html.count('<span class="gs-badge gs-only">') == cards(html)


def test_unscored_targets_lead_back_to_targets(app, workspace):
    at = app("compare", store="toy", targets="yes-no")
    assert not columns(at)
    assert any("Score" in link.value for link in at.page_link)


def test_a_broken_budget_in_the_address_is_said_not_raised(app, scored):
    at = app("compare", store="toy", targets="two", budget="lots")
    assert not at.exception


def test_a_budget_of_tokens_below_the_best_row_is_said(app, scored):
    at = app("compare", store="toy", targets="two", budget="1tokens")
    assert "less than the best row" in at.error[0].value.replace("\\", "")


@pytest.mark.parametrize("method", METHODS)
def test_membership_is_what_the_sets_say(scored, method):
    store = Store.open(scored.store_path("toy"))
    from gradsift.influence import score_targets

    scoring = score_targets(store, read_targets(scored.target_set("two").path).rows)
    comparison = comparing.compare(store, scoring, list(METHODS), "25%", Choices())
    picks = {column.method: set(column.picks.tolist()) for column in comparison.columns}
    column = next(column for column in comparison.columns if column.method == method)
    others = set().union(*(rows for name, rows in picks.items() if name != method))
    assert set(comparison.shown(column, comparing.ONLY).tolist()) == picks[method] - others
    assert set(comparison.shown(column, comparing.EVERY).tolist()) == set.intersection(*picks.values())
    assert set(comparison.shown(column, comparing.SHARED).tolist()) == picks[method] & others


def test_export_previews_what_will_be_written(app, scored):
    at = app("export", store="toy", targets="two", budget="5")
    assert '{"messages":' in re.sub(r'"role"', '"role"', at.code[0].value)
    assert any(
        list(frame.value) == ["source", "rows", "tokens"] and frame.value["rows"].sum() == 5 for frame in at.dataframe
    )
    at.radio(key="format").set_value("sharegpt").run()
    assert '"conversations"' in at.code[0].value
