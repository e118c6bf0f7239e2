"""From scores to picks: every aggregation against naive loops, ties, budgets (method, 2.5, 3, 7.8 and 7.10)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from influences import POOLINGS, SIMILARITIES, by_hand, case, evidence_of, scoring_of, tied

from gradsift.runtime.errors import UsageError
from gradsift.selection.budget import Budget
from gradsift.selection.ranking import Ranking, rank, round_robin, scores_table


def naive_round_robin(scores, rows) -> tuple[list[int], list[int]]:
    """Each column takes the best remaining row; among equals the one with the lowest row number."""
    left, order, picker = set(range(len(scores))), [], []
    while left:
        column = len(order) % len(scores[0])
        best = max(left, key=lambda position: (scores[position][column], -rows[position]))
        left.remove(best)
        order.append(best)
        picker.append(column)
    return order, picker


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("pooling", POOLINGS)
class TestAggregations:
    SIZES = (1, 4, 2)

    def test_max_and_mean(self, tmp_path, similarity, pooling):
        rows, targets, subtask_of, weights = case(30, self.SIZES, seed=3)
        _, first = np.unique(subtask_of, return_index=True)
        appearance = np.argsort(np.argsort(first))  # subtasks are numbered in order of first appearance
        expected = by_hand(rows, targets, appearance[subtask_of], weights, similarity, pooling)
        scoring = scoring_of(tmp_path, evidence_of(rows, targets, weights), subtask_of)
        for aggregate, score in (("max", expected.max(1)), ("mean", expected.mean(1))):
            result = rank(scoring, "less", aggregate=aggregate, similarity=similarity, target_pooling=pooling)
            np.testing.assert_allclose(result.score, score, rtol=1e-4, atol=1e-5 * np.abs(score).max())
            assert result.order.tolist() == sorted(range(30), key=lambda z: -score[z])
            assert result.rank[result.order].tolist() == list(range(1, 31))
            assert result.best_subtask.tolist() == expected.argmax(1).tolist()

    def test_round_robin(self, tmp_path, similarity, pooling):
        rows, targets, subtask_of, weights = case(30, self.SIZES, seed=3)
        single = by_hand(rows, targets, np.arange(7), weights, similarity, pooling)
        scoring = scoring_of(tmp_path, evidence_of(rows, targets, weights), subtask_of)
        order, picker = naive_round_robin(single.tolist(), range(30))
        result = rank(scoring, "less", aggregate="round-robin", similarity=similarity, target_pooling=pooling)
        assert result.order.tolist() == order
        assert result.rank[order].tolist() == list(range(1, 31))
        assert result.best_subtask[order].tolist() == scoring.subtask_of[picker].tolist()
        expected = single[order, picker]
        np.testing.assert_allclose(result.score[order], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


class TestRoundRobin:
    @settings(deadline=None, max_examples=80)
    @given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 1000), st.sampled_from([2, 5, 1000]))
    def test_equals_the_naive_loop(self, n, columns, seed, values):
        """With few distinct values there are ties everywhere."""
        rng = np.random.default_rng(seed)
        scores = rng.integers(0, values, (n, columns)).astype(np.float32)
        rows = np.sort(rng.choice(10 * n, n, replace=False))
        order, picker = round_robin(scores, rows)
        expected = naive_round_robin(scores.tolist(), rows.tolist())
        assert (order.tolist(), picker.tolist()) == expected

    def test_long_runs_of_rows_already_taken(self):
        """All columns want the same rows: the stride of the search is crossed many times."""
        n = 5000
        scores = np.repeat(np.arange(n, dtype=np.float32)[:, None], 3, axis=1)
        scores[:, 2] *= -1
        order, _ = round_robin(scores, np.arange(n))
        expected = [n - 1, n - 2, 0, n - 3, n - 4, 1]
        assert order[:6].tolist() == expected
        assert sorted(order.tolist()) == list(range(n))


class TestTies:
    @pytest.mark.parametrize("aggregate", ["max", "mean", "round-robin"])
    def test_go_to_the_lower_row_number(self, tmp_path, aggregate):
        scores = [[1, 1], [2, 2], [1, 1], [2, 2], [3, 3], [1, 1]]
        rows = [3, 4, 8, 15, 16, 23]  # excluded rows leave gaps
        scoring = tied(tmp_path, scores, [0, 1], rows)
        result = rank(scoring, "bm25", aggregate=aggregate)
        assert result.rows[result.order].tolist() == [16, 4, 15, 3, 8, 23]

    def test_all_equal(self, tmp_path):
        for aggregate in ("max", "mean", "round-robin"):
            result = rank(tied(tmp_path, np.zeros((500, 3)), [0, 0, 1]), "bm25", aggregate=aggregate)
            assert result.order.tolist() == list(range(500))
            assert result.best_subtask.tolist() == (
                [0] * 500 if aggregate != "round-robin" else [0, 0, 1] * 166 + [0, 0]
            )

    def test_many_among_few_values(self, tmp_path):
        """An unstable sort shows only with many rows."""
        scores = np.random.default_rng(0).integers(0, 5, (3000, 1))
        result = rank(tied(tmp_path, scores, [0]), "bm25")
        assert result.order.tolist() == sorted(range(3000), key=lambda position: (-scores[position, 0], position))

    def test_a_larger_budget_keeps_the_picks_of_a_smaller(self, tmp_path):
        scores = np.random.default_rng(0).integers(0, 4, (60, 2))
        result = rank(tied(tmp_path, scores, [0, 1]), "bm25")
        tokens = np.full(60, 10)
        for smaller, larger in ((1, 2), (10, 30), (59, 60)):
            few, many = (Budget.parse(str(k)).take(result, tokens) for k in (smaller, larger))
            assert many[:smaller].tolist() == few.tolist()

    def test_what_is_not_a_number_never_comes_first(self, tmp_path):
        scores = [[0.1, 0.2], [np.nan, 0.5], [np.nan, np.nan], [-3, -2]]
        for aggregate in ("max", "mean", "round-robin"):
            result = rank(tied(tmp_path, scores, [0, 1]), "bm25", aggregate=aggregate)
            assert result.order[0] in (0, 1) if aggregate == "round-robin" else result.order[0] == 0
            assert set(result.order[-2:].tolist()) >= {2}


class TestRandom:
    def test_is_seeded(self, tmp_path):
        scoring = tied(tmp_path, np.zeros((200, 3)), [0, 0, 1])
        one, same, other = (rank(scoring, "random", seed=seed).order.tolist() for seed in (0, 0, 1))
        assert one == same != other
        assert sorted(one) == list(range(200))

    def test_unknown_method(self, tmp_path):
        with pytest.raises(UsageError, match="no method 'luck'"):
            rank(tied(tmp_path, np.zeros((2, 1)), [0]), "luck")


class TestBudget:
    def ranking(self, n: int) -> Ranking:
        order = np.arange(n)[::-1]
        return Ranking("less", np.arange(n), np.arange(n, dtype=float), n - np.arange(n), np.zeros(n, int), order)

    @pytest.mark.parametrize(
        ("text", "n", "count"),
        [
            ("5%", 100, 5),
            ("5%", 119, 5),
            ("5%", 3, 1),
            ("100%", 7, 7),
            ("0.29%", 10000, 29),
            ("32.3%", 1000, 323),  # 322.99... in floating point
            ("33.3%", 10, 3),
            ("20", 100, 20),
            ("20", 7, 7),
            ("1,000", 2000, 1000),
            (" 12 % ", 100, 12),
        ],
    )
    def test_rows_and_shares(self, text, n, count):
        picks = Budget.parse(text).take(self.ranking(n), np.ones(n))
        assert picks.tolist() == list(range(n))[::-1][:count]

    def test_every_whole_percentage_of_every_small_pool_is_rounded_down(self):
        for n in range(1, 120):
            for percent in range(1, 101):
                assert len(Budget(percent, "%").take(self.ranking(n), np.ones(n))) == max(1, n * percent // 100)

    def test_tokens(self):
        ranking, tokens = self.ranking(5), np.array([100, 7, 20, 30, 50])  # from best: 50, 30, 20, 7, 100
        for amount, count in ((50, 1), (79, 1), (80, 2), (100, 3), (106, 3), (107, 4), (207, 5), (10**9, 5)):
            assert len(Budget.parse(f"{amount}tokens").take(ranking, tokens)) == count
        with pytest.raises(UsageError, match="49 tokens is less than the best row's 50"):
            Budget.parse("49 tokens").take(ranking, tokens)

    @pytest.mark.parametrize(
        "text",
        ["", "0", "0%", "-5", "5.5", "101%", "nan", "inf%", "1e3", "ten", "5%%", "5 rows", "0tokens", "2,5%", "1,00"],
    )
    def test_nonsense(self, text):
        with pytest.raises(UsageError, match="budget"):
            Budget.parse(text)

    @pytest.mark.parametrize("text", ["5%", "0.5%", "33.333337%", "200", "50000tokens"])
    def test_is_written_as_it_is_read(self, text):
        assert str(Budget.parse(text)) == text
        assert Budget.parse(str(Budget.parse(text))) == Budget.parse(text)


def test_table_names_every_row_by_its_own_id(tiny_store, tiny_targets):
    """Ids, sources and scores stay with their rows, though excluded rows make numbers and positions differ."""
    from gradsift.data.targets import read_targets
    from gradsift.scoring.score_targets import score_targets

    scoring = score_targets(tiny_store, read_targets(tiny_targets).rows)
    rankings = [rank(scoring, "less"), rank(scoring, "bm25")]
    table = scores_table(tiny_store, scoring, rankings)
    pool = tiny_store.pool()
    assert len(table) == 2 * len(scoring.rows)
    assert set(table["row"]).isdisjoint(pool.index[pool["status"] == "excluded"])
    for ranking in rankings:
        mine = table[table["method"] == ranking.method].set_index("row")
        assert mine["id"].tolist() == pool.loc[mine.index, "id"].tolist()
        assert mine.sort_values("rank")["score"].is_monotonic_decreasing
        assert mine.loc[ranking.rows[ranking.order[0]], "rank"] == 1
        assert set(mine["best_subtask"]) <= {"boxes", "cats"}
