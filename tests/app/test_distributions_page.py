"""Distributions on real scores of the toy model: every section, its numbers against loops, many subtasks, clicks."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from figures import figures, points, table, title

from app.distributions import sections as distributions
from app.distributions import target_charts
from app.views import comparison as comparing
from app.views import figures as charting
from app.widgets import charts, tables
from gradsift.analysis.stability import SplitHalf, rank_intervals, split_half
from gradsift.data.targets import parse_targets, read_targets
from gradsift.datastore.store import Store
from gradsift.scoring.methods import METHODS
from gradsift.scoring.score_targets import score_targets
from gradsift.scoring.scoring import open_scoring
from gradsift.selection.choices import Choices

MOST = 20_000


@pytest.fixture
def view(scored):
    """What the page sees at a budget of 10 rows."""
    store = Store.open(scored.store_path("toy"))
    scoring = open_scoring(store, next((store.path / "scorings").iterdir()))
    comparison = comparing.compare(store, scoring, list(METHODS), "10", Choices())
    return charting.View(store, scoring, comparison, "10", Choices())


def opened(app, section: str, **more: str):
    return app("distributions", store="toy", targets="two", **{"budget": "10", "chart": section, **more})


def label(method: str) -> str:
    return METHODS[method].label


@pytest.mark.parametrize("section", distributions.SECTIONS)
def test_every_section_is_drawn_with_words_numbers_and_a_picture(app, scored, section):
    at = opened(app, section)
    if section == "enough":
        at.button(key="resample").click().run()
    found = at.get("plotly_chart")
    assert found
    assert not at.exception
    for chart, figure in zip(found, figures(at), strict=True):
        assert title(figure)
        assert figure["layout"]["title"]["subtitle"]["text"]
        assert len(chart.proto.alt) > 30
        assert '"toImage"' in chart.proto.config
        assert points(figure) <= MOST
    assert len(at.get("download_button")) == len(found)
    assert len(at.dataframe) >= len(found)


def test_only_the_open_section_runs(app, scored):
    at = opened(app, "scores")
    assert [title(figure) for figure in figures(at)] == ["Score by rank"]
    at.query_params["chart"] = "lengths"
    at.run()
    assert [title(figure) for figure in figures(at)] == ["Answer lengths of the picks", "Answer lengths in bins"]


def test_shares_are_counted(app, view):
    found = table(opened(app, "sources"), "lift")
    pool = view.store.pool().loc[view.scoring.rows]
    everywhere = Counter(pool["source"])
    for method, picks in view.picks.items():
        here = Counter(pool["source"].to_numpy()[picks].tolist())
        lines = found[found["method"] == label(method)].set_index("source")
        assert lines["rows"].to_dict() == {source: here[source] for source in everywhere}
        for source, count in everywhere.items():
            assert lines.loc[source, "share"] == pytest.approx(here[source] / 10)
            assert lines.loc[source, "lift"] == pytest.approx(here[source] / 10 / (count / len(pool)))


def test_lengths_are_those_of_the_picks(app, view):
    at = opened(app, "lengths")
    found = table(at, "mean_answer").set_index("method")
    answer = view.store.pool()["n_answer_tokens"]
    for method, picks in view.picks.items():
        tokens = sorted(int(answer[row]) for row in view.scoring.rows[picks])
        assert found.loc[label(method), "mean_answer"] == pytest.approx(sum(tokens) / 10)
        assert found.loc[label(method), "answer_50"] == pytest.approx((tokens[4] + tokens[5]) / 2)
    bins = table(at, "density")
    assert bins.groupby("method")["rows"].sum().to_dict() == {
        **dict.fromkeys(map(label, METHODS), 10),
        "Whole pool": len(view.scoring.rows),
    }


def test_overlaps_are_those_of_the_sets(app, view):
    at = opened(app, "overlap")
    sets = {method: set(picks.tolist()) for method, picks in view.picks.items()}
    for line in table(at, "jaccard").itertuples():
        one, other = (next(sets[m] for m in METHODS if label(m) == name) for name in (line.method, line.other))
        assert line.rows == len(one & other)
        assert line.jaccard == pytest.approx(len(one & other) / len(one | other))
    drawn = {trace.get("name", "") for trace in figures(at)[1]["data"]}
    assert {name.partition(" ")[2] for name in drawn} == {"chance", *(label(m) for m in METHODS if m != "less")}
    assert "LESS" in title(figures(at)[1])


def test_scores_are_those_of_the_ranking(app, view):
    at = opened(app, "scores")
    number = next(iter(at.get("pagination")), None)
    assert number is not None or len(table(at, "score"))
    column = view.comparison.columns[0]
    shown = table(at, "score")
    shown = shown[shown["method"] == label(column.method)]
    for line in shown.itertuples():
        assert line.score == pytest.approx(sorted(column.ranking.score.tolist(), reverse=True)[line.rank - 1])


def test_subtasks_are_counted_by_source(app, view):
    found = table(opened(app, "subtasks"), "subtask", "rows")
    column = next(column for column in view.comparison.columns if column.method == "less")
    expected: Counter = Counter()
    for position in column.picks.tolist():
        assert column.ranking.score[position] != 0
        subtask = view.scoring.subtask_names[column.ranking.best_subtask[position]]
        expected[subtask, view.columns.source[position]] += 1
    assert {(s, o): n for s, o, n in found[["subtask", "source", "rows"]].to_numpy().tolist() if n} == dict(expected)
    assert set(found["subtask"]) == set(view.scoring.subtask_names)


def test_single_targets_keep_their_numbers_when_others_are_left_out(app, view):
    at = opened(app, "targets", without="s0")
    assert not at.exception
    assert set(table(at, "similarity")["target"]) == {2}
    assert set(table(at, "similarity")["subtask"]) == {"sums"}
    full = charting.target_curves(view, "less")
    part = view.scoring.evidence("less")
    for target in (0, 1):
        cosines = sum(p.weight * p.products[:, target] / p.gram[target, target] ** 0.5 for p in part)
        lines = full[full["target"] == target].set_index("rank")["similarity"]
        assert lines[1] == pytest.approx(float(cosines.max()), abs=1e-6)
        assert lines[len(cosines)] == pytest.approx(float(cosines.min()), abs=1e-6)


def test_are_my_targets_enough_waits_for_the_button_and_says_what_it_means(app, view):
    at = opened(app, "enough")
    assert not at.get("plotly_chart")
    at.button(key="resample").click().run()
    half = split_half(view.scoring, "less", 10, Choices())
    assert table(at, "overlap")["overlap"].tolist() == pytest.approx(half.overlaps.tolist())
    said = next(html.value for html in at.html if 'class="gs-verdict' in html.value)
    assert f"share {half.mean:.0%} of their best 10 rows" in said
    assert "2 subtasks have one example only" in said
    found = table(at, "stays", "rank")
    known = rank_intervals(view.scoring, "less", view.picks["less"], Choices()).set_index("row")
    assert sorted(found["row"]) == sorted(known.index)
    assert found["stays"].is_monotonic_increasing
    for line in found.itertuples():
        assert line.stays == pytest.approx(known.loc[line.row, "stays"])
        assert (line.low, line.high) == (known.loc[line.row, "low"], known.loc[line.row, "high"])


@pytest.mark.parametrize(("mean", "word"), [(0.9, "are steady"), (0.6, "the rest are not"), (0.2, "happened to give")])
def test_the_verdict_follows_what_halves_share_beyond_chance(mean, word):
    half = SplitHalf(10, np.array([mean]), mean, mean, mean, 0.1)
    stays = pd.DataFrame({"stays": [1.0, 0.95, 0.3]})
    headline, text = distributions.verdict(half, stays, ["a", "a", "b", "b"])
    assert word in headline
    assert "2 of 3 picks" in text
    assert "one example only" not in text


def test_resampling_that_is_not_offered_is_said(app, scored):
    at = opened(app, "enough", aggregate="round-robin")
    at.button(key="resample").click().run()
    assert "not offered for round-robin" in at.info[0].value.replace("\\", "")
    assert not at.exception


def test_random_alone_has_no_targets_to_look_at(app, scored):
    for section in ("subtasks", "targets", "enough"):
        at = opened(app, section, methods="random")
        assert not at.get("plotly_chart")
        assert any("looks at the targets" in html.value for html in at.html)
    assert any("overlaps with nothing" in html.value for html in opened(app, "overlap", methods="random").html)


def test_two_hundred_subtasks(app, workspace):
    text = "\n\n".join(f"Subtask: kind {n}\nQ: How much is {n} and one?\nA: {n + 1}." for n in range(200))
    workspace.save_targets("many", parse_targets(text).rows)
    rows = read_targets(workspace.target_set("many").path).rows
    score_targets(Store.open(workspace.store_path("toy")), rows, ["less"])
    for section in ("subtasks", "targets"):
        at = app("distributions", store="toy", targets="many", budget="100%", chart=section)
        assert not at.exception
        (figure,) = figures(at)
        assert points(figure) <= MOST
        assert len(at.get("plotly_chart")[0].proto.spec) < 1_500_000
    at.multiselect(key="highlight").set_value(["s3", "t7"]).run()
    assert [trace["name"] for trace in figures(at)[0]["data"]] == [
        "198 others",
        "subtask kind 3",
        "example 8 (kind 7)",
    ]


@pytest.mark.parametrize(("clicked", "expected"), [(["open", "less"], {}), (["open", ""], {"scope": "pool"})])
def test_a_click_on_a_bar_opens_compare(app, scored, clicked, expected):
    at = opened(app, "sources")
    bars = [mark for trace in figures(at)[0]["data"] for mark in trace["customdata"]]
    assert clicked in [mark[:2] for mark in bars]
    at.session_state["clicked-chart-sources"] = clicked
    at.run()
    assert {name: at.query_params[name] for name in ("source", "scope") if name in at.query_params} == {
        "source": "open",
        **expected,
    }


def test_a_click_on_a_subtasks_cell_opens_its_rows_in_compare(app, view):
    at = opened(app, "subtasks")
    cells = [mark for trace in figures(at)[0]["data"] for mark in trace.get("customdata", [])]
    source, _, subtask, *_, rows = next(cell for cell in cells if cell[-1])
    at.session_state["clicked-chart-subtasks"] = [source, "less", subtask, source, subtask, rows]
    at.run()
    assert at.query_params["source"] == source
    assert at.query_params["subtask"] == subtask
    assert "scope" not in at.query_params
    at.switch_page("../pages/compare.py").run()
    shown = at.session_state["board_of"]  # what the board was drawn for
    assert (shown[0].source, shown[0].subtask) == ((source,), (subtask,))
    assert at.button(key=f"chip_subtask_{subtask}")


def test_a_click_on_other_sources_asks_for_those_that_the_chart_folds(app, view, monkeypatch):
    monkeypatch.setattr(target_charts, "MOST_COLUMNS", 1)
    every = comparing.compare(view.store, view.scoring, ["less"], "100%", Choices())
    table = charting.picked_by(charting.View(view.store, view.scoring, every, "100%", Choices()), "less")
    kept = pd.Series(view.columns.source).value_counts(sort=False).nlargest(1).index[0]
    subtask = table.loc[(table["rows"] > 0) & (table["source"] != kept), "subtask"].iloc[0]
    folded = table.loc[(table["rows"] > 0) & (table["source"] != kept) & (table["subtask"] == subtask), "source"]
    at = opened(app, "subtasks", budget="100%")
    at.session_state["clicked-chart-subtasks"] = [target_charts.OTHER, "less", subtask, "", "", "1"]
    at.run()
    assert at.query_params["source"].split(",") == folded.tolist()
    assert at.query_params["subtask"] == subtask


def test_a_budget_that_picks_nothing_is_said(app, scored):
    at = opened(app, "sources", budget="1tokens")
    assert "less than the best row" in at.error[0].value.replace("\\", "")


def test_many_sources_leave_the_smallest_to_the_table():
    names = np.array([f"source {n:03}" for n in range(200)], dtype=object)
    sources = np.repeat(names, np.arange(200) + 1)
    from app.distributions import charts as distribution_charts
    from gradsift.analysis.distributions import shares

    found = shares({"less": np.arange(300)}, sources)
    shown = distribution_charts._largest(found)
    assert len(shown) == distribution_charts.MOST_SOURCES
    assert "source 199" in shown
    assert "source 022" in shown  # small in the pool, large among the picks
    assert found["source"].nunique() == 200


def test_other_sources_share_a_column():
    picked = pd.DataFrame({"subtask": "a", "source": [f"s{n:02}" for n in range(14)], "rows": range(1, 15)})
    chart = target_charts.subtasks(picked, "less", picked.set_index("source")["rows"])
    names = list(chart.figure.layout.xaxis.ticktext)
    assert len(names) == target_charts.MOST_COLUMNS + 1
    assert names[-1] == target_charts.OTHER
    assert np.nansum(np.array(chart.figure.data[0].z, dtype=float)) == sum(range(1, 15))


def test_a_csv_holds_the_table_and_no_formula():
    frame = pd.DataFrame({"=x": ["=1+1", "@x", "  -a", "+", "plain\n", None], "n": [-1, 2, 3, 4, 5, 6]})
    lines = tables.csv(frame).decode().split("\n")
    assert lines[0] == "'=x,n"
    assert lines[1:5] == ["'=1+1,-1", "'@x,2", "'  -a,3", "'+,4"]


def test_names_from_data_are_no_markup_and_turn_nothing():
    assert charts.tick("<b>x</b> & y") == "&lt;b&gt;x&lt;/b&gt; &amp; y"
    assert charts.tick("a\x00b\u202ec") == "abc"
    assert charts.tick("a" * 99 + "b") == "a" * 17 + "…" + "a" * 7 + "b"
    assert charts.tick("\u202e") == "(no name)"


@pytest.mark.parametrize(("low", "high"), [(0, 0.3), (0, 2.3), (-1.2, 0.4), (2.9, 3.1), (0, 9), (-3, 6)])
def test_ticks_of_logarithmic_axes_are_round_and_few(low, high):
    at, text = charts.log_ticks(low, high)
    assert 2 <= len(at) <= 8
    assert all(low <= place <= high for place in at)
    for place, name in zip(at, text, strict=True):
        assert float(name.replace(",", "")) == pytest.approx(10**place)


def cut_at(figure) -> list[float]:
    """Where the dashed lines stand, panel by panel."""
    return [shape["x0"] for shape in figure["layout"]["shapes"]]


@pytest.mark.parametrize("choice", [{"cap": "2"}, {"also": "unique"}, {"also": "diverse"}, {}])
def test_the_last_pick_is_marked_at_its_rank(app, view, choice):
    fields = {"cap": choice.get("cap", ""), "drop_duplicates": "unique" in choice.values()}
    choices = Choices(**fields, diverse="diverse" in choice.values())
    comparison = comparing.compare(view.store, view.scoring, list(METHODS), "10", choices)
    last = {column.method: max(column.ranking.rank[column.picks].tolist()) for column in comparison.columns}
    assert "cap" not in choice or max(last.values()) > 10
    at = opened(app, "scores", **choice)
    assert cut_at(figures(at)[0]) == pytest.approx([np.log10(rank) for rank in last.values()])
    alt = at.get("plotly_chart")[0].proto.alt
    assert all(f"at its last pick, rank {rank}, " in alt for rank in last.values())
    assert cut_at(figures(opened(app, "targets", **choice))[0]) == [last["less"]]
    overlaps = opened(app, "overlap", **choice).get("plotly_chart")[1].proto.alt
    assert f"Of the best {len(comparison.columns[0].picks)}, as many as it picks: " in overlaps


@pytest.mark.parametrize("choice", [{"cap": "2"}, {"also": "unique"}, {"also": "diverse"}])
def test_targets_are_not_blamed_for_rows_that_a_choice_passes_over(app, scored, choice):
    at = opened(app, "enough", **choice)
    at.button(key="resample").click().run()
    assert not at.exception
    assert "pass rows over" in at.info[0].value
    assert not at.get("plotly_chart")


def test_only_targets_that_are_left_count_among_those_that_are_drawn_again(app, workspace):
    blocks = (("a", 1), ("a", 2), ("b", 3), ("c", 4))
    text = "\n\n".join(f"Subtask: {name}\nQ: How much is {n} and one?\nA: {n + 1}." for name, n in blocks)
    workspace.save_targets("four", parse_targets(text).rows)
    rows = read_targets(workspace.target_set("four").path).rows
    score_targets(Store.open(workspace.store_path("toy")), rows, ["less"])
    for without, examples, single in (("", 4, "2 subtasks have"), ("s1", 3, "1 subtask has"), ("t2,t3", 2, "")):
        at = app("distributions", store="toy", targets="four", budget="10", chart="enough", without=without)
        assert any(f"Draws your {examples} target examples again" in caption.value for caption in at.caption)
        at.button(key="resample").click().run()
        said = next(html.value for html in at.html if 'class="gs-verdict' in html.value)
        assert (f"{single} one example only" in said) if single else ("one example only" not in said)


def test_looking_at_a_chart_of_a_method_changes_no_export(app, scored):
    at = opened(app, "targets")
    at.session_state["of_method"] = "bm25"
    at.run()
    assert "BM25" in figures(at)[0]["layout"]["title"]["subtitle"]["text"]
    assert "method" not in at.query_params
    at.query_params.clear()
    at.switch_page("../pages/export.py").run()
    assert at.session_state["method"] == "less"
