"""Norms against length, bins, correlations and areas, compared with plain loops."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsift.analysis.norms import KINDS, MOST_CELLS, Area, binned, correlation, correlations, norm_table, side_by_side
from gradsift.analysis.summary import norm_length_correlation
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError


def pearson(x: list[float], y: list[float]) -> float:
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


class TestTable:
    def test_holds_the_logarithms_of_every_scored_row(self, tiny_store: Store) -> None:
        table, metrics, pool = norm_table(tiny_store), tiny_store.metrics(), tiny_store.pool()
        assert list(table) == tiny_store.epochs
        for epoch, frame in table.items():
            assert frame.index.tolist() == list(range(len(tiny_store.scored_rows)))
            assert np.isfinite(frame[["length", *KINDS]]).all(axis=None)
            known = metrics[metrics["epoch"] == epoch].set_index("row")
            for position, row in enumerate(tiny_store.scored_rows.tolist()):
                assert frame["source"][position] == pool["source"][row]
                assert frame["length"][position] == pytest.approx(math.log10(pool["n_answer_tokens"][row]))
                for kind in KINDS:
                    assert frame[kind][position] == pytest.approx(math.log10(known[kind][row]), abs=1e-6)

    def test_leaves_out_rows_that_are_not_scored_and_marks_norms_of_zero(self, tiny_copy: Store) -> None:
        start, stop = tiny_copy.shard_ranges[1]
        columns = {name: np.full(stop - start, 2, dtype=np.float32) for name in (*KINDS, "loss")}
        columns["grad_norm"][:2] = [0, np.nan]
        tiny_copy.write_metrics(0, 1, columns, 0)
        table = norm_table(Store.open(tiny_copy.path))
        assert {len(frame) for frame in table.values()} == {len(tiny_copy.rows) - 1}
        norms = table["epoch-1"]["grad_norm"].tolist()
        assert math.isnan(norms[start])
        assert norms[start + 1 : stop - 1] == pytest.approx([math.log10(2)] * (stop - start - 2))


class TestCorrelation:
    def test_of_a_store_by_epoch_source_and_kind(self, tiny_store: Store) -> None:
        table = norm_table(tiny_store)
        found = correlations(table)
        assert found.columns.tolist() == ["epoch", "source", "kind", "rows", "r"]
        assert len(found) == 2 * 3 * 2
        for line in found.itertuples():
            frame = table[line.epoch]
            frame = frame[frame["source"] == line.source] if line.source else frame
            assert line.rows == len(frame)
            assert line.r == pytest.approx(pearson(frame["length"].tolist(), frame[line.kind].tolist()))

    def test_is_the_one_that_inspect_prints(self, tiny_store: Store) -> None:
        found = correlations(norm_table(tiny_store))
        overall = found[(found["source"] == "") & (found["kind"] == "grad_norm")]
        assert dict(zip(overall["epoch"], overall["r"], strict=True)) == norm_length_correlation(tiny_store)

    def test_is_none_where_it_means_nothing(self) -> None:
        some, gaps = np.array([1.0, 2.0, 4.0]), np.array([1.0, np.nan, np.nan])
        assert correlation(some, some) == pytest.approx(1)
        assert correlation(some, -some) == pytest.approx(-1)
        assert correlation(some, gaps) is None
        assert correlation(np.ones(3), some) is None
        assert correlation(some, np.ones(3)) is None

    def test_skips_missing_norms_and_sources_that_do_not_vary(self) -> None:
        frame = pd.DataFrame(
            {
                "source": ["a", "a", "a", "b"],
                "length": [0.0, 1.0, 2.0, 1.0],
                "grad_norm": [2.0, 1.0, np.nan, 3.0],
                "update_norm": [3.0, 2.0, 1.5, np.nan],
            }
        )
        found = correlations({"epoch-1": frame}).set_index(["source", "kind"])
        assert found.loc[("", "grad_norm"), "rows"] == 3
        assert found.loc[("a", "grad_norm"), "r"] == pytest.approx(-1)
        assert found.loc[("a", "update_norm"), "r"] == pytest.approx(pearson([0, 1, 2], [3, 2, 1.5]))
        assert math.isnan(found.loc[("b", "grad_norm"), "r"])
        assert found.loc[("b", "update_norm"), "rows"] == 0


def cloud(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.log10(rng.integers(1, 500, n))
    return x, rng.normal(size=n) - 0.5 * x, np.array(["one", "two", "three"], dtype=object)[rng.integers(3, size=n)]


def held(line, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which rows lie within the edges of a line's cell, (n,) bool."""
    return (line.x0 <= x) & (x < line.x1) & (line.y0 <= y) & (y < line.y1)


class TestBins:
    @pytest.mark.parametrize("bins", [1, 7, 60])
    def test_count_every_row_once_within_its_edges(self, bins: int) -> None:
        x, y, groups = cloud()
        x[3], y[5] = np.nan, -np.inf
        table = binned(x, y, groups, bins)
        counted = np.zeros(400, dtype=int)
        for line in table.itertuples():
            inside = held(line, x, y) & (groups == line.group)
            assert line.rows == inside.sum() > 0
            counted += inside
            assert line.x0 < line.x < line.x1
            assert line.y0 < line.y < line.y1
        assert np.flatnonzero(counted != 1).tolist() == [3, 5]
        assert counted.sum() == 398
        assert max(table["x0"].nunique(), table["y0"].nunique()) <= bins

    def test_the_area_of_a_cell_holds_its_rows_and_no_others(self) -> None:
        x, y, groups = cloud()
        for line in binned(x, y, groups, 9).itertuples():
            area = Area.of_box("epoch-1", "grad_norm", line.x0, line.x1, line.y0, line.y1)
            again = Area.parse(str(area))
            assert again.inside(x, y).tolist() == held(line, x, y).tolist()

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.integers(-4000, 4000), min_size=1, max_size=30), st.integers(1, 80))
    def test_hold_rows_that_lie_on_thousandths(self, thousandths: list[int], bins: int) -> None:
        x = np.array(thousandths) / 1000
        table = binned(x, -x, np.full(len(x), "a"), bins)
        counts = [held(line, x, -x) for line in table.itertuples()]
        assert table["rows"].tolist() == [inside.sum() for inside in counts]
        assert (np.sum(counts, axis=0) == 1).all()

    def test_a_grid_with_too_many_cells_is_made_coarser(self) -> None:
        rng = np.random.default_rng(0)
        x, y, groups = rng.random(40_000), rng.random(40_000), rng.integers(50, size=40_000).astype(str)
        found = binned(x, y, groups)
        assert 1000 < len(found) <= MOST_CELLS
        assert found["rows"].sum() == 40_000

    def test_nothing_to_draw(self) -> None:
        assert binned(np.full(3, np.nan), np.ones(3), np.array(["a", "b", "a"])).empty


def crossings(vertices: list[tuple[float, float]], x: float, y: float) -> bool:
    """The even-odd rule, one edge at a time."""
    inside = False
    for (x0, y0), (x1, y1) in zip(vertices, vertices[1:] + vertices[:1], strict=True):
        if min(y0, y1) <= y < max(y0, y1) and x < x0 + (x1 - x0) * (y - y0) / (y1 - y0):
            inside = not inside
    return inside


corner = st.tuples(st.integers(-3000, 3000), st.integers(-3000, 3000))


class TestArea:
    @settings(deadline=None, max_examples=60)
    @given(st.lists(corner, min_size=3, max_size=12, unique=True), st.integers(0, 99))
    def test_inside_equals_a_loop_for_any_polygon(self, corners: list[tuple[int, int]], seed: int) -> None:
        """This includes outlines that cross themselves."""
        vertices = [(x / 1000, y / 1000) for x, y in corners]
        area = Area("epoch-1", "grad_norm", tuple(vertices))
        x, y = np.random.default_rng(seed).uniform(-3, 3, (2, 200))
        assert area.inside(x, y).tolist() == [crossings(vertices, *p) for p in zip(x.tolist(), y.tolist(), strict=True)]

    def test_a_triangle(self) -> None:
        area = Area.of_lasso("epoch-1", "grad_norm", [0, 2, 0], [0, 0, 2])
        x, y = np.array([0.5, 1.5, -0.1, 0.5, np.nan, 0.5]), np.array([0.5, 1.5, 0.5, -0.1, 0.5, np.nan])
        assert area.inside(x, y).tolist() == [True, False, False, False, False, False]

    def test_boxes_that_touch_share_no_point_and_lose_none(self) -> None:
        steps = [-1.0, -0.25, 0.0, 0.067, 1.1]
        boxes = [
            Area.of_box("epoch-1", "grad_norm", *across, *up)
            for across, up in itertools.product(itertools.pairwise(steps), repeat=2)
        ]
        x, y = (grid.ravel() for grid in np.meshgrid([*steps[:-1], 0.5, -0.5], [*steps[:-1], 0.5, -0.5]))
        assert sum(box.inside(x, y).astype(int) for box in boxes).tolist() == [1] * len(x)
        assert not any(box.inside(np.array([1.1, 0.0]), np.array([0.0, 1.1])).any() for box in boxes)

    def test_comes_back_the_same_from_the_address_bar(self) -> None:
        area = Area.of_lasso("epoch-12", "update_norm", [0.12345, 2, -0.0001], [-1.5, 0.1, 2.71828])
        assert str(area) == "epoch-12;update_norm;0.123,-1.500;2.000,0.100;0.000,2.718"
        assert Area.parse(str(area)) == area
        assert Area.parse("epoch-1;grad_norm;1.00,0.20;1.50,0.20;1.5,0.9").vertices == (
            (1, 0.2),
            (1.5, 0.2),
            (1.5, 0.9),
        )

    def test_a_long_line_keeps_its_shape_with_few_corners(self) -> None:
        turn = np.linspace(0, 2 * np.pi, 1000)
        area = Area.of_lasso("epoch-1", "grad_norm", np.cos(turn).tolist(), np.sin(turn).tolist())
        assert len(area.vertices) == 60
        assert Area.parse(str(area)) == area
        assert len(str(area)) < 1000
        x, y = np.random.default_rng(0).uniform(-1.2, 1.2, (2, 5000))
        assert (area.inside(x, y) == (np.hypot(x, y) < 1)).mean() > 0.995

    def test_corners_drawn_twice_count_once(self) -> None:
        area = Area.of_lasso("epoch-1", "grad_norm", [0, 0, 1, 1, 0], [0, 0.0001, 0, 1, 0])
        assert area.vertices == ((1, 0), (1, 1), (0, 0))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "epoch-1",
            "epoch-1;grad_norm",
            "epoch-1;grad_norm;0,0;1,1",
            "epoch-1;loss;0,0;1,0;1,1",
            "../epoch-1;grad_norm;0,0;1,0;1,1",
            "epoch-1\n;grad_norm;0,0;1,0;1,1",
            "epoch-1;grad_norm;0,0;1,0;1,nan",
            "epoch-1;grad_norm;0,0;1,0;1,1e3",
            "epoch-1;grad_norm;0,0;1,0;1,1000",
            "epoch-1;grad_norm;0,0;1,0;1,1;",
            "epoch-1;grad_norm;0,0;1,0;1,1,1",
            "epoch-1;grad_norm;0,0;1,0;1,١",
            "epoch-1;grad_norm" + ";0,0" * 61,
            "epoch-1;grad_norm" + ";0,0" * 9999,
        ],
    )  # fmt: skip
    def test_text_that_is_none(self, text: str) -> None:
        with pytest.raises(UsageError, match="is not an area"):
            Area.parse(text)

    @pytest.mark.parametrize(("x", "y"), [([0, 1], [0, 1]), ([0, 0, 0], [1, 1, 1]), ([0, 1, 1e9], [0, 0, 1]), ([], [])])
    def test_a_line_that_encloses_nothing_or_too_much(self, x: list[float], y: list[float]) -> None:
        with pytest.raises(UsageError, match="is not an area"):
            Area.of_lasso("epoch-1", "grad_norm", x, y)

    def test_a_corner_that_is_no_number(self) -> None:
        with pytest.raises(UsageError, match="is not a number"):
            Area.of_lasso("epoch-1", "grad_norm", [0, 1, np.nan], [0, 0, 1])


class TestSideBySide:
    def test_counts_by_hand(self) -> None:
        n_answer, norm = np.array([1, 2, 30, 40, 100]), np.array([9.0, 8.0, 3.0, 2.0, 0.0])
        found = side_by_side(np.array([4, 2, 3]), np.array([0, 1, 2, 3]), n_answer, norm).set_index("similarity")
        assert found.index.tolist() == ["cosine", "dot", "pool"]
        assert found["rows"].tolist() == [3, 4, 5]
        assert found["mean_answer"].tolist() == pytest.approx([170 / 3, 73 / 4, 173 / 5])
        assert found["median_answer"].tolist() == [40, 16, 30]
        assert found["mean_norm"].tolist() == pytest.approx([5 / 3, 22 / 4, 22 / 5])
        assert found["median_norm"].tolist() == [2, 5.5, 3]
        assert found["common"].tolist()[:2] == [2, 2]
        assert found["share"].tolist()[:2] == pytest.approx([2 / 3, 0.5])

    def test_nothing_picked(self) -> None:
        none = np.array([], dtype=np.int64)
        found = side_by_side(none, none, np.array([1, 2]), np.array([1.0, 2.0]))
        assert found["share"].tolist() == [0, 0, 0]
        assert np.isnan(found["mean_answer"][0])


def test_no_module_of_tables_needs_torch(tmp_path: Path) -> None:
    """The pages import them before anything else."""
    import subprocess
    import sys

    tables = "gradsift.analysis.norms, gradsift.analysis.distributions, gradsift.analysis.stability"
    code = f"import sys, {tables}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0
