"""One row's evidence, compared with loops over its vectors and with the scores that ranked it."""

import numpy as np
import pytest

from gradsift.analysis.row import best_target, by_subtask, by_target, opponents
from gradsift.data.targets import read_targets
from gradsift.datastore.shards import read_tensors
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError
from gradsift.scoring.choices import make_choices
from gradsift.scoring.influence import influence
from gradsift.scoring.score_targets import score_targets
from gradsift.scoring.scoring import Scoring
from gradsift.selection.ranking import rank


@pytest.fixture(scope="module")
def scoring(tiny_store: Store, tiny_targets) -> Scoring:
    return score_targets(tiny_store, read_targets(tiny_targets).rows)


def vectors(store: Store, scoring: Scoring, kind: str, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows' stored vectors (n, d) as read back, and the targets' (K, d)."""
    rows = np.concatenate([block.numpy() for shard in store.shards(kind, epoch) for _, block in shard.blocks()])
    side = "representation" if kind == "rds" else "gradient"
    kept, _ = read_tensors(scoring.path / f"targets-{scoring.epochs[epoch]}.safetensors")
    return rows[store.scored], kept[side].numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.astype(np.float64) @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize(("method", "kind"), [("less", "adam"), ("rds", "rds")])
def test_cosines_are_those_of_the_vectors(tiny_store, scoring, method, kind):
    sides = [vectors(tiny_store, scoring, kind, epoch) for epoch in range(2)]
    for position in (0, 7, len(scoring.rows) - 1):
        expected = [[cosine(rows[position], targets[k]) for rows, targets in sides] for k in range(3)]
        result = by_target(scoring, method, position)
        np.testing.assert_allclose(
            result[:, :2], expected, atol=2e-3
        )  # the stored rows are quantised to length 1 +- this
        np.testing.assert_allclose(result[:, 2], np.array(expected) @ scoring.weights, atol=1e-5)


@pytest.mark.parametrize("method", ["less", "rds", "bm25"])
@pytest.mark.parametrize("left_out", [(), (0,)])
def test_means_over_targets_are_the_scores_by_mean_of_cosines(scoring, method, left_out):
    left = scoring.under(make_choices(without_targets=left_out))
    scores = influence(left.evidence(method), left.subtask_of, 2, pooling="mean-of-cosines")
    for position in range(0, len(left.rows), 5):
        weighted = by_target(left, method, position)[:, -1]
        means = [weighted[left.subtask_of == j].mean() for j in range(2)]
        np.testing.assert_allclose(means, scores[position], atol=1e-6)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("checkpoints", [(), ("epoch-1",)])
def test_a_rows_subtasks_are_what_ranked_it(scoring, similarity, checkpoints):
    left = scoring.under(make_choices(without_checkpoints=checkpoints))
    ranking = rank(left, "less", similarity=similarity)
    for position in range(len(left.rows)):
        result = by_subtask(left, "less", position, similarity=similarity)
        assert result.shape == (2, len(left.epochs) + 1)
        np.testing.assert_allclose(result[:, -1], result[:, :-1] @ left.weights, rtol=1e-5, atol=1e-7)
        assert result[:, -1].max() == pytest.approx(float(ranking.score[position]), abs=1e-6)
        assert result[:, -1].argmax() == ranking.best_subtask[position]


def test_the_target_served_best_is_of_the_subtask():
    cosines = np.array([[0.0, 0.9], [0.0, 0.1], [0.0, 0.3]])
    assert best_target(cosines, np.array([0, 1, 1]), 1) == 2
    assert best_target(cosines, np.array([0, 1, 1]), 0) == 0


def test_opponents_are_the_ranking_from_below(scoring):
    ranking = rank(scoring, "less")
    order = opponents(ranking)
    assert order.tolist() == sorted(range(len(order)), key=lambda position: (ranking.score[position], position))


def test_a_draw_has_no_evidence(scoring):
    with pytest.raises(UsageError, match="does not look at the targets"):
        by_target(scoring, "random", 0)
