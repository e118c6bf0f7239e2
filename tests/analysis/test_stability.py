"""Targets that count several times or not at all, against loops over vectors; split halves and rank intervals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from influences import POOLINGS, SIMILARITIES, case, evidence_of, scoring_of, tied
from reference import cosine

from gradsift.analysis import stability
from gradsift.analysis.stability import rank_intervals, resampled_scores, split_half
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError
from gradsift.scoring.choices import Choices
from gradsift.scoring.influence import influence, pooling_matrix
from gradsift.scoring.score_targets import score_targets
from gradsift.scoring.scoring import Scoring
from gradsift.selection.ranking import rank

SIZES = [1, 4, 2]


@pytest.fixture(scope="module")
def scoring(tiny_store: Store, tiny_targets: Path) -> Scoring:
    return score_targets(tiny_store, read_targets(tiny_targets).rows)


def repeated(targets, subtask_of, counts):
    """The same targets, each repeated `counts` times."""
    again = np.repeat(np.arange(len(counts)), counts)
    return [t[again] for t in targets], subtask_of[again]


def by_hand(rows, targets, subtask_of, weights, choices: Choices) -> list[float]:
    """Every row's score over the subtasks that have a target."""
    scores = []
    for z in range(len(rows[0])):
        of_subtask = []
        for j in sorted({*subtask_of.tolist()}):
            total = 0.0
            for x, t, weight in zip(rows, targets, weights, strict=True):
                mine = [t[k] for k in range(len(t)) if subtask_of[k] == j]
                mean = sum(mine) / len(mine)
                if choices.similarity == "dot":
                    total += weight * float(mean @ x[z])
                elif choices.target_pooling == "cosine-of-mean":
                    total += weight * cosine(mean, x[z])
                else:
                    total += weight * sum(cosine(one, x[z]) for one in mine) / len(mine)
            of_subtask.append(total)
        scores.append(max(of_subtask) if choices.aggregate == "max" else sum(of_subtask) / len(of_subtask))
    return scores


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("aggregate", ["max", "mean"])
class TestScores:
    def test_equal_repeated_targets(self, tmp_path, similarity, pooling, aggregate, monkeypatch) -> None:
        """Even with an empty subtask, whose score of 0 would win if all others are negative."""
        monkeypatch.setattr(stability, "_BLOCK", 7)
        rows, targets, subtask_of, weights = case(20, SIZES, epochs=3, seed=5)
        choices = Choices(aggregate=aggregate, similarity=similarity, target_pooling=pooling)
        counts = np.random.default_rng(1).integers(0, 4, (6, 7))
        counts[0] = np.where(subtask_of == 1, 0, 2)
        counts[1] = subtask_of == 0
        kept = scoring_of(tmp_path, evidence_of(rows, targets, weights), subtask_of)
        result = resampled_scores(kept, "less", counts, choices)
        assert result.dtype == np.float32
        for resample, count in enumerate(counts):
            expected = by_hand(rows, *repeated(targets, subtask_of, count), weights, choices)
            assert min(expected) < 0
            np.testing.assert_allclose(result[resample], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())

    def test_counts_of_one_give_the_ordinary_score(self, scoring, similarity, pooling, aggregate) -> None:
        choices = Choices(aggregate=aggregate, similarity=similarity, target_pooling=pooling)
        how = {"aggregate": aggregate, "similarity": similarity, "target_pooling": pooling}
        for method in ("less", "rds", "bm25"):
            result = resampled_scores(scoring, method, np.ones((1, 3), dtype=int), choices)[0]
            expected = rank(scoring, method, **how).score
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())

    def test_a_count_of_zero_equals_leaving_out(self, scoring, similarity, pooling, aggregate) -> None:
        choices = Choices(aggregate=aggregate, similarity=similarity, target_pooling=pooling)
        how = {"aggregate": aggregate, "similarity": similarity, "target_pooling": pooling}
        counts = 1 - np.eye(3, dtype=int)
        for method in ("less", "bm25"):
            result = resampled_scores(scoring, method, counts, choices)
            for k in range(3):
                expected = rank(scoring.under(Choices(without_targets=[k])), method, **how).score
                np.testing.assert_allclose(result[k], expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_counts_in_the_pooling_matrix() -> None:
    gram = np.array([[4.0, 2.0, 0.0], [2.0, 9.0, 0.0], [0.0, 0.0, 25.0]])
    subtask_of, counts = np.array([0, 0, 1]), np.array([3, 1, 0])
    result = pooling_matrix(gram, subtask_of, 2, "dot", "cosine-of-mean", counts)
    np.testing.assert_allclose(result, [[0.75, 0], [0.25, 0], [0, 0]])
    length = (9 * 4 + 9 + 2 * 3 * 2) ** 0.5 / 4
    result = pooling_matrix(gram, subtask_of, 2, "cosine", "cosine-of-mean", counts)
    np.testing.assert_allclose(result, [[0.75 / length, 0], [0.25 / length, 0], [0, 0]], rtol=1e-6)
    result = pooling_matrix(gram, subtask_of, 2, "cosine", "mean-of-cosines", counts)
    np.testing.assert_allclose(result, [[0.75 / 2, 0], [0.25 / 3, 0], [0, 0]], rtol=1e-6)
    same = pooling_matrix(gram, subtask_of, 2, "cosine", "cosine-of-mean", np.ones(3))
    np.testing.assert_array_equal(same, pooling_matrix(gram, subtask_of, 2, "cosine", "cosine-of-mean"))


class TestSplits:
    @pytest.mark.parametrize("sizes", [[1, 1], [2], [3], [1, 1, 1, 1, 1], [4, 5, 1, 6], [3, 3]], ids=str)
    def test_halves_are_even_in_every_subtask(self, sizes: list[int]) -> None:
        subtask_of = np.repeat(np.arange(len(sizes)), sizes)
        rng = np.random.default_rng(0)
        seen = [stability._half(subtask_of, rng) for _ in range(60)]
        for half in seen:
            assert abs(int(half.sum()) - int((~half).sum())) <= 1
            assert 0 < half.sum() < len(half)
            for j, size in enumerate(sizes):
                assert half[subtask_of == j].sum() in (size // 2, size - size // 2)
        assert len({tuple(half) for half in seen}) > 1
        assert np.mean(seen, axis=0) == pytest.approx(np.full(sum(sizes), 0.5), abs=0.25)  # no example is preferred

    def test_overlaps_equal_ranking_each_half_from_scratch(self, tmp_path: Path) -> None:
        rows, targets, subtask_of, weights = case(60, [4, 3, 1], epochs=2, seed=2)
        kept = scoring_of(tmp_path, evidence_of(rows, targets, weights), subtask_of)
        result = split_half(kept, "less", 9, Choices(), splits=8, seed=4)
        rng = np.random.default_rng(4)
        expected = []
        for _ in range(8):
            half = stability._half(kept.subtask_of, rng)
            sides = [kept.under(Choices(without_targets=np.flatnonzero(out).tolist())) for out in (half, ~half)]
            tops = [rank(side, "less").order[:9] for side in sides]
            expected.append(len({*tops[0].tolist()} & {*tops[1].tolist()}) / 9)
        assert result.overlaps.tolist() == pytest.approx(expected)
        assert result.mean == pytest.approx(sum(expected) / 8)
        assert [result.low, result.high] == pytest.approx(np.percentile(expected, [5, 95]))
        assert result.chance == 9 / 60
        assert len({*expected}) > 1

    def test_targets_that_agree_and_targets_that_do_not(self, tmp_path: Path) -> None:
        one = np.random.default_rng(0).permutation(400).astype(np.float32)
        agreeing = np.repeat(one[:, None], 6, axis=1)
        assert split_half(self.kept(tmp_path / "a", agreeing), "bm25", 20, Choices()).low == 1
        apart = np.random.default_rng(0).normal(size=(2000, 6))
        result = split_half(self.kept(tmp_path / "b", apart), "bm25", 400, Choices())
        assert result.mean == pytest.approx(result.chance, abs=0.03)

    def test_ties_go_to_the_lower_row(self) -> None:
        rng = np.random.default_rng(0)
        for k in (1, 5, 30, 50):
            score = rng.integers(0, 4, 50).astype(np.float32)
            best = np.argsort(-score, kind="stable")[:k]
            assert np.flatnonzero(stability._top(score, k)).tolist() == sorted(best.tolist())

    def kept(self, folder: Path, scores: np.ndarray) -> Scoring:
        folder.mkdir()
        return tied(folder, scores, [0] * scores.shape[1])

    def test_the_same_seed_gives_the_same(self, tmp_path: Path) -> None:
        apart = tied(tmp_path, np.random.default_rng(0).normal(size=(200, 6)), [0] * 6)
        one, same, other = (split_half(apart, "bm25", 40, Choices(), seed=seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one.overlaps, same.overlaps)
        assert not np.array_equal(one.overlaps, other.overlaps)


class TestIntervals:
    def test_bootstraps_keep_the_size_of_every_subtask(self) -> None:
        subtask_of = np.array([2, 0, 0, 1, 2, 2, 2])
        rng = np.random.default_rng(0)
        drawn = np.array([stability._bootstrap(subtask_of, rng) for _ in range(400)])
        for j, size in enumerate([2, 1, 4]):
            assert (drawn[:, subtask_of == j].sum(1) == size).all()
        assert drawn.mean(0) == pytest.approx(np.ones(7), abs=0.15)
        assert drawn.max() > 1

    @pytest.mark.parametrize("similarity", SIMILARITIES)
    def test_equal_ranking_every_resample_from_scratch(self, tmp_path: Path, similarity: str) -> None:
        rows, targets, subtask_of, weights = case(40, SIZES, epochs=2, seed=3)
        choices = Choices(similarity=similarity)
        kept = scoring_of(tmp_path, evidence_of(rows, targets, weights), subtask_of)
        kept = replace(kept, rows=np.arange(40) * 3 + 1)
        picks = rank(kept, "less", similarity=similarity).order[:6]
        result = rank_intervals(kept, "less", picks, choices, resamples=15, seed=7)
        rng, ranks = np.random.default_rng(7), []
        for _ in range(15):
            drawn = stability._bootstrap(kept.subtask_of, rng)
            scores = by_hand(rows, *repeated(targets, subtask_of, drawn), weights, choices)
            order = sorted(range(40), key=lambda z, scores=scores: (-scores[z], z))
            ranks.append([order.index(pick) + 1 for pick in picks])
        assert result["position"].tolist() == picks.tolist()
        assert result["row"].tolist() == (picks * 3 + 1).tolist()
        for name, percent in (("low", 5), ("median", 50), ("high", 95)):
            assert result[name].tolist() == pytest.approx(np.percentile(ranks, percent, axis=0))
        assert result["stays"].tolist() == pytest.approx((np.array(ranks) <= 6).mean(0))
        assert 0 < result["stays"].min() < 1

    def test_one_target_leaves_no_doubt_about_ties_either(self, tmp_path: Path) -> None:
        scores = np.array([[2.0], [7.0], [2.0], [7.0], [1.0]])
        result = rank_intervals(tied(tmp_path, scores, [0]), "bm25", np.array([1, 3, 0, 2]), Choices(), resamples=3)
        assert result[["low", "median", "high"]].to_numpy().tolist() == [[r] * 3 for r in (1, 2, 3, 4)]
        assert result["stays"].tolist() == [1] * 4

    def test_choices_that_leave_something_out(self, scoring: Scoring) -> None:
        left = Choices(without_targets=(0,), without_checkpoints=("epoch-1",))
        result = rank_intervals(scoring, "less", np.arange(5), left, resamples=4)
        expected = rank(scoring.under(Choices(without_targets=[0], without_checkpoints=["epoch-1"])), "less").rank[:5]
        assert result["median"].tolist() == expected.tolist()  # one example per subtask: nothing varies

    def test_no_picks(self, scoring: Scoring) -> None:
        assert rank_intervals(scoring, "less", np.array([], dtype=np.int64), Choices(), resamples=2).empty


class TestNotOffered:
    @pytest.mark.parametrize(
        ("method", "choices", "match"),
        [
            ("random", Choices(), "Random does not look at the targets"),
            ("less", Choices(aggregate="round-robin"), "not offered for round-robin"),
            ("less", Choices(length_matched=True), "length-matched"),
            ("less", Choices(cap="30%"), "these skip rows"),
            ("less", Choices(drop_duplicates=True), "these skip rows"),
            ("less", Choices(diverse=True), "these skip rows"),
        ],
    )
    def test_methods_and_choices(self, scoring: Scoring, method: str, choices: Choices, match: str) -> None:
        with pytest.raises(UsageError, match=match):
            split_half(scoring, method, 3, choices)
        with pytest.raises(UsageError, match=match):
            rank_intervals(scoring, method, np.arange(3), choices)

    def test_one_target_cannot_be_split(self, scoring: Scoring) -> None:
        with pytest.raises(UsageError, match="One target example cannot be split"):
            split_half(scoring, "less", 3, Choices(without_targets=(0, 2)))

    @pytest.mark.parametrize("k", [0, 41])
    def test_k_outside_the_pool(self, scoring: Scoring, k: int) -> None:
        with pytest.raises(UsageError, match="take 1 to 40"):
            split_half(scoring, "less", k, Choices())


def test_influence_is_what_all_ones_resample(scoring: Scoring) -> None:
    """Subtask by subtask: a resample in which the others count 0 gives that subtask's column of Eq. 2."""
    columns = influence(scoring.evidence("less"), scoring.subtask_of, 2)
    for j in range(2):
        counts = (scoring.subtask_of == j).astype(int)[None]
        np.testing.assert_allclose(resampled_scores(scoring, "less", counts, Choices())[0], columns[:, j], atol=1e-6)
