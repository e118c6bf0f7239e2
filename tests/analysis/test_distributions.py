"""Tables of what the picks consist of, against plain loops on small arrays and on a real store."""

from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from influences import case, evidence_of, scoring_of, tied
from reference import cosine

from gradsift.analysis import distributions
from gradsift.analysis.distributions import (
    MOST_POINTS,
    length_histogram,
    lengths,
    overlap,
    overlap_at_k,
    sampled_ranks,
    score_by_rank,
    shares,
    target_curves,
    winners,
)
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError
from gradsift.scoring.methods import get_method
from gradsift.scoring.score_targets import score_targets
from gradsift.selection.ranking import Ranking, rank

PICKS = {"less": np.array([5, 0, 3]), "bm25": np.array([3, 4, 2, 5]), "random": np.array([], dtype=np.int64)}
SOURCES = np.array(["talk", "facts", "facts", "talk", "facts", "cot"], dtype=object)
ANSWERS = np.array([3, 40, 17, 1, 250, 9])
PROMPTS = np.array([10, 20, 30, 40, 50, 60])


@pytest.fixture(scope="module")
def rankings(tiny_store: Store, tiny_targets: Path) -> list[Ranking]:
    scoring = score_targets(tiny_store, read_targets(tiny_targets).rows)
    return [rank(scoring, method) for method in ("less", "rds", "bm25", "random")]


class TestShares:
    def test_counts_by_hand(self) -> None:
        result = shares(PICKS, SOURCES)
        assert result.columns.tolist() == ["method", "source", "rows", "share", "pool_rows", "pool_share", "lift"]
        assert result["source"].tolist() == ["talk", "facts", "cot"] * 3
        assert result["rows"].tolist() == [2, 0, 1, 1, 2, 1, 0, 0, 0]
        assert result["share"].tolist() == pytest.approx([2 / 3, 0, 1 / 3, 1 / 4, 2 / 4, 1 / 4, 0, 0, 0])
        assert result["pool_rows"].tolist() == [2, 3, 1] * 3
        assert result["lift"].tolist() == pytest.approx([2, 0, 2, 3 / 4, 1, 3 / 2, 0, 0, 0])

    def test_of_a_store_add_up(self, tiny_store: Store, rankings: list[Ranking]) -> None:
        sources = tiny_store.pool().loc[rankings[0].rows, "source"].to_numpy()
        result = shares({ranking.method: ranking.order[:7] for ranking in rankings}, sources)
        assert (result.groupby("method")["rows"].sum() == 7).all()
        assert result.groupby("method")["share"].sum().tolist() == pytest.approx([1] * 4)
        assert result["pool_rows"].tolist() == [25, 15] * 4


class TestLengths:
    def test_numbers_by_hand(self) -> None:
        result = lengths(PICKS, PROMPTS, ANSWERS).set_index("method")
        assert result.index.tolist() == ["less", "bm25", "random", "pool"]
        assert result["rows"].tolist() == [3, 4, 0, 6]
        assert result.loc["less", "mean_answer"] == pytest.approx((9 + 3 + 1) / 3)
        assert result.loc["less", "answer_50"] == 3
        assert result.loc["pool", "answer_50"] == (9 + 17) / 2
        assert result.loc["pool", "answer_25"] == pytest.approx(3 + 0.25 * (9 - 3))
        assert result.loc["pool", "answer_95"] == pytest.approx(40 + 0.75 * 210)
        assert result.loc["bm25", "mean_prompt"] == pytest.approx((40 + 50 + 30 + 60) / 4)
        assert result["total"].tolist() == [13 + 110, 277 + 180, 0, 320 + 210]
        assert np.isnan(result.loc["random", "mean_answer"])

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.integers(1, 3000), min_size=1, max_size=60), st.integers(1, 50))
    def test_the_histogram_counts_every_row_once(self, tokens: list[int], bins: int) -> None:
        answers = np.array(tokens)
        result = length_histogram({"one": np.arange(len(tokens))[::2]}, answers, bins)
        for method, counted in (("one", tokens[::2]), ("pool", tokens)):
            lines = result[result["method"] == method]
            assert len(lines) <= bins
            assert lines["low"].tolist()[1:] == lines["high"].tolist()[:-1]
            for line in lines.itertuples():
                assert line.rows == sum(line.low <= length < line.high for length in counted)
                assert line.share == pytest.approx(line.rows / len(counted))
                assert line.density == pytest.approx(line.share / np.log10(line.high / line.low))
            assert lines["rows"].sum() == len(counted)

    def test_the_histogram_of_nothing_picked(self) -> None:
        result = length_histogram(PICKS, ANSWERS)
        assert result[result["method"] == "random"]["share"].eq(0).all()


class TestOverlap:
    def test_matrix_by_hand(self) -> None:
        result = overlap(PICKS).set_index(["method", "other"])
        assert len(result) == 9
        for one, mine in PICKS.items():
            for other, theirs in PICKS.items():
                both, either = {*mine.tolist()} & {*theirs.tolist()}, {*mine.tolist()} | {*theirs.tolist()}
                assert result.loc[(one, other), "rows"] == len(both)
                assert result.loc[(one, other), "jaccard"] == pytest.approx(len(both) / max(len(either), 1))

    def test_nothing_picked_at_all(self) -> None:
        assert overlap({"less": np.array([], dtype=np.int64)})["rows"].tolist() == [0]

    def test_at_every_k(self, rankings: list[Ranking]) -> None:
        ks = np.arange(1, len(rankings[0].rows) + 1)
        result = overlap_at_k(rankings, ks)
        assert result.groupby(["method", "other"], sort=False).ngroups == 6
        tops = {ranking.method: ranking.order.tolist() for ranking in rankings}
        for line in result.itertuples():
            assert line.rows == len({*tops[line.method][: line.k]} & {*tops[line.other][: line.k]})
            assert line.share == line.rows / line.k
        assert (result[result["k"] == ks[-1]]["share"] == 1).all()

    def test_of_one_method_alone(self, rankings: list[Ranking]) -> None:
        result = overlap_at_k(rankings[:1], np.array([1, 2]))
        assert result.empty
        assert result.columns.tolist() == ["method", "other", "k", "rows", "share"]


class TestScores:
    @settings(deadline=None, max_examples=80)
    @given(st.integers(1, 300_000), st.integers(2, 400), st.integers(1, 300_000))
    def test_sampled_ranks(self, n: int, points: int, cut: int) -> None:
        ranks = sampled_ranks(n, points, min(cut, n)).tolist()
        assert len(ranks) <= points + 1
        assert {1, min(cut, n), n} <= {*ranks}
        assert ranks == sorted({*ranks})

    def test_few_rows_are_all_there(self) -> None:
        assert sampled_ranks(40, 300).tolist() == list(range(1, 41))

    def test_score_by_rank(self, rankings: list[Ranking]) -> None:
        for ranking in rankings:
            result = score_by_rank(ranking, cut=11, points=10)
            assert {1, 11, 40} <= {*result["rank"]}
            assert result["score"].is_monotonic_decreasing
            for line in result.itertuples():
                assert line.score == ranking.score[ranking.rank == line.rank][0]
            assert result["method"].unique().tolist() == [ranking.method]

    def test_winners(self, rankings: list[Ranking]) -> None:
        for ranking in rankings:
            result = winners(ranking, ranking.order[:9], ["boxes", "cats"])
            looks = get_method(ranking.method).sees_targets
            best = [int(ranking.best_subtask[at]) for at in ranking.order[:9] if looks and ranking.score[at] != 0]
            assert result["subtask"].tolist() == ["boxes", "cats"]
            assert result["rows"].tolist() == [best.count(0), best.count(1)]
            assert result["share"].sum() == pytest.approx(len(best) / 9)

    def test_winners_of_nothing(self, rankings: list[Ranking]) -> None:
        assert winners(rankings[0], rankings[0].order[:0], ["boxes", "cats"])["share"].tolist() == [0, 0]


class TestTargetCurves:
    def test_equal_cosines_one_by_one(self, tmp_path: Path) -> None:
        rows, targets, subtask_of, weights = case(50, [1, 5, 2], epochs=3)
        result = target_curves(scoring_of(tmp_path, evidence_of(rows, targets, weights), subtask_of), "less")
        assert result.columns.tolist() == ["target", "subtask", "rank", "similarity"]
        for target in range(8):
            expected = [
                sum(w * cosine(t[target], x[z]) for x, t, w in zip(rows, targets, weights, strict=True))
                for z in range(50)
            ]
            curve = result[result["target"] == target]
            assert curve["rank"].tolist() == list(range(1, 51))
            np.testing.assert_allclose(curve["similarity"], sorted(expected, reverse=True), atol=1e-5)
            assert curve["subtask"].unique().tolist() == [f"task {subtask_of[target]}"]

    def test_many_targets_in_blocks_share_the_points(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        scores = np.random.default_rng(0).integers(0, 9, (1000, 21)).astype(np.float32)
        monkeypatch.setattr(distributions, "MOST_POINTS", 420)
        result = target_curves(tied(tmp_path, scores, [0] * 21), "bm25")
        assert len(result) <= 420 < MOST_POINTS
        assert result["target"].unique().tolist() == list(range(21))
        for line in result.itertuples():
            assert line.similarity == np.sort(scores[:, line.target])[-line.rank]
        assert result.groupby("target")["rank"].agg(["min", "max"]).drop_duplicates().to_numpy().tolist() == [[1, 1000]]

    def test_of_a_method_that_ignores_targets(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="Random does not look at the targets"):
            target_curves(tied(tmp_path, np.zeros((3, 1)), [0]), "random")


def test_tables_can_be_written_as_csv(rankings: list[Ranking]) -> None:
    """Their numbers are plain: a table read back from a file equals the one written."""
    for table in (shares(PICKS, SOURCES), lengths(PICKS, PROMPTS, ANSWERS), score_by_rank(rankings[0], 3)):
        again = pd.read_csv(StringIO(table.to_csv(index=False)))
        pd.testing.assert_frame_equal(again, table, check_dtype=False)
