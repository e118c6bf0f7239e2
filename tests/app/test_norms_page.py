"""Gradient norms on the toy store: picks and correlations against loops, an area in the address, limits of points."""

import math
import statistics

import numpy as np
import pandas as pd
import pytest
from figures import figures, points, table, title

from app.norms import norm_charts, section
from app.views.figures import MOST_PICKS, norm_cells, thinned
from gradsift.analysis.norms import Area
from gradsift.datastore.store import Store
from gradsift.scoring.choices import Choices
from gradsift.scoring.scoring import open_scoring
from gradsift.selection.budget import Budget
from gradsift.selection.picks import picked, ranked, read_traits


@pytest.fixture
def known(scored):
    """Store, scoring, and the pool with the norms of the last checkpoint by row."""
    store = Store.open(scored.store_path("toy"))
    scoring = open_scoring(store, next((store.path / "scorings").iterdir()))
    metrics = store.metrics()
    last = metrics[metrics["epoch"] == store.epochs[-1]].set_index("row")
    return store, scoring, store.pool().loc[scoring.rows].join(last[["grad_norm", "update_norm"]])


def opened(app, **more: str):
    return app("norms", store="toy", targets="two", **{"budget": "12", **more})


def picks(known, similarity: str) -> list[int]:
    store, scoring, _ = known
    about, choices = read_traits(store, scoring), Choices(similarity=similarity)
    ranking = ranked(scoring, "less", choices, about)
    return scoring.rows[picked(ranking, Budget.parse("12"), choices, about)].tolist()


def test_picks_by_cosine_and_by_dot_product_stand_side_by_side(app, known):
    at = opened(app)
    assert [title(figure) for figure in figures(at)] == ["Picks of LESS by cosine", "Picks of LESS by raw dot product"]
    listed = [frame.value for frame in at.dataframe if list(frame.value)[:2] == ["rank", "row"]]
    pool = known[2]
    for similarity, frame in zip(("cosine", "dot"), listed, strict=True):
        assert frame["row"].tolist() == picks(known, similarity)
        assert frame["rank"].tolist() == list(range(1, 13))
        for line in frame.itertuples():
            assert line.tokens == pool.loc[line.row, "n_answer_tokens"]
            assert line.norm == pytest.approx(pool.loc[line.row, "grad_norm"], rel=1e-5)
            assert line.source == pool.loc[line.row, "source"]
    frame = table(at, "similarity", "mean_answer").set_index("similarity")
    for name, rows in (("Cosine", picks(known, "cosine")), ("Raw dot product", picks(known, "dot"))):
        assert frame.loc[name, "mean_answer"] == pytest.approx(statistics.mean(pool.loc[rows, "n_answer_tokens"]))
        assert frame.loc[name, "mean_norm"] == pytest.approx(statistics.mean(pool.loc[rows, "grad_norm"]), rel=1e-5)
    common = len(set(picks(known, "cosine")) & set(picks(known, "dot")))
    assert any(f"{common} of 12 picks would stay" in caption.value for caption in at.caption)


def test_correlations_are_printed_overall_and_by_source(app, known):
    at = opened(app, norm="update_norm")
    frame = table(at, "grad_norm", "update_norm").set_index("source")
    for name, rows in (("All rows", known[2]), *known[2].groupby("source")):
        length = [math.log10(n) for n in rows["n_answer_tokens"]]
        for kind in ("grad_norm", "update_norm"):
            r = statistics.correlation(length, [math.log10(n) for n in rows[kind]])
            assert frame.loc[name, kind] == pytest.approx(r, abs=1e-4)
        assert frame.loc[name, "rows"] == len(rows)
    overall = frame.loc["All rows", "grad_norm"]
    assert any(f"gradient {overall:.2f}".replace("-", "−") in caption.value for caption in at.caption)


def test_shades_count_every_row_once(app, known):
    cells = table(opened(app), "tokens_from", "rows")
    assert len(cells) < len(known[2])
    store = known[0]
    grid = norm_cells(store, store.epochs[-1], "grad_norm")
    assert grid["rows"].sum() == len(known[2])


def test_sources_narrow_the_charts(app, known):
    at = opened(app, of="open")
    listed = [frame.value for frame in at.dataframe if list(frame.value)[:2] == ["rank", "row"]]
    pool = known[2]
    for similarity, frame in zip(("cosine", "dot"), listed, strict=True):
        assert frame["row"].tolist() == [row for row in picks(known, similarity) if pool.loc[row, "source"] == "open"]
    assert set(table(at, "tokens_from")["source"]) == {"open"}


def test_a_marked_area_offers_its_rows_in_compare(app, known):
    store, _, pool = known
    middle = math.log10(statistics.median(pool["n_answer_tokens"]))
    area = Area.of_box(store.epochs[-1], "grad_norm", -1, middle, -9, 9)
    inside = int((np.log10(pool["n_answer_tokens"]) < round(middle, 3)).sum())
    at = opened(app, area=str(area))
    button = at.button(key="show-area")
    assert f"{inside} rows" in button.label
    assert all(figure["layout"]["shapes"][0]["type"] == "path" for figure in figures(at))
    button.click().run()
    assert at.query_params["area"] == str(area)
    assert at.query_params["scope"] == "pool"
    assert any(f"{inside} of {len(pool)} rows" in element.value.replace("**", "") for element in at.markdown)


def test_an_area_of_another_chart_or_of_nonsense_is_dropped(app, known):
    for text in (str(Area.of_box("epoch-1", "update_norm", 0, 1, 0, 1)), "epoch-1;grad_norm;1,1", "<script>"):
        at = opened(app, area=text)
        assert "area" not in at.query_params
        assert not [button for button in at.button if button.key == "show-area"]


@pytest.mark.parametrize("method", ["bm25", "random"])
def test_methods_without_vectors_have_one_chart(app, scored, method):
    at = opened(app, method=method)
    assert len(figures(at)) == 1
    assert any("compares no vectors" in caption.value for caption in at.caption)


def test_a_store_without_targets_says_what_is_missing(app, workspace):
    at = app("norms", store="toy")
    assert not at.get("plotly_chart")
    assert any("No targets yet" in html.value for html in at.html)


def test_points_stay_few_and_thinning_is_said():
    rng = np.random.default_rng(0)
    from gradsift.analysis.norms import binned

    x, y = rng.normal(size=(2, 300_000))
    cells = binned(x, y, rng.integers(12, size=len(x)).astype(str))
    lines = pd.DataFrame({"row": np.arange(9000), "source": "a", "length": x[:9000], "norm": y[:9000]})
    lines["rank"] = np.arange(1, 9001)
    chart = norm_charts.picks("n", "Picks", "less", norm_charts.grid(cells), lines, "grad_norm", None)
    assert points(chart.figure.to_plotly_json()) <= 20_000
    marks = next(trace for trace in chart.figure.data if trace.type == "scatter")
    assert len(marks.x) == MOST_PICKS
    assert marks.customdata[0][0] == 0
    assert marks.customdata[-1][0] == 8999
    assert len(chart.figure.to_json()) < 1_000_000
    assert len(chart.table) == 9000
    frame = pd.DataFrame({"grad_norm": y})
    note = section._note(lines, frame, "grad_norm", np.ones(len(frame), dtype=bool))
    assert note == "600 of 9,000 picks are drawn, evenly over the ranks."
    frame.loc[3, "grad_norm"] = np.nan
    assert "1 row with a norm of 0" in section._note(lines, frame, "grad_norm", np.ones(len(frame), dtype=bool))


def test_thinned_keeps_the_first_and_the_last():
    assert thinned(np.arange(5), 10).tolist() == [0, 1, 2, 3, 4]
    assert thinned(np.arange(100), 4).tolist() == [0, 33, 66, 99]


def test_the_picks_inside_an_area_are_those_of_the_similarity_that_is_chosen(app, known):
    store, _, pool = known
    only = [row for row in picks(known, "dot") if row not in picks(known, "cosine")]
    assert only
    last = pool.loc[only[0]]
    length, norm = math.log10(last["n_answer_tokens"]), math.log10(last["grad_norm"])
    area = Area.of_box(store.epochs[-1], "grad_norm", length - 0.01, length + 0.01, norm - 0.01, norm + 0.01)
    lengths, norms_of = np.log10(pool["n_answer_tokens"]), np.log10(pool["grad_norm"])
    inside = area.inside(lengths.to_numpy(), norms_of.to_numpy())
    counts = {}
    for similarity in ("cosine", "dot"):
        counts[similarity] = int(inside[pool.index.isin(picks(known, similarity))].sum())
        at = opened(app, similarity=similarity, area=str(area))
        assert f"{counts[similarity]} of them picked by LESS" in [caption.value for caption in at.caption]
    assert counts["cosine"] < counts["dot"]
