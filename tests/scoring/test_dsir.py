"""DSIR against the authors' package and against loops; what-ifs and draws of a kept scoring."""

import json
from collections import Counter
from itertools import pairwise
from math import log

import numpy as np
import pytest
from conversations import pairs
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsift.data.targets import read_targets
from gradsift.scoring.choices import make_choices
from gradsift.scoring.dsir import BUCKETS, EPSILON, bucket, count_ngrams, gumbel_noise
from gradsift.scoring.score_targets import score_targets
from gradsift.selection.ranking import rank

POOL = ["The cat sat on the mat.", "A dog, a cat; and: a dog!", "", "Où est-ce que ça se trouve?", "the the the cat 42"]
TARGETS = ["the cat sat", "a dog and a cat", "où est le chat?"]


def by_hand(pool: list[str], targets: list[str]) -> list[float]:
    """log w of every text of the pool for all targets together, n-gram by n-gram."""
    import nltk

    def counts(text: str) -> Counter:
        words = nltk.tokenize.WordPunctTokenizer().tokenize(text.lower())
        return Counter(bucket(ngram) for ngram in [*words, *map(" ".join, pairwise(words))])

    in_pool, in_targets = sum(map(counts, pool), Counter()), sum(map(counts, targets), Counter())
    all_pool, all_targets = max(in_pool.total(), 1), max(in_targets.total(), 1)

    def one(b: int) -> float:
        return log(in_targets[b] / all_targets + EPSILON) - log(in_pool[b] / all_pool + EPSILON)

    return [sum(times * one(b) for b, times in counts(text).items()) for text in pool]


class TestWeights:
    def test_equal_the_authors_package(self, tmp_path):
        from data_selection import HashedNgramDSIR

        for name, texts in (("pool", POOL), ("targets", TARGETS)):
            (tmp_path / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        package = HashedNgramDSIR([str(tmp_path / "pool")], [str(tmp_path / "targets")], str(tmp_path), num_proc=1)
        package.fit_importance_estimator("all")
        expected = [package.importance_estimator(package.featurizer(text)) for text in POOL]
        result = count_ngrams(POOL, TARGETS).log_weights(np.zeros(3, dtype=int))[:, 0]
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-5)

    @settings(deadline=None, max_examples=30)
    @given(
        st.lists(st.text("abc .é", max_size=12), min_size=1, max_size=6),
        st.lists(st.tuples(st.text("abc .é", max_size=12), st.integers(0, 2)), min_size=1, max_size=6),
    )
    def test_equal_loops_for_every_group(self, pool, targets):
        texts, groups = [text for text, _ in targets], np.array([group for _, group in targets])
        groups = np.unique(groups, return_inverse=True)[1]
        ngrams = count_ngrams(pool, texts)
        result = ngrams.log_weights(groups)
        for group in range(groups.max() + 1):
            mine = [text for text, at in zip(texts, groups, strict=True) if at == group]
            np.testing.assert_allclose(result[:, group], by_hand(pool, mine), rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(ngrams.log_weights(groups, slice(1, 3)), result[1:3])

    def test_rows_like_the_targets_weigh_most(self):
        pool = ["the capital of France is Paris", "two and two are four", "the capital of Spain is Madrid"]
        result = count_ngrams(pool, ["the capital of Italy is Rome"]).log_weights(np.zeros(1, dtype=int))[:, 0]
        assert result[1] < min(result[0], result[2])

    def test_buckets(self):
        assert 0 <= bucket("the cat") < BUCKETS
        assert bucket("the cat") != bucket("cat the")
        assert bucket("\ud800") == bucket("?")  # half a surrogate pair has no bytes of its own


def test_noise_draws_in_proportion_to_the_weights():
    """Of weights 1, 2 and 5, each comes first in an eighth, a quarter and five eighths of the seeds."""
    weights = np.log([1.0, 2.0, 5.0])
    first = Counter(int((weights + gumbel_noise(3, seed)).argmax()) for seed in range(4000))
    np.testing.assert_allclose([first[i] / 4000 for i in range(3)], [1 / 8, 2 / 8, 5 / 8], atol=0.03)
    np.testing.assert_array_equal(gumbel_noise(5, 3), gumbel_noise(5, 3))


@pytest.fixture(scope="module")
def scoring(tiny_store, tiny_targets):
    return score_targets(tiny_store, read_targets(tiny_targets).rows, ["dsir"])


@pytest.fixture(scope="module")
def texts(tiny_store, scoring):
    """The full text of every scored row, and of every target."""
    rows = tiny_store.texts(scoring.rows)["conversation"]
    pool = ["\n".join(text for _, text in pairs(conversation.messages)) for conversation in rows]
    return pool, ["\n".join(text for _, text in pairs(target.messages)) for target in scoring.targets]


class TestScoring:
    def test_a_subtasks_targets_are_one_distribution(self, scoring, texts):
        pool, targets = texts
        ranking = rank(scoring, "dsir", seed=7)
        boxes, cats = by_hand(pool, targets[:2]), by_hand(pool, targets[2:])
        expected = np.maximum(boxes, cats) + gumbel_noise(len(pool), 7)
        np.testing.assert_allclose(ranking.score, expected, rtol=1e-5, atol=1e-3)
        assert ranking.best_subtask.tolist() == (np.array(cats) > boxes).astype(int).tolist()
        mean = rank(scoring, "dsir", aggregate="mean", seed=7)
        np.testing.assert_allclose(
            mean.score, np.mean([boxes, cats], 0) + gumbel_noise(len(pool), 7), rtol=1e-5, atol=1e-3
        )

    def test_each_target_picks_in_turn_by_its_own_distribution(self, scoring, texts):
        pool, targets = texts
        own = np.array([by_hand(pool, [target]) for target in targets]).T + gumbel_noise(len(pool), 0)[:, None]
        left, order = set(range(len(pool))), []
        while left:
            best = max(left, key=lambda at: (own[at, len(order) % 3], -at))
            order.append(best)
            left.remove(best)
        assert rank(scoring, "dsir", aggregate="round-robin").order.tolist() == order

    def test_leaving_a_target_out_equals_scoring_without_it(self, tiny_store, scoring):
        alone = score_targets(tiny_store, scoring.targets[1:], ["dsir"])
        without = rank(scoring.under(make_choices(without_targets=[0])), "dsir")
        np.testing.assert_allclose(without.score, rank(alone, "dsir").score, rtol=1e-5, atol=1e-3)

    def test_another_seed_is_another_draw(self, scoring):
        orders = [rank(scoring, "dsir", seed=seed).order.tolist() for seed in (0, 0, 1)]
        assert orders[0] == orders[1] != orders[2]
