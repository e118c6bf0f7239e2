"""Filters, order and marks of the Compare page against brute force on the toy store."""

from dataclasses import replace

import numpy as np
import pytest
from conversations import pairs

from app.compare import facets
from app.state import address
from app.state.session import Session
from app.views import filters, highlights
from app.views.comparison import Comparison, compare
from app.views.filters import Filter
from app.views.view import View
from gradsift.analysis.norms import Area
from gradsift.datastore.store import Store
from gradsift.runtime.errors import StoreError
from gradsift.scoring.choices import Choices
from gradsift.scoring.methods import METHODS
from gradsift.scoring.scoring import open_scoring
from gradsift.text.index import ensure_index
from gradsift.text.search import SEARCHED
from gradsift.workspace.sessions import Decisions

NOTHING = Decisions(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), {}, 0)


@pytest.fixture
def opened(scored):
    store = Store.open(scored.store_path("toy"))
    ensure_index(store)
    folder = next((store.path / "scorings").iterdir())
    return store, open_scoring(store, folder)


@pytest.fixture
def view(scored, opened):
    return View(Session(scored, "toy", "two", "25%"), *opened, tuple(METHODS), "25%", Choices())


@pytest.fixture
def comparison(view):
    return view.comparison


def expected(opened, keep) -> list[bool]:
    """Check every scored row one by one. keep: takes a row of the pool and its conversation."""
    store, scoring = opened
    pool = store.pool()
    texts = dict(zip(scoring.rows.tolist(), store.texts(scoring.rows)["conversation"], strict=True))
    return [bool(keep(pool.loc[row], texts[row])) for row in scoring.rows.tolist()]


def some_text(opened) -> str:
    store, scoring = opened
    return store.texts(scoring.rows[:1])["conversation"][0].messages[0].content.split()[0].lower().strip(".,:?")


@pytest.mark.parametrize("facet", ["source", "task"])
def test_a_facet_leaves_the_rows_with_its_values(opened, facet, view):
    values = filters.facets_of(view)[facet].values[:2]
    result = filters.matching(view, Filter(**{facet: values}), NOTHING)
    tasks = [None if value == filters.NO_TASK else value for value in values]
    assert result.tolist() == expected(opened, lambda row, _: (row[facet] or None) in tasks)
    assert 0 < result.sum() < len(result)


def test_scripts_are_those_of_the_index(opened, view):
    from gradsift.text.index import script_of

    facet = filters.facets_of(view)["script"]
    assert len(facet.values) > 1
    result = filters.matching(view, Filter(script=("Bengali",)), NOTHING)
    assert result.tolist() == expected(opened, lambda _, conversation: script_of(conversation) == "Bengali")
    assert result.any()


def test_counts_are_of_the_picks_and_of_the_pool(opened, comparison, view):
    store, scoring = opened
    picked = comparison.shared > 0
    sources = store.pool().loc[scoring.rows, "source"].to_numpy()
    facet = filters.facets_of(view)["source"]
    for value, count, total in zip(facet.values, facet.counts(picked), facet.total, strict=True):
        assert total == (sources == value).sum()
        assert count == (sources[picked] == value).sum()


@pytest.mark.parametrize(
    ("text", "limits"),
    [("10-40", (10, 40)), ("10-", (10, 10**9)), ("-40", (0, 40)), ("-", None), ("", None), ("x", None), ("9--1", None)],
)
def test_lengths_are_of_the_answer(opened, text, limits, view):
    assert filters.length_limits(text) == limits
    result = filters.matching(view, Filter(length=text), NOTHING)
    low, high = limits or (0, 10**9)
    assert result.tolist() == expected(opened, lambda row, _: low <= row["n_answer_tokens"] <= high)


@pytest.mark.parametrize("role", SEARCHED)
def test_words_are_searched_by_role_in_the_whole_pool(opened, role, view):
    word = some_text(opened)
    result = filters.matching(view, Filter(q=f" {word.upper()} ", role=role), NOTHING)

    def holds(_, conversation) -> bool:
        turns = pairs(conversation.messages)
        return any(word in text.lower() for other, text in turns if role in ("any", other))

    assert result.tolist() == expected(opened, holds)


def test_words_without_an_index_are_an_error_that_says_so(scored, view):
    store = Store.open(scored.store_path("toy"))
    scoring = open_scoring(store, next((store.path / "scorings").iterdir()))
    for file in (store.path / "index").glob("rows.parquet"):
        file.unlink()
    with pytest.raises(StoreError, match="no index"):
        filters.matching(replace(view, store=store, scoring=scoring), Filter(q="never asked for before"), NOTHING)


@pytest.mark.parametrize("scope", filters.SCOPES)
def test_a_subtask_leaves_the_rows_that_serve_it_best_in_every_column(opened, comparison, scope, view):
    everything = np.ones(len(opened[1].rows), dtype=bool)
    names = comparison.columns[0].ranking.subtasks
    assert len(names) > 1
    for chosen in [names[:1], names[1:2], names]:
        for column in comparison.columns:
            by_subtask = Filter(subtask=chosen, scope=scope)
            shown = filters.listed(view, column, by_subtask, everything)
            ranking, looks = column.ranking, METHODS[column.method].sees_targets
            assert shown.tolist() == [
                at
                for at in ranking.order.tolist()
                if (scope == "pool" or column.picked[at])
                and (looks and ranking.score[at] != 0 and names[ranking.best_subtask[at]] in chosen)
            ]


def test_subtasks_are_counted_over_the_columns_once(comparison):
    for columns in [comparison.columns, comparison.columns[:1]]:
        result = filters.subtasks_of(Comparison(columns, comparison.rows, comparison.shared))
        pool = {name: set() for name in result}
        picks = {name: set() for name in result}
        for column in columns:
            for at, best in enumerate(column.ranking.serves().tolist()):
                if best >= 0:
                    pool[column.ranking.subtasks[best]].add(at)
                    picks[column.ranking.subtasks[best]].update({at} if column.picked[at] else set())
        assert result == {name: (len(picks[name]), len(pool[name])) for name in pool}
        assert result


def test_subtasks_are_offered_where_there_are_several_and_a_method_looks_at_them(opened):
    assert not filters.subtasks_of(compare(*opened, ["random"], "25%", Choices()))
    one = Choices(without_subtasks=opened[1].subtask_names[1:])
    assert not filters.subtasks_of(compare(*opened, ["less", "bm25"], "25%", one))


def test_verdicts(opened, view):
    rows = opened[1].rows
    decided = Decisions(rows[:3], rows[3:5], {}, 1)
    for verdict, expected_rows in {
        ("accepted",): set(range(3)),
        ("rejected",): {3, 4},
        ("open",): set(range(5, len(rows))),
        ("rejected", "accepted"): set(range(5)),
    }.items():
        result = filters.matching(view, Filter(verdict=verdict), decided)
        assert set(np.flatnonzero(result).tolist()) == expected_rows


def test_an_area_of_the_norms(opened, view):
    store, _ = opened
    metrics = store.metrics()
    norm = metrics[metrics["epoch"] == "epoch-2"].set_index("row")["grad_norm"]
    middle = float(np.log10(np.median(norm)))
    area = Area.of_box("epoch-2", "grad_norm", -1.0, 6.0, middle, 9.0)
    result = filters.matching(view, Filter(area=str(area)), NOTHING)
    level = round(middle, 3)
    assert result.tolist() == expected(opened, lambda row, _: np.log10(norm[row.name]) >= level)
    assert 0 < result.sum() < len(result)
    assert filters.matching(view, Filter(area="nonsense"), NOTHING).all()
    assert filters.matching(view, Filter(area=str(area).replace("epoch-2", "epoch-77")), NOTHING).all()


def test_filters_are_joined_by_and(opened, view):
    source = filters.facets_of(view)["source"].values[:1]
    one = filters.matching(view, Filter(source=source), NOTHING)
    two = filters.matching(view, Filter(length="8-"), NOTHING)
    both = filters.matching(view, Filter(source=source, length="8-"), NOTHING)
    assert (both == (one & two)).all()


@pytest.mark.parametrize("sort", filters.SORTS)
@pytest.mark.parametrize("scope", filters.SCOPES)
def test_orders(opened, comparison, sort, scope, view):
    store, scoring = opened
    pool = store.pool().loc[scoring.rows]
    norms = store.metrics().groupby("row")["grad_norm"].mean().loc[scoring.rows].to_numpy()
    column = comparison.columns[0]
    keys = {
        "rank": column.ranking.rank,
        "score": -column.ranking.score,
        "long": -pool["n_answer_tokens"].to_numpy(),
        "short": pool["n_answer_tokens"].to_numpy(),
        "norm": -norms,
    }
    result = np.arange(len(scoring.rows)) % 3 > 0
    shown = filters.listed(view, column, Filter(sort=sort, scope=scope), result)
    expected_rows = [at for at in range(len(result)) if result[at] and (scope == "pool" or column.picked[at])]
    assert shown.tolist() == sorted(expected_rows, key=lambda at: (keys[sort][at], column.ranking.rank[at]))


def test_the_union_of_columns_counts_a_row_once(opened, comparison):
    n = len(opened[1].rows)
    lists = [filters.base(comparison, column, Filter()) for column in comparison.columns]
    assert (filters.union(lists, n) == (comparison.shared > 0)).all()


@pytest.mark.parametrize(("low", "high", "text"), [(None, None, ""), (3, None, "3-"), (None, 9, "-9"), (0, 0, "0-0")])
def test_a_range_as_the_address_has_it(low, high, text):
    assert filters.written_length(low, high) == text


def test_commas_and_percent_signs_in_names_survive_the_address():
    names = ["a,b", "50% %2C", "ক খ"]
    text = address.encoded(names)
    assert text.count(",") == 2
    assert address._read(text, names, []) == names


class TestMarks:
    def test_hits_are_found_whatever_their_case_and_only_in_the_role(self):
        marks = highlights.Marks(highlights.search_pattern('CAT "the mat"'), "user")
        text = "The cat sat on The Mat, Concat."
        assert [text[a:b] for a, b, _ in marks.spans("user", text)] == ["cat", "The Mat", "cat"]
        assert marks.first("user", text) == 4
        assert marks.spans("assistant", text) == []
        assert marks.first("assistant", text) == -1

    def test_a_search_of_signs_is_no_pattern(self):
        marks = highlights.Marks(highlights.search_pattern(".* ( ["))
        assert [kind for *_, kind in marks.spans("user", "a.*b([")] == [highlights.HIT] * 3
        assert highlights.search_pattern("  ") is None

    def test_marks_never_overlap_and_the_hit_wins(self):
        marks = highlights.Marks(highlights.search_pattern("river"), "any", ("rivers", "bank"))
        spans = marks.spans("user", "Rivers and a bank by the rivers")
        assert [(kind, end - start) for start, end, kind in spans] == [("gs-hit", 5), ("gs-word", 4), ("gs-hit", 5)]

    def test_bm25s_words_are_those_of_the_subtask_that_won(self, opened, comparison, view):
        from gradsift.text.words import tokenize

        store, scoring = opened
        column = next(column for column in comparison.columns if column.method == "bm25")
        for at in column.picks[:8].tolist():
            conversation = store.texts(scoring.rows[[at]])["conversation"][0]
            won = column.ranking.subtasks[column.ranking.best_subtask[at]]
            targets = [pairs(target.messages) for target in scoring.targets if target.subtask == won]
            theirs = {word for turns in targets for _, text in turns for word in tokenize(text)}
            shared = theirs & {word for _, text in pairs(conversation.messages) for word in tokenize(text)}
            result = highlights.matched(view, column, at, conversation)
            weights = scoring.word_weights
            assert result == sorted(shared & set(weights), key=lambda w: (-weights[w], w))[: len(result)]
            assert bool(result) == bool(shared & set(weights))

    def test_weights_are_rank_bm25s(self, opened):
        from rank_bm25 import BM25Okapi

        from gradsift.text.words import tokenize

        store, scoring = opened
        turns = [pairs(conversation.messages) for conversation in store.texts(scoring.rows)["conversation"]]
        texts = ["\n".join(text for _, text in row) for row in turns]
        index = BM25Okapi([tokenize(text) for text in texts])
        assert scoring.word_weights
        for word, weight in scoring.word_weights.items():
            assert weight == pytest.approx(index.idf[word])


def test_a_comparison_is_made_once_and_another_budget_is_another_one(opened):
    first = compare(*opened, ["less", "random"], "25%", Choices())
    assert compare(*opened, ["less", "random"], "25%", Choices()) is first
    assert compare(*opened, ["less"], "25%", Choices()) is not first
    accepted = Choices(accepted=first.rows[first.columns[0].ranking.order[-1:]].tolist())
    for budget, choices in (("50%", Choices()), ("25%", accepted)):
        other = compare(*opened, ["less", "random"], budget, choices)
        assert other.columns[0].picks.tolist() != first.columns[0].picks.tolist()


def as_browser(at, key: str, chosen: list[str]) -> list[str]:
    """Run the page while a browser holds these labels as a multiselect's values; returns what it holds then."""
    states, id = at._tree.get_widget_states(), at.multiselect(key=key).proto.id
    next(state for state in states.widgets if state.id == id).string_array_value.data[:] = chosen
    at._run(states)
    assert not at.exception, at.exception
    sent = at.multiselect(key=key).proto
    return list(sent.raw_values) if sent.set_value else chosen


def test_a_value_chosen_among_many_stays_while_the_counts_in_the_labels_change(app, scored, monkeypatch):
    monkeypatch.setattr(facets, "FEW", 1)
    at = app("compare", store="toy", targets="two", budget="5")
    first = next(shown for shown in at.multiselect(key="source").proto.options if shown.startswith("open "))
    held = as_browser(at, "source", [first])
    assert at.query_params["source"] == "open"
    for budget in ("20", "30"):
        at.query_params["budget"] = budget
        for _ in range(2):
            held = as_browser(at, "source", held)
            assert at.query_params["source"] == "open"
    assert held != [first]
