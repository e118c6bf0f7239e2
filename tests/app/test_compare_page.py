"""Compare and Export on real scores of the toy model."""

import re

import pytest
from boards import board

from app import comparing
from gradsift.choices import Choices
from gradsift.methods import METHODS
from gradsift.store import Store
from gradsift.targets import read_targets


def sizes(at) -> list[int]:
    """How many cards every column has."""
    return [len(column["cards"]) for column in board(at)]


def test_every_method_has_a_column_with_the_same_budget(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    assert sizes(at) == [10] * len(METHODS)
    for method, column in zip(METHODS.values(), board(at), strict=True):
        assert method.label in column["head"]


def test_long_lists_are_paged_and_the_position_is_said(app, scored):
    at = app("compare", store="toy", targets="two", budget="45")
    assert all("1–20 of 45 picks" in column["foot"] for column in board(at))
    at.query_params["page"] = "3"
    at.run()
    assert all("41–45 of 45 picks" in column["foot"] for column in board(at))
    assert sizes(at) == [5] * len(METHODS)


def test_the_filter_for_one_method_leaves_rows_no_other_picks(app, scored):
    at = app("compare", store="toy", targets="two", budget="10")
    at.session_state["show"] = comparing.ONLY
    at.run()
    assert sum(sizes(at)) > 0
    for column in board(at):
        assert all('<span class="gs-badge gs-only">' in card["html"] for card in column["cards"])


def test_unscored_targets_lead_back_to_targets(app, workspace):
    at = app("compare", store="toy", targets="yes-no")
    assert not board(at)
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
    only_others = comparison.shown(column, comparing.OTHERS)
    assert set(only_others.tolist()) == others - picks[method]
    assert (column.ranking.rank[only_others[:-1]] < column.ranking.rank[only_others[1:]]).all()


def test_export_previews_what_will_be_written(app, scored):
    at = app("export", store="toy", targets="two", budget="5")
    assert '{"messages":' in re.sub(r'"role"', '"role"', at.code[0].value)
    assert any(
        list(frame.value) == ["source", "rows", "tokens"] and frame.value["rows"].sum() == 5 for frame in at.dataframe
    )
    at.radio(key="format").set_value("sharegpt").run()
    assert '"conversations"' in at.code[0].value
