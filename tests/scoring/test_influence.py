"""Eq. 2 and its variants against loops in float64; scorings of a real store (method, sections 2.3, 2.4, 3 and 7.8)."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conversations import talk
from hypothesis import given, settings
from hypothesis import strategies as st
from influences import POOLINGS, SIMILARITIES, by_hand, case, evidence_of

from gradsift.data.pool import Row
from gradsift.data.targets import TargetError, read_targets
from gradsift.datastore.shards import read_tensors, write_tensors
from gradsift.gradients.store_model import StoreModel
from gradsift.runtime.errors import StoreError
from gradsift.scoring.evidence import Evidence
from gradsift.scoring.influence import influence, pooling_matrix
from gradsift.scoring.score_targets import score_targets
from gradsift.scoring.scoring import Scoring, open_scoring
from gradsift.scoring.target_features import encode_target


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("pooling", POOLINGS)
class TestEquationTwo:
    @pytest.mark.parametrize("sizes", [[1], [4], [1, 5, 2], [3, 1, 1, 7]], ids=str)
    def test_equals_loops(self, similarity, pooling, sizes):
        rows, targets, subtask_of, weights = case(13, sizes, epochs=3)
        result = influence(evidence_of(rows, targets, weights), subtask_of, len(sizes), similarity, pooling)
        expected = by_hand(rows, targets, subtask_of, weights, similarity, pooling)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=2e-6 * np.abs(expected).max())

    @settings(deadline=None, max_examples=25)
    @given(
        st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 9), st.integers(1, 4), st.integers(0, 99)
    )
    def test_equals_loops_for_any_shape(self, similarity, pooling, sizes, n, epochs, seed):
        rows, targets, subtask_of, weights = case(n, sizes, epochs, seed=seed)
        result = influence(evidence_of(rows, targets, weights), subtask_of, len(sizes), similarity, pooling)
        expected = by_hand(rows, targets, subtask_of, weights, similarity, pooling)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


class TestPooling:
    def test_cosines_lie_between_minus_one_and_one(self):
        rows, targets, subtask_of, weights = case(50, [1, 4, 2])
        rows[0][0], rows[1][0] = targets[0][subtask_of == 0], targets[1][subtask_of == 0]
        for pooling in POOLINGS:
            result = influence(evidence_of(rows, targets, weights), subtask_of, 3, "cosine", pooling)
            assert np.abs(result).max() <= 1 + 1e-6
            assert result[0, 0] == pytest.approx(1, abs=1e-6)

    def test_the_two_poolings_differ_by_long_targets(self):
        """A mean follows its longest member, a mean of cosines weighs all alike; with one target they agree."""
        targets = [np.array([[100.0, 0.0], [0.0, 1.0]])]
        rows = [np.array([[1.0, 0.0], [0.0, 1.0]])]
        together = np.array([0, 0])
        of_mean, of_cosines = (
            influence(evidence_of(rows, targets, [1.0]), together, 1, "cosine", pooling)[:, 0] for pooling in POOLINGS
        )
        np.testing.assert_allclose(of_mean, [1, 0.01], atol=1e-4)
        np.testing.assert_allclose(of_cosines, [0.5, 0.5], atol=1e-6)

    def test_targets_that_nearly_cancel(self):
        """The mean is a thousandth of its members: its direction must still come out."""
        rng = np.random.default_rng(0)
        common, rest = rng.normal(size=64) * 1e-3, rng.normal(size=(4, 64))
        targets = [np.concatenate([common + rest, common - rest]).astype(np.float32).astype(np.float64)]
        rows = [rng.normal(size=(20, 64))]
        subtask_of = np.zeros(8, dtype=int)
        result = influence(evidence_of(rows, targets, [1.0]), subtask_of, 1)
        expected = by_hand(rows, targets, subtask_of, [1.0], "cosine", "cosine-of-mean")
        np.testing.assert_allclose(result, expected, atol=0.02)

    def test_a_target_of_zeros_counts_as_unrelated(self):
        rows, targets, subtask_of, weights = case(5, [1, 2])
        targets = [np.where((subtask_of == 0)[:, None], 0, t) for t in targets]
        for pooling in POOLINGS:
            result = influence(evidence_of(rows, targets, weights), subtask_of, 2, "cosine", pooling)
            assert np.isfinite(result).all()
            assert not result[:, 0].any()

    def test_scores_without_vectors_are_averaged(self):
        """BM25: the mean within a subtask, whatever similarity and pooling say."""
        products = np.arange(12, dtype=np.float32).reshape(3, 4)
        part = Evidence(products, None, None, 1.0)
        for similarity in SIMILARITIES:
            for pooling in POOLINGS:
                result = influence([part], np.array([0, 1, 0, 0]), 2, similarity, pooling)
                np.testing.assert_allclose(result, np.stack([products[:, [0, 2, 3]].mean(1), products[:, 1]], 1))

    def test_matrix(self):
        gram = np.array([[4.0, 2.0, 0.0], [2.0, 9.0, 0.0], [0.0, 0.0, 25.0]])
        subtask_of = np.array([0, 0, 1])
        mean = pooling_matrix(gram, subtask_of, 2, "dot", "cosine-of-mean")
        np.testing.assert_allclose(mean, [[0.5, 0], [0.5, 0], [0, 1]])
        length = (4 + 9 + 2 * 2) ** 0.5 / 2  # length of the mean of the first two
        result = pooling_matrix(gram, subtask_of, 2, "cosine", "cosine-of-mean")
        np.testing.assert_allclose(result, [[0.5 / length, 0], [0.5 / length, 0], [0, 0.2]], rtol=1e-6)
        result = pooling_matrix(gram, subtask_of, 2, "cosine", "mean-of-cosines")
        np.testing.assert_allclose(result, [[0.25, 0], [1 / 6, 0], [0, 0.2]], rtol=1e-6)


@pytest.fixture(scope="module")
def targets(tiny_targets):
    return read_targets(tiny_targets).rows


@pytest.fixture(scope="module")
def scoring(tiny_store, targets):
    return score_targets(tiny_store, targets)


class TestScoring:
    def test_products_are_those_of_stored_rows_and_targets(self, tiny_store, scoring):
        for kind, side, method in (("adam", "gradient", "less"), ("rds", "representation", "rds")):
            for epoch, part in enumerate(scoring.evidence(method)):
                shards = list(tiny_store.shards(kind, epoch))
                rows = torch.cat([block for shard in shards for _, block in shard.blocks()]).double().numpy()
                vectors, _ = read_tensors(scoring.path / f"targets-{scoring.epochs[epoch]}.safetensors")
                vectors = vectors[side].double().numpy()
                apart = 2**-16 * np.abs(vectors).max() * np.abs(rows).sum(1).max()  # 16 bits of every entry
                np.testing.assert_allclose(part.products, rows @ vectors.T, rtol=1e-5, atol=apart)
                np.testing.assert_allclose(part.gram, vectors @ vectors.T, rtol=1e-4)
                np.testing.assert_allclose(part.norms, torch.cat([shard.norm for shard in shards]))
                assert part.weight == tiny_store.weights[epoch]

    def test_subtasks_in_order_of_appearance(self, scoring, tiny_store):
        assert scoring.subtask_names == ["boxes", "cats"]
        assert scoring.subtask_of.tolist() == [0, 0, 1]
        assert scoring.rows.tolist() == tiny_store.rows.tolist()
        assert tiny_store.weights.sum() == pytest.approx(1)

    def test_is_kept_and_found_again(self, tiny_store, targets, scoring, monkeypatch):
        monkeypatch.setattr("gradsift.model.load.load_model", lambda *_: pytest.fail("the model was loaded again"))
        again = score_targets(tiny_store, targets)
        opened = open_scoring(tiny_store, scoring.path)
        for result in (again, opened):
            assert result.path == scoring.path
            assert result.subtask_names == scoring.subtask_names
            for a, b in zip(result.evidence("less"), scoring.evidence("less"), strict=True):
                np.testing.assert_array_equal(a.products, b.products)

    def test_one_method_at_a_time_gives_the_same(self, tiny_store, targets, scoring, tmp_path):
        shutil.copytree(tiny_store.path, tmp_path / "copy", ignore=shutil.ignore_patterns("scorings"))
        store = type(tiny_store).open(tmp_path / "copy")
        for method in ("rds", "less", "bm25"):
            result = score_targets(store, targets, (method,))
            for a, b in zip(result.evidence(method), scoring.evidence(method), strict=True):
                np.testing.assert_array_equal(a.products, b.products)
        assert result.path.name == scoring.path.name
        with pytest.raises(StoreError, match="sgd-epoch-1"):
            result.evidence("less", "sgd")
        score_targets(store, targets, ("less",), "sgd")
        assert result.has("less", "sgd")
        one, other = result.evidence("less", "sgd")[0], result.evidence("less", "adam")[0]
        np.testing.assert_array_equal(one.gram, other.gram)  # targets always have the plain gradient
        assert not np.allclose(one.products, other.products)

    def test_other_targets_get_another_place(self, tiny_store, targets, scoring):
        shuffled = score_targets(tiny_store, targets[::-1], ("random",))
        assert shuffled.path != scoring.path
        renamed = score_targets(tiny_store, [replace(t, subtask="one") for t in targets], ("random",))
        assert renamed.subtask_names == ["one"]
        assert len({scoring.path, shuffled.path, renamed.path}) == 3

    def test_targets_alone_score_as_they_do_together(self, tiny_store, targets, scoring):
        alone = score_targets(tiny_store, targets[2:], ("less",))
        for a, b in zip(alone.evidence("less"), scoring.evidence("less"), strict=True):
            np.testing.assert_allclose(
                a.products[:, 0], b.products[:, 2], rtol=1e-3, atol=1e-4 * np.abs(a.products).max()
            )


def _reasons(store, targets) -> list[str]:
    model = StoreModel(store)
    return [encode_target(model.encoder, model.window, target)[1] for target in targets]


class TestBadTargets:
    def test_too_long_or_nothing_to_learn_named_by_number(self, tiny_store, targets):
        long = replace(targets[0], messages=talk(("user", "the cat " * 600), ("assistant", "yes")).messages)
        silent = replace(targets[0], messages=talk(("user", "hello")).messages)
        bad = [targets[0], long, targets[1], silent]
        reasons = _reasons(tiny_store, bad)
        assert [bool(reason) for reason in reasons] == [False, True, False, True]
        assert "window of 512" in reasons[1]
        with pytest.raises(
            TargetError, match=r"Target 2 \(.*window of 512\), 4 \(.*no token to learn\) cannot be used"
        ):
            score_targets(tiny_store, bad)

    def test_the_pools_limit_does_not_bind_targets(self, tiny_store, targets):
        """`max_length` is 96 tokens here; a target may use the window."""
        long = replace(targets[0], messages=talk(("user", "the cat " * 60), ("assistant", "yes")).messages)
        assert _reasons(tiny_store, [long]) == [""]

    def test_no_targets(self, tiny_store):
        with pytest.raises(TargetError, match="no target examples"):
            score_targets(tiny_store, [])

    def test_many_are_counted(self, tiny_store, targets):
        silent = replace(targets[0], messages=talk(("user", "hello")).messages)
        with pytest.raises(TargetError, match="and 3 more"):
            score_targets(tiny_store, [silent] * 8)

    def test_a_kind_of_gradient_the_store_lacks(self, tiny_store, targets):
        with pytest.raises(StoreError, match=r"holds adam, sgd gradients, not sign.*--gradient sign"):
            score_targets(tiny_store, targets, ("less",), "sign")


def test_evidence_made_anew_is_read_anew_even_in_the_same_moment(tmp_path):
    """File times have ticks of milliseconds; an array read before must not stand in for the new file."""
    messages = talk(("user", "q"), ("assistant", "a")).messages
    target = Row("f", 1, b"", "s", "i", "", "j", messages, "", "", "")
    scoring = Scoring(tmp_path, [target], np.arange(2), ["epoch-1"], np.ones(1))
    for value in (1.0, 2.0):
        write_tensors(tmp_path / "bm25.safetensors", {"products": torch.full((2, 1), value)}, {})
        os.utime(tmp_path / "bm25.safetensors", ns=(10**18, 10**18))
        assert scoring.evidence("bm25")[0].products.tolist() == [[value], [value]]
